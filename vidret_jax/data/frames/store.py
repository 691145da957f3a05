# SPDX-License-Identifier: Apache-2.0
"""How the clips of a table become arrays: read each time, kept, or mapped."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
import concurrent.futures
import contextlib
import os
import threading
from typing import Protocol

from absl import logging
import numpy as np

from vidret_jax.data.frames import files

_CONSEQUENCE = 'Left out of training, ranked last by an evaluation'


def cores() -> int:
  """Processor cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


class Clips(Protocol):
  """Frames of the videos of a table.

  Attributes:
    shape: (f, R, R, 3).
    unreadable: id -> why, of the videos found to have no frames so far.
    paths: per video, the file or folder, or None.
  """

  shape: tuple[int, int, int, int]
  unreadable: Mapping[str, str]
  paths: Sequence[str | None]

  def read(self, videos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reads clips.

    Args:
      videos: int64 [b], rows of the table; -1 gives nothing.

    Returns:
      (uint8 [b, f, R, R, 3], zeros after a clip's last frame,
      int64 [b] frames of each clip; 0 where there is none).
    """


class Store:
  """Clips that are decoded when asked for, by several threads.

  A video that cannot be read is told of once, in the log, and never tried
  again.

  Attributes:
    shape: (f, R, R, 3) of a clip.
    paths: per video, the file or folder, or None.
  """

  def __init__(
    self,
    ids: Sequence[str],
    paths: Sequence[str | os.PathLike | None],
    fetch: Callable[[int], np.ndarray],
    *,
    shape: tuple[int, int, int, int],
    unreadable: Mapping[str, str] | None = None,
    cache_bytes: int | None = 0,
    num_threads: int | None = None,
  ):
    """Wraps a function that decodes one clip.

    Args:
      ids: video ids.
      paths: of the videos.
      fetch: row -> uint8 [n, R, R, 3], n <= f; raises `files.UnreadableClip`
        or OSError for a clip that cannot be read. Called from several threads.
      shape: (f, R, R, 3).
      unreadable: id -> why, of the videos that need not be tried.
      cache_bytes: decoded frames kept, the least recently used go first; 0
        keeps none, None all.
      num_threads: that decode the clips of one batch; 0 decodes in the
        caller's thread, None takes one per core.

    Raises:
      ValueError: a negative number.
    """
    for name, value in (
      ('cache_bytes', cache_bytes),
      ('num_threads', num_threads),
    ):
      if value is not None and value < 0:
        raise ValueError(f'{name}={value}: expected 0 or more, or None.')
    self.shape = shape
    self.paths = list(paths)
    self._ids = list(ids)
    self._fetch = fetch
    self._reasons = dict(unreadable or {})
    self._kept = OrderedDict()
    self._kept_bytes = 0
    self._budget = cache_bytes
    self._lock = threading.Lock()
    self._threads = cores() if num_threads is None else num_threads
    self._pool = None

  @property
  def unreadable(self) -> dict[str, str]:
    with self._lock:
      return dict(self._reasons)

  def read(self, videos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clips of rows of the table; see `Clips`."""
    frames = np.zeros((len(videos), *self.shape), np.uint8)
    count = np.zeros(len(videos), np.int64)
    rows = {}  # A video that stands twice in a batch is decoded once.
    for i, video in enumerate(np.asarray(videos).tolist()):
      if video >= 0:
        rows.setdefault(video, []).append(i)

    def fill(video):
      clip = self._clip(video)
      if clip is not None:
        for i in rows[video]:
          frames[i, : len(clip)] = clip
          count[i] = len(clip)

    pool = self._workers() if len(rows) > 1 else None
    # list() raises what a worker raised.
    list((pool.map if pool else map)(fill, rows))
    return frames, count

  def _workers(self):
    with self._lock:
      if self._pool is None and self._threads > 1:
        self._pool = concurrent.futures.ThreadPoolExecutor(
          self._threads, thread_name_prefix='frames'
        )
      return self._pool

  def _clip(self, video: int) -> np.ndarray | None:
    name = self._ids[video]
    with self._lock:
      if name in self._reasons:
        return None
      if video in self._kept:
        self._kept.move_to_end(video)
        return self._kept[video]
    try:
      clip = self._fetch(video)
      if not 0 < len(clip) <= self.shape[0]:
        raise files.UnreadableClip(f'{len(clip)} frames')
    except (files.UnreadableClip, OSError) as error:
      self._give_up(name, str(error))
      return None
    if self._budget != 0:
      self._keep(video, clip)
    return clip

  def _keep(self, video: int, clip: np.ndarray) -> None:
    with self._lock:
      if video in self._kept:  # Another thread was faster.
        return
      self._kept[video] = clip
      self._kept_bytes += clip.nbytes
      while self._budget is not None and self._kept_bytes > self._budget:
        self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes

  def _give_up(self, name: str, why: str) -> None:
    with self._lock:
      if name in self._reasons:
        return
      self._reasons[name] = why
    logging.warning('video %r: %s. %s', name, why, _CONSEQUENCE)


def tell(unreadable: Mapping[str, str]) -> None:
  """Warns of videos that are known to be unreadable, in one line."""
  if not unreadable:
    return
  some = list(unreadable)[:10]
  more = len(unreadable) - len(some)
  logging.warning(
    '%d videos: %s. %s: %s%s', len(unreadable), unreadable[some[0]],
    _CONSEQUENCE, ', '.join(some), f' and {more} more' if more else '',
  )  # fmt: skip


class Mapped:
  """Clips that lie decoded in one array, in memory or on disk.

  Attributes:
    frames: uint8 [v, f, R, R, 3].
    count: int64 [v], frames of each clip.
    shape: (f, R, R, 3) of a clip.
    paths: per video, the file, or None.
    unreadable: id -> why.
  """

  def __init__(
    self,
    frames: np.ndarray,
    count: np.ndarray,
    paths: Sequence[str | os.PathLike | None],
    unreadable: Mapping[str, str],
  ):
    """Wraps uint8 [v, f, R, R, 3] and int [v] of frames in each clip."""
    self.shape = tuple(frames.shape[1:])
    self.paths = list(paths)
    self.unreadable = dict(unreadable)
    self.frames = np.asarray(frames)  # A map stays one, as a plain array.
    self.count = np.asarray(count, np.int64)

  def read(self, videos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clips of rows of the table; see `Clips`."""
    videos = np.asarray(videos)
    valid, safe = videos >= 0, np.maximum(videos, 0)
    frames = self.frames[safe]
    frames[~valid] = 0
    return frames, np.where(valid, self.count[safe], 0)


@contextlib.contextmanager
def bar(total: int, text: str, show: bool = True):
  """Yields a function to call with the number of clips just finished."""
  if not show:
    yield lambda count: None
    return
  import rich.console
  import rich.progress

  columns = (
    rich.progress.TextColumn('{task.description}'),
    rich.progress.BarColumn(),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TimeElapsedColumn(),
  )
  console = rich.console.Console(stderr=True)
  with rich.progress.Progress(*columns, console=console) as progress:
    task = progress.add_task(text, total=total)
    yield lambda count: progress.advance(task, count)
