# SPDX-License-Identifier: Apache-2.0
"""The ways into expert packs: `prepare` makes records, `make` opens them.

A dataset module adds a `Layout` and a builder class; both functions are bound
to them there.
"""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

import tensorflow_datasets as tfds

from vidret_jax.data import batch_layout, encoders, pack_builder, store
from vidret_jax.data import experts as experts_lib
from vidret_jax.data import layout as layout_lib


def data_root() -> pathlib.Path:
  """Folder of all data: $VIDRET_DATA_DIR, or `data` where the job runs."""
  return pathlib.Path(os.environ.get('VIDRET_DATA_DIR') or 'data')


def _frozen(value: Any) -> Any:
  if hasattr(value, 'items'):  # A ConfigDict is no Mapping.
    return tuple(sorted((k, _frozen(v)) for k, v in value.items()))
  if isinstance(value, (list, tuple)):
    return tuple(_frozen(v) for v in value)
  return value


def request_of(
  layout: layout_lib.Layout,
  split: str,
  experts: Sequence[tuple[str, Mapping[str, Any]]],
  text: Mapping[str, Any],
  *,
  root: str | None = None,
  training_file: str | None = None,
  paths: Sequence[tuple[str, Sequence[str]]] = (),
  aggregation: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> tuple[layout_lib.Request, str]:
  """Turns the data part of a config into a request.

  Args:
    layout: of the dataset.
    split: '<protocol>/<split>', or '<split>' where there is one protocol.
    experts: (name, {dim, max_tokens}).
    text: {dim, encoder, files}; encoder defaults to 'openai'.
    root: feature folder below the corpus folder.
    training_file: replaces the list of the training split.
    paths: files of experts of one's own.
    aggregation: changes of the visual experts' sampling.

  Returns:
    (request, name of the split in the records).

  Raises:
    ValueError: unknown split.
  """
  *protocol, part = split.split('/')
  protocol = protocol[0] if protocol else 'all'
  if part not in layout.lists.get(protocol, {}):
    known = [
      part if name == 'all' else f'{name}/{part}'
      for name, parts in layout.lists.items()
      for part in parts
    ]
    raise ValueError(f'{layout.name}: unknown split={split!r}; known: {known}.')
  shape = batch_layout.BatchLayout(experts, {'max_tokens': 1, **text})
  encoder = text.get('encoder', 'openai')
  encoders.check(encoder, shape.text_dim, bool(text.get('files')))
  request = layout_lib.Request(
    protocol=protocol,
    experts=tuple(
      (name, dim, name in shape.lengths) for name, dim in shape.dims.items()
    ),
    encoder=encoder,
    text_dim=shape.text_dim,
    root=root,
    training_file=training_file,
    text_files=tuple(text.get('files', ())),
    paths=_frozen(paths),
    aggregation=_frozen(aggregation),
  )
  for name in shape.names:
    layout_lib.expert_files(layout, request, name)
  return request, part


def records_folder(layout, request) -> pathlib.Path:
  name = pack_builder.config_of(request).name
  return data_root() / 'records' / layout.name / name / pack_builder.VERSION


def make(
  layout: layout_lib.Layout,
  *,
  view: str,
  split: str,
  experts,
  text,
  root: str | None = None,
  training_file: str | None = None,
  paths=(),
  aggregation=(),
  corpus: str | None = None,
  **kwargs,
):
  """Opens a view of prepared records.

  Args:
    layout: of the dataset.
    view: 'pairs', 'items' or 'queries'.
    split: see `request_of`, as are experts to aggregation.
    experts: see `request_of`.
    text: see `request_of`, and {max_tokens}.
    root: see `request_of`.
    training_file: see `request_of`.
    paths: see `request_of`.
    aggregation: see `request_of`.
    corpus: folder whose `videos/<id>.mp4` the reports play.
    **kwargs: see `vidret_jax.data.experts.make`.

  Raises:
    MissingRecords: nothing was prepared for this config.
  """
  request, part = request_of(
    layout,
    split,
    experts,
    text,
    root=root,
    training_file=training_file,
    paths=paths,
    aggregation=aggregation,
  )
  folder = records_folder(layout, request)
  home = pathlib.Path(corpus) if corpus else data_root() / layout.folder
  if not folder.exists():
    _explain(layout, folder, home)
  return experts_lib.make(
    str(folder),
    part,
    view=view,
    experts=experts,
    text=text,
    corpus=str(home),
    **kwargs,
  )


def _explain(layout, folder, home) -> None:
  there = 'is there' if home.is_dir() else 'is not there'
  partial = sorted(folder.parent.glob(f'incomplete.*_{folder.name}'))
  found = f'  found an unfinished {partial[0].name}\n' if partial else ''
  raise store.MissingRecords(
    f'{layout.name}: no records for this config.\n'
    f'  expected: {folder}\n{found}'
    f'  they are made from: {home} (which {there})\n'
    f'  published: {layout.source}\n'
    '  next: python -m vidret_jax.tools.prepare --config <your config> '
    '[--manual_dir <folder of the published files>]'
  )


def prepare(
  builder_class: type[pack_builder.ExpertPack],
  *,
  split: str,
  experts,
  text,
  root: str | None = None,
  training_file: str | None = None,
  paths=(),
  aggregation=(),
  manual_dir: str | None = None,
  overwrite: bool = False,
  keep: Sequence[pathlib.Path] = (),
  beam_runner: str | None = None,
  beam_options: Sequence[str] = (),
) -> pathlib.Path:
  """Makes the records that a config needs; does nothing when they are there.

  Args:
    builder_class: of the dataset.
    split: see `request_of`, as are experts to aggregation.
    experts: see `request_of`.
    text: see `request_of`.
    root: see `request_of`.
    training_file: see `request_of`.
    paths: see `request_of`.
    aggregation: see `request_of`.
    manual_dir: folder of the published files; default `<data>/<folder>`.
    overwrite: delete records that are there, and what unfinished attempts
      left behind.
    keep: folders that `overwrite` must leave.
    beam_runner: name of an Apache Beam runner, e.g. 'DirectRunner'.
    beam_options: '--name=value' of that runner.

  Returns:
    The folder of the records.

  Raises:
    FileNotFoundError, ValueError: see `vidret_jax.data.corpus`.
  """
  layout = builder_class.LAYOUT
  request, _ = request_of(
    layout,
    split,
    experts,
    text,
    root=root,
    training_file=training_file,
    paths=paths,
    aggregation=aggregation,
  )
  folder = records_folder(layout, request)
  manual = pathlib.Path(manual_dir or data_root() / layout.folder)
  if overwrite and folder not in keep:
    unfinished = folder.parent.glob(f'incomplete.*_{folder.name}')
    for old in filter(pathlib.Path.exists, [folder, *unfinished]):
      shutil.rmtree(old)
  if folder.exists():
    store.check_complete(str(folder))
    _check_same_files(folder)
    return folder
  # All errors of the files come from here, before TFDS makes a folder.
  pack_builder.open_corpus.cache_clear()
  pack_builder.open_corpus(layout, request, str(manual))
  builder = builder_class(
    use_beam=beam_runner is not None,
    data_dir=str(data_root() / 'records'),
    config=pack_builder.config_of(request),
    file_format='array_record',
  )
  download = tfds.download.DownloadConfig(
    manual_dir=str(manual), beam_runner=beam_runner
  )
  if beam_runner:
    from apache_beam.options import pipeline_options

    # Without options Beam would read those of our own command line.
    options = pipeline_options.PipelineOptions(list(beam_options))
    download = download.replace(beam_options=options)
  # TFDS makes a download folder even where nothing is downloaded.
  with tempfile.TemporaryDirectory() as empty:
    try:
      builder.download_and_prepare(
        download_dir=empty,
        download_config=download,
        file_format='array_record',
      )
    finally:
      pack_builder.open_corpus.cache_clear()
  return folder


def _check_same_files(folder: pathlib.Path) -> None:
  """Refuses records whose source files have changed since.

  Files that are gone are no error: records stand on their own.
  """
  metadata = folder / 'metadata.json'
  if not metadata.is_file():
    return
  for name, found in json.loads(metadata.read_text())['files'].items():
    file = pathlib.Path(name)
    if (
      file.is_file() and pack_builder.fingerprints([file])[name][0] != found[0]
    ):
      raise ValueError(
        f'{folder}: made from {name} when it had {found[0]} bytes; it has '
        f'{file.stat().st_size} now. Run prepare again with --overwrite.'
      )
