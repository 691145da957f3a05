# SPDX-License-Identifier: Apache-2.0
"""The TFDS builder that all expert packs share.

Records of one protocol, text encoder and set of experts make one builder
config: `<records>/<dataset>/<protocol>-<encoder>-<n>experts-<hash>/1.0.0`.
"""

from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import json
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from vidret_jax.data import corpus as corpus_lib
from vidret_jax.data import layout as layout_lib
from vidret_jax.data import records

VERSION = '1.0.0'


@dataclasses.dataclass(eq=False)
class PackConfig(tfds.core.BuilderConfig):
  """A builder config made from a request.

  Attributes:
    request: what is read from the pack.
  """

  request: layout_lib.Request | None = None


def config_of(request: layout_lib.Request) -> PackConfig:
  """The builder config of a request; equal requests have equal names."""
  digest = hashlib.sha1(
    json.dumps(dataclasses.asdict(request), sort_keys=True).encode()
  ).hexdigest()[:8]
  count = len(request.experts)
  name = f'{request.protocol}-{request.encoder}-{count}experts-{digest}'
  names = ', '.join(name for name, _, _ in request.experts)
  return PackConfig(
    name=name,
    description=(
      f'protocol {request.protocol}; text {request.encoder}; experts {names}'
    ),
    request=request,
  )


class ExpertPack(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Records of one dataset's expert features.

  Attributes:
    LAYOUT: how the dataset's files are laid out.
  """

  LAYOUT: layout_lib.Layout
  VERSION = tfds.core.Version(VERSION)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Features are published by their authors; see docs/data_formats.md.'
  )

  def __init__(self, *, use_beam: bool = False, **kwargs):
    self._use_beam = use_beam
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    request = self.builder_config.request
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.LAYOUT.source,
      features=records.features(
        {name: dim for name, dim, _ in request.experts},
        request.text_dim,
        {'query_slots': tfds.features.Sequence(np.int32)},
      ),
      # Records keep the order of the published list.
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    folder = str(dl_manager.manual_dir)
    corpus = open_corpus(self.LAYOUT, self.builder_config.request, folder)
    check(corpus)
    self.info.metadata['corpus'] = folder
    self.info.metadata['files'] = fingerprints(corpus.files)
    return {
      split: self._generate_examples(folder, split) for split in corpus.ids
    }

  def _generate_examples(self, folder: str, split: str):
    layout, request = self.LAYOUT, self.builder_config.request
    if self._use_beam:
      import apache_beam as beam

      ids = open_corpus(layout, request, folder).ids[split]
      read = functools.partial(_read, layout, request, folder, split)
      return beam.Create(list(enumerate(ids))) | beam.Map(read)
    return map(
      functools.partial(_read, layout, request, folder, split),
      enumerate(open_corpus(layout, request, folder).ids[split]),
    )


@functools.lru_cache(maxsize=1)  # Once per worker, not once per record.
def open_corpus(layout, request, folder: str) -> corpus_lib.Corpus:
  return corpus_lib.Corpus(layout, request, folder)


def _read(layout, request, folder, split, numbered):
  number, video = numbered
  return number, open_corpus(layout, request, folder).record(split, video)


def check(corpus: corpus_lib.Corpus) -> None:
  """Reads everything once, so that no error comes after the first record."""
  from rich import progress

  total = sum(len(ids) for ids in corpus.ids.values())
  label = f'checking {corpus.layout.name}'
  with progress.Progress(transient=True) as bar:
    task = bar.add_task(label, total=total)
    for split, ids in corpus.ids.items():
      for video in ids:
        corpus.record(split, video)
        bar.advance(task)


def fingerprints(files: Sequence[pathlib.Path]) -> dict[str, list[int]]:
  """Path -> [bytes, modification time in ns]."""
  stats = {str(f): f.stat() for f in files}
  return {name: [s.st_size, s.st_mtime_ns] for name, s in stats.items()}
