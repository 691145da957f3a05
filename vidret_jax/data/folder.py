# SPDX-License-Identifier: Apache-2.0
"""Videos of any names anywhere below a folder, to be encoded and searched."""

from collections.abc import Collection, Mapping
import concurrent.futures
import os
import pathlib
import threading
from typing import Any

import numpy as np

from vidret_jax.data.frames import files as files_lib
from vidret_jax.data.frames import select as select_lib
from vidret_jax.data.frames import store as store_lib
from vidret_jax.data.frames import transform as transform_lib
from vidret_jax.data.frames import video as video_lib

VIEWS = ('items',)


def make(
  *,
  root: str | os.PathLike,
  view: str = 'items',
  max_frames: int = 12,
  image_size: int = 224,
  select: str = 'uniform',
  frame_order: str = 'as_is',
  framerate: int = 1,
  transform: str = 'exact',
  skip: Collection[str] = (),
  num_threads: int | None = None,
) -> 'Videos':
  """Opens a folder of videos.

  Args:
    root: the folder.
    view: 'items'; there are no captions.
    max_frames: frames of a video at most.
    image_size: height and width of a frame.
    select: which frames of a video with more; see `frames.select`.
    frame_order: 'as_is' or 'reversed'.
    framerate: frames per second that are looked at.
    transform: see `frames.transform`.
    skip: ids to leave out.
    num_threads: that decode the videos of a batch; one per core by default.

  Raises:
    ValueError: an unknown option, or no such folder.
  """
  if view not in VIEWS:
    raise ValueError(
      f'view={view!r}: a folder of videos has no captions, only {VIEWS[0]!r}.'
    )
  select_lib.check(max_frames, select, frame_order)
  if frame_order == 'shuffled':
    raise ValueError("frame_order='shuffled' draws; expected 'as_is'.")
  transform_lib.check(transform)
  sampling = dict(max_frames=max_frames, size=image_size, select=select)
  sampling |= dict(order=frame_order, framerate=framerate, transform=transform)
  skip = set(skip)
  ids = [name for name in find(root) if name not in skip]
  return Videos(root, ids, sampling, num_threads)


def find(root: str | os.PathLike) -> list[str]:
  """Paths of all videos below a folder, relative to it, with '/', sorted.

  Hidden files and folders are left out; links are followed, each folder once.

  Raises:
    ValueError: there is no such folder.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise ValueError(f'{root}: no such folder; it should hold videos.')
  found, visited = [], set()
  for folder, folders, names in os.walk(root, followlinks=True):
    real = os.path.realpath(folder)
    if real in visited:
      folders.clear()
      continue
    visited.add(real)
    folders[:] = sorted(name for name in folders if name[0] != '.')
    below = pathlib.Path(folder).relative_to(root)
    found += [
      (below / name).as_posix()
      for name in names
      if name[0] != '.' and name.lower().endswith(video_lib.SUFFIXES)
    ]
  return sorted(found)


def path(root: str | os.PathLike | None, name: str) -> str | None:
  """The file of an id, or None if there is none below the folder.

  An id may come from an index that a stranger made: it cannot name a file
  elsewhere.
  """
  inside = pathlib.PurePosixPath(name)
  if not root or inside.is_absolute() or '..' in inside.parts or '\0' in name:
    return None
  file = pathlib.Path(root, inside)
  return str(file) if file.is_file() else None


class Videos:
  """A source of items; a video that cannot be read has `_mask` False.

  Attributes:
    ids: paths relative to the folder.
    spec: see `data.source`.
    unreadable: id -> why, of the videos that could not be read so far.
  """

  def __init__(
    self,
    root: str | os.PathLike,
    ids: list[str],
    sampling: Mapping[str, Any],
    num_threads: int | None = None,
  ):
    """Wraps the videos `ids` below `root`; `sampling` is for `files.read`."""
    self.ids = tuple(ids)
    self.unreadable: dict[str, str] = {}
    self._root = pathlib.Path(root)
    self._sampling = dict(sampling)
    self._lock = threading.Lock()
    threads = store_lib.cores() if num_threads is None else num_threads
    self._pool = concurrent.futures.ThreadPoolExecutor(
      max(threads, 1), thread_name_prefix='videos'
    )
    size, frames = sampling['size'], sampling['max_frames']
    self._shape = (frames, size, size, 3)
    self.spec = {
      'frames': (self._shape, np.dtype(np.uint8)),
      'frame_mask': ((frames,), np.dtype(bool)),
      '_mask': ((), np.dtype(bool)),
    }

  def __len__(self) -> int:
    return len(self.ids)

  @property
  def videos(self) -> list[str | None]:
    """Per row, the path of a playable file, or None."""
    return [path(self._root, name) for name in self.ids]

  def captions(self, i: int) -> list[str]:
    """Of a video: none."""
    del i
    return []

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    """See `data.source`; frames are RGB, those that a video lacks are zero."""
    del seeds  # Nothing is drawn.
    index = np.asarray(index)
    frames = np.zeros((len(index), *self._shape), np.uint8)
    count = np.zeros(len(index), np.int64)

    def fill(row):
      name = self.ids[index[row]]
      file = self._root / name
      try:
        clip = files_lib.read(file, **self._sampling)
      except (files_lib.UnreadableClip, OSError) as e:
        with self._lock:
          self.unreadable[name] = str(e).removeprefix(f'{file}: ')
        return
      frames[row, : len(clip)] = clip
      count[row] = len(clip)

    # list() raises what a worker raised.
    list(self._pool.map(fill, np.flatnonzero(index >= 0).tolist()))
    frame_mask = np.arange(self._shape[0]) < count[:, None]
    return {
      'frames': frames,
      'frame_mask': frame_mask,
      '_mask': frame_mask.any(axis=1),
    }
