# SPDX-License-Identifier: Apache-2.0
"""Writes records of encoded frames with TFDS; see `records` for what they are.

Imports TensorFlow: load it lazily.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
import concurrent.futures
import dataclasses
import json
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from vidret_jax.data import record_folder
from vidret_jax.data.frames import captions as captions_lib
from vidret_jax.data.frames import encode, files, published, records, store
from vidret_jax.data.shapes import corpus


@dataclasses.dataclass(eq=False)
class FramesConfig(tfds.core.BuilderConfig):
  """A builder config made from what was found.

  Attributes:
    request: what is asked.
    table: videos and captions.
    paths: per video, its file or folder, or None.
    files: annotation file -> its size in bytes.
    num_threads: that encode.
    progress: shows a bar.
  """

  request: records.Request | None = None
  # Too long for TFDS' log.
  table: captions_lib.Table | None = dataclasses.field(default=None, repr=False)
  paths: Sequence[pathlib.Path | None] = dataclasses.field(
    default=(), repr=False
  )
  files: Mapping[str, int] = dataclasses.field(default_factory=dict)
  num_threads: int | None = None
  progress: bool = True


class Frames(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Encoded frames of the videos of one split, in the table's order."""

  name = 'frames'
  VERSION = tfds.core.Version(records.VERSION)

  def _info(self) -> tfds.core.DatasetInfo:
    def flat(dtype):
      return tfds.features.Tensor(
        shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES
      )

    return tfds.core.DatasetInfo(
      builder=self,
      description='Encoded frames of videos, end to end, and their lengths.',
      features=tfds.features.FeaturesDict(
        {
          'id': tfds.features.Text(),
          'frames': flat(np.uint8),
          'lengths': flat(np.int32),
        }
      ),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    config = self.builder_config
    paths = [str(path) if path else None for path in config.paths]
    self.info.metadata['request'] = dataclasses.asdict(config.request)
    self.info.metadata['table'] = config.table.to_json()
    self.info.metadata['paths'] = paths
    self.info.metadata['files'] = dict(config.files)
    self.info.metadata['unreadable'] = {}
    return {records.SPLIT: self._generate_examples()}

  def _generate_examples(self):
    config = self.builder_config
    ids = config.table.ids
    label = f'{config.request.dataset} {config.request.split}: frames'
    with store.bar(len(ids), label, config.progress) as advance:
      for i, (video, found) in enumerate(zip(ids, _encoded(config))):
        if isinstance(found, str):
          self.info.metadata['unreadable'][video] = found
          found = []
        blob = np.frombuffer(b''.join(found), np.uint8)
        lengths = np.asarray([len(f) for f in found], np.int32)
        key = record_folder.key(i, len(ids))
        yield key, {'id': video, 'frames': blob, 'lengths': lengths}
        advance(1)


def _encoded(config: FramesConfig) -> Iterator[list[bytes] | str]:
  """Per video, its encoded frames, or why there are none."""
  ask = config.request

  def work(row):
    path, span = row
    if path is None:
      return 'no file or folder of this name'
    try:
      return encode.frames(
        path, span, ask.framerate, ask.store_size, ask.lossless
      )
    except (files.UnreadableClip, OSError) as error:
      return str(error)

  rows = zip(config.paths, config.table.spans)
  threads = config.num_threads
  threads = max(store.cores() if threads is None else threads, 1)
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    # Not more ahead than the threads need: clips are large.
    ahead = deque()
    for row in rows:
      ahead.append(pool.submit(work, row))
      if len(ahead) > 2 * threads:
        yield ahead.popleft().result()
    while ahead:
      yield ahead.popleft().result()


def write(
  ask: records.Request,
  where: published.Place,
  *,
  overwrite: bool = False,
  keep: Sequence[pathlib.Path] = (),
  num_threads: int | None = None,
  progress: bool = True,
) -> pathlib.Path:
  """Writes records unless they are there; see `sets.prepare`.

  Returns:
    The folder of the records.

  Raises:
    FileNotFoundError, ValueError: see `published.Place`; before anything is
      written. Or records of other annotation files are there.
  """
  folder = ask.folder
  if record_folder.is_written(folder, overwrite=overwrite, keep=keep):
    return folder
  table = where.table()
  builder = Frames(
    data_dir=str(corpus.data_root() / 'records'),
    config=FramesConfig(
      name=ask.name,
      description=f'{ask.dataset}, split {ask.split}',
      request=ask,
      table=table,
      paths=where.find(table),
      files={str(p): p.stat().st_size for p in where.files().values()},
      num_threads=num_threads,
      progress=progress,
    ),
    file_format='array_record',
  )
  record_folder.write(builder)
  store.tell(json.loads((folder / 'metadata.json').read_text())['unreadable'])
  return folder
