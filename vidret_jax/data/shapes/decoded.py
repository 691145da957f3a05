# SPDX-License-Identifier: Apache-2.0
"""Clips of the embedded corpus, decoded once into files of the corpus folder.

frames/<split>-<recipe>.npy   uint8 [v, f, R, R, 3], mapped into memory
frames/<split>-<recipe>.json  frames of each clip, and clips that are damaged
"""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data.frames import files, store

CACHES = ('disk', 'ram')


def check(cache: str) -> None:
  """Raises ValueError for an unknown `cache`."""
  if cache not in CACHES:
    raise ValueError(f'Unknown cache={cache!r}; choose from {CACHES}.')


def clips(
  folder: pathlib.Path,
  split: str,
  ids: Sequence[str],
  sampling: Mapping[str, Any],
  *,
  cache: str = 'disk',
  num_workers: int | None = None,
  progress: bool = True,
) -> store.Mapped:
  """The decoded frames of a split; decodes them first if they are not there.

  Args:
    folder: of the corpus.
    split: its name.
    ids: of its clips, in order.
    sampling: max_frames, size, select, framerate and transform of
      `frames.files.read`.
    cache: 'disk' maps the file, 'ram' reads it whole.
    num_workers: threads that decode.
    progress: shows a bar while they do.
  """
  recipe = '-'.join(f'{k}_{v}' for k, v in sorted(sampling.items()))
  path = folder / 'frames' / f'{split}-{recipe}.npy'
  note = path.with_suffix('.json')
  videos = [folder / 'videos' / f'{name}.mp4' for name in ids]
  if not path.is_file():
    _decode(path, note, ids, videos, sampling, num_workers, progress)
  found = json.loads(note.read_text())
  frames = np.load(path, mmap_mode='r' if cache == 'disk' else None)
  return store.Mapped(frames, found['count'], videos, found['unreadable'])


def _decode(path, note, ids, videos, sampling, num_workers, progress) -> None:
  """Writes the frames of all clips; the file is there when all are in it."""
  size = sampling['size']
  shape = (sampling['max_frames'], size, size, 3)
  reader = store.Store(
    ids,
    videos,
    lambda i: files.read(videos[i], order='as_is', **sampling),
    shape=shape,
    num_threads=num_workers,
  )
  path.parent.mkdir(exist_ok=True)
  part = path.with_suffix(f'.{os.getpid()}.part')
  counts, step = [], 32
  try:
    frames = np.lib.format.open_memmap(
      part, mode='w+', dtype=np.uint8, shape=(len(videos), *shape)
    )
    with store.bar(len(videos), 'shapes: decoding clips', progress) as advance:
      for start in range(0, len(videos), step):
        rows = np.arange(start, min(start + step, len(videos)))
        frames[rows], count = reader.read(rows)
        counts += count.tolist()
        advance(len(rows))
    frames.flush()
    draft = note.with_suffix(f'.{os.getpid()}.json.part')
    found = {'count': counts, 'unreadable': reader.unreadable}
    draft.write_text(json.dumps(found))
    os.replace(draft, note)
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)
