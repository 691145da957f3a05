# SPDX-License-Identifier: Apache-2.0
"""The ways into collections: `prepare` converts them, `make` opens views.

A dataset module binds both to its layout.
"""

from collections.abc import Iterable, Mapping, Sequence
import os
import pathlib

from vidret_jax.data import row_store
from vidret_jax.data.copies import layout as layout_lib
from vidret_jax.data.copies import records, views
from vidret_jax.data.shapes import corpus

Paths = Mapping[str, str] | Iterable[tuple[str, str]]


def make(
  layout: layout_lib.Layout,
  *,
  view: str,
  split: str | None = None,
  storage: str = 'files',
  precision: str = 'float16',
  empty: str = 'error',
  min_frames: int = 8,
  root: str | os.PathLike | None = None,
  paths: Paths = (),
  videos: str | None = None,
) -> views.View:
  """Opens queries or database of a split.

  Args:
    layout: where the published files are.
    view: 'queries' or 'items'.
    split: of `layout.splits`; may be left out where there is one.
    storage: 'files' reads the published HDF5 file, 'records' what `prepare`
      made of it.
    precision: of records, 'float16' or 'float32'.
    empty: a video of no frames is an 'error', or 'missing'.
    min_frames: shorter videos are repeated, see `views.repeated`; 8 as HAP-VR
      for features, 4 as S2VS and DnS, and as few as the network takes.
    root: folder of the published files; `<data folder>/<folder of the
      collection>` by default, the data folder being VIDRET_DATA_DIR or `data`.
    paths: key -> file, relative to it, where it is not the usual one.
    videos: folder of files that the reports play.

  Returns:
    A view, see `views.View`; both of a split share annotations and file.

  Raises:
    ValueError: an unknown option, or files that are not as expected.
    FileNotFoundError: files or records that are not there.
  """
  if view not in views.VIEWS:
    raise ValueError(
      f'{layout.name}: unknown view={view!r}; choose from {views.VIEWS}.'
    )
  if not isinstance(min_frames, int) or min_frames < 1:
    raise ValueError(f'min_frames={min_frames!r}: expected 1 or more.')
  ask, home, paths = _asked(
    layout, split, storage, precision, empty, root, paths
  )

  def opened():
    if storage == 'files':
      contents = records.look(layout, ask, home, paths)
    else:
      contents = records.open_records(ask, home, layout.source)
    return records.collection(contents, ask)

  collection = row_store.shared((ask.folder, home), opened)
  return views.View(collection, view, min_frames=min_frames, videos=videos)


def prepare(
  layout: layout_lib.Layout,
  *,
  split: str | None = None,
  storage: str = 'files',
  precision: str = 'float16',
  empty: str = 'error',
  root: str | os.PathLike | None = None,
  paths: Paths = (),
  shard_bytes: int = 400_000_000,
  manual_dir: str | os.PathLike | None = None,
  overwrite: bool = False,
  verify: bool = False,
  keep: Sequence[pathlib.Path] = (),
  num_threads: int | None = None,
  beam_runner: str | None = None,
  beam_options: Sequence[str] = (),
  progress: bool = True,
) -> pathlib.Path:
  """Reads annotations and lengths once; with storage='records' all features.

  Args:
    layout: see `make`, as are split to paths.
    split: see `make`.
    storage: see `make`.
    precision: see `make`.
    empty: see `make`.
    root: see `make`.
    paths: see `make`.
    shard_bytes: see `builder.write`, as are num_threads to progress.
    manual_dir: replaces `root` as the folder that is read.
    overwrite: makes everything anew.
    verify: see `builder.write`.
    keep: folders that `overwrite` must leave.
    num_threads: see `builder.write`.
    beam_runner: see `builder.write`.
    beam_options: see `builder.write`.
    progress: see `builder.write`.

  Returns:
    The folder of what was prepared.

  Raises:
    ValueError, FileNotFoundError: whatever is wrong.
  """
  if shard_bytes < 1:
    raise ValueError(f'shard_bytes={shard_bytes}: expected 1 or more.')
  ask, home, paths = _asked(
    layout, split, storage, precision, empty, root, paths
  )
  home = pathlib.Path(manual_dir) if manual_dir else home

  def look():
    return records.look(layout, ask, home, paths, progress=progress)

  if storage == 'files':
    if overwrite and ask.folder not in keep:
      for name in (records.ANNOTATIONS, records.CONTENTS):
        (ask.folder / name).unlink(missing_ok=True)
    look()
    return ask.folder

  from vidret_jax.data.copies import builder

  return builder.write(
    ask, look, shard_bytes=shard_bytes, overwrite=overwrite, verify=verify,
    keep=keep, num_threads=num_threads, beam_runner=beam_runner,
    beam_options=beam_options, progress=progress,
  )  # fmt: skip


def _asked(layout, split, storage, precision, empty, root, paths):
  """(request, root, paths) of the data part of a config."""
  paths = {key: str(value) for key, value in dict(paths or ()).items()}
  given = dict(paths)
  if root:
    given['root'] = str(root)
  ask = records.Request(
    collection=layout.name,
    split=layout.split_of(split),
    storage=storage,
    # What is in the file is what views read.
    precision=precision if storage == 'records' else 'float32',
    empty=empty,
    files=tuple(sorted(given.items())),
  )
  home = pathlib.Path(root) if root else corpus.data_root() / layout.folder
  return ask, home, paths
