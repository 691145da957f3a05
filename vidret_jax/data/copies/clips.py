# SPDX-License-Identifier: Apache-2.0
"""Pairs of views of unlabelled videos: what a copy detector is trained on.

A row is a video; its example is two versions of a part of it, weak and strong.
The weak one is what would be in a collection, the strong one what an editor
makes of it. All of an example is a function of its seed.
"""

from collections.abc import Mapping, Sequence
import concurrent.futures
import math
import threading
from typing import Any, Protocol

from absl import logging
import numpy as np

from vidret_jax.data.augment import draws, emoji, fonts, recipe, strong, weak
from vidret_jax.data.augment import temporal as temporal_lib
from vidret_jax.data.frames import files
from vidret_jax.data.frames import store as frame_store

UNREADABLE = ('mask', 'error')
# So many videos of a batch, and not one to be read: it is not the videos.
_ALL = 8
_ALIGNED = 64  # Bytes.


class Store(Protocol):
  """Decoded frames of videos, at even times.

  Attributes:
    ids: a string per video.
  """

  ids: Sequence[str]

  def count(self, video: int) -> int:
    """Frames of a video.

    Raises:
      files.UnreadableClip: there is none.
    """

  def read(self, video: int, frames: np.ndarray) -> np.ndarray:
    """Some frames of a video; called from several threads.

    Args:
      video: its number.
      frames: int64 [n], ascending, each once.

    Returns:
      uint8 [n, h, w, 3] RGB, h and w the same for all frames of a video.

    Raises:
      files.UnreadableClip: one cannot be read; names the file.
    """


class Mapped:
  """Frames that lie decoded in one array, in memory or on disk."""

  def __init__(self, ids: Sequence[str], frames: np.ndarray, count: np.ndarray):
    """Wraps uint8 [v, f, h, w, 3] and int [v] of frames in each video.

    Raises:
      ValueError: the three are not of the same videos.
    """
    if not len(ids) == len(frames) == len(count):
      raise ValueError(
        f'{len(ids)} ids, {len(frames)} videos, {len(count)} counts: expected '
        'as many of each.'
      )
    self.ids = tuple(ids)
    self._frames, self._count = np.asarray(frames), np.asarray(count)

  def count(self, video: int) -> int:
    """See `Store`."""
    if not self._count[video]:
      raise files.UnreadableClip(f'{self.ids[video]!r} has no frames')
    return int(self._count[video])

  def read(self, video: int, frames: np.ndarray) -> np.ndarray:
    """See `Store`."""
    return self._frames[video][frames]


class Pairs:
  """Two views of every video.

  Attributes:
    ids: video ids.
    spec: see `data.source.Source`.
  """

  def __init__(
    self,
    store: Store,
    *,
    window: int = 28,
    size: int = 224,
    augment: Mapping[str, Any] | None = None,
    unreadable: str = 'mask',
    num_threads: int | None = None,
  ):
    """Wraps a store.

    Args:
      store: of the frames.
      window: W, frames of a view.
      size: R, side of its frames in pixels.
      augment: options of `augment.recipe.Recipe`.
      unreadable: what a frame that cannot be read does: 'mask' names it in the
        log and takes the example out of the batch (`_mask`), 'error' ends the
        run.
      num_threads: that make the rows of a batch; 0 makes them in the caller's
        thread, None takes one per core.

    Raises:
      ValueError: an option with a value it cannot have, or no video.
    """
    if unreadable not in UNREADABLE:
      raise ValueError(
        f'unreadable={unreadable!r} is unknown; choose from {UNREADABLE}.'
      )
    if window < 1:
      raise ValueError(f'window={window}: expected 1 frame or more.')
    if num_threads is not None and num_threads < 0:
      raise ValueError(f'num_threads={num_threads}: expected 0 or more.')
    if not len(store.ids):
      raise ValueError('there is no video to train on.')
    self.ids = tuple(store.ids)
    self._store, self._window, self._strict = store, window, unreadable
    self._recipe = recipe.make(augment)
    self._times = self._recipe.times()
    self._weak = self._recipe.weak(size)
    self._strong = self._recipe.strong(size)
    self._fonts = fonts.Fonts(self._recipe.fonts)
    folder = self._recipe.pictures
    self._pictures = emoji.drawn() if folder is None else emoji.folder(folder)
    clip = ((window, size, size, 3), np.dtype(np.uint8))
    self.spec = {
      'weak': clip,
      'strong': clip,
      'mix': ((5,), np.dtype(np.float32)),
      '_mask': ((), np.dtype(bool)),
    }
    self._threads = frame_store.cores() if num_threads is None else num_threads
    self._pool, self._lock, self._told = None, threading.Lock(), set()

  def __len__(self) -> int:
    return len(self.ids)

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    """See `data.source.Source`.

    Returns:
      weak, strong: uint8 [b, W, R, R, 3].
      mix: float32 [b, 5]; see `ops.video_in_video`.
      _mask: bool [b], False for padding and for videos that cannot be read.

    Raises:
      ValueError: a video that cannot be read, with unreadable='error'; or not
        one of eight or more, as when a disk is gone.
    """
    index, seeds = np.asarray(index), np.asarray(seeds)
    out = {
      key: _zeros((len(index), *shape), dtype)
      for key, (shape, dtype) in self.spec.items()
    }
    out['mix'][:] = self._recipe.mix(seeds)

    failed = []

    def fill(row):
      video, seed = int(index[row]), int(seeds[row])
      try:
        read = self._read(video, seed)
      except (files.UnreadableClip, OSError) as error:
        failed.append(f'video {self.ids[video]!r}: {error}')
        self._leave_out(video, failed[-1])
        return
      out['weak'][row], out['strong'][row] = self._edited(*read, seed)
      out['_mask'][row] = True

    rows = np.flatnonzero(index >= 0).tolist()
    pool = self._workers() if len(rows) > 1 else None
    # list() raises what a worker raised.
    list((pool.map if pool else map)(fill, rows))
    if len(failed) == len(rows) >= _ALL:
      raise ValueError(
        f'none of the {len(rows)} videos of a batch can be read; the last: '
        f'{failed[-1]}. Are the files still there?'
      )
    out['mix'][~out['_mask']] = 0
    return out

  def _workers(self):
    with self._lock:
      if self._pool is None and self._threads > 1:
        self._pool = concurrent.futures.ThreadPoolExecutor(
          self._threads, thread_name_prefix='clips'
        )
      return self._pool

  def _read(self, video, seed):
    """(frames, their numbers, times of the weak and the strong view)."""
    count = self._store.count(video)
    times = temporal_lib.two_views(count, self._window, self._times, seed)
    needed = np.unique(np.concatenate(times))
    needed = needed[needed >= 0]
    return self._store.read(video, needed), needed, *times

  def _edited(self, frames, needed, weak_times, strong_times, seed):
    """(weak, strong); a frame is changed once, however often it is shown."""
    shown, slots = np.unique(weak_times, return_inverse=True)
    rng = draws.generator(seed, draws.WEAK)
    made = weak.apply(frames[np.searchsorted(needed, shown)], self._weak, rng)
    shown, strong_slots = np.unique(strong_times, return_inverse=True)
    place = np.searchsorted(needed, shown)
    clip = np.zeros((len(shown), *frames.shape[1:]), np.uint8)
    for to, i, time in zip(clip, place, shown):
      if time >= 0:
        to[:] = frames[i]
      elif time <= temporal_lib.NOISE:
        number = temporal_lib.NOISE - int(time)
        rng = draws.generator(seed, draws.NOISE + number)
        to[:] = rng.random_sample(to.shape) * 255
    edited = strong.apply(
      clip,
      strong_slots,
      self._strong,
      draws.generator(seed, draws.STRONG),
      lambda slot: draws.generator(seed, draws.FRAME + slot),
      self._fonts,
      self._pictures,
    )
    return made[slots], edited

  def _leave_out(self, video, what):
    """Names a video in the log, once; raises if none may be left out."""
    if self._strict == 'error':
      raise ValueError(
        f"{what}. Repair or remove it, or train without it by unreadable='mask'"
        '.'
      ) from None
    with self._lock:
      if video in self._told:
        return
      self._told.add(video)
      count = len(self._told)
    # It is tried again: whether a row counts must not depend on what was read
    # before, or a resumed run would be another one.
    logging.warning(
      '%s. Its examples are left out (%d of %d videos so far).',
      *(what, count, len(self.ids)),
    )


def _zeros(shape, dtype):
  """Zeros where TensorFlow takes them as they are; elsewhere it copies.

  A batch is up to a gigabyte, and no thread can work while it is copied.
  """
  size = math.prod(shape) * dtype.itemsize
  whole = np.zeros(size + _ALIGNED, np.uint8)
  first = -whole.ctypes.data % _ALIGNED
  return whole[first : first + size].view(dtype).reshape(shape)
