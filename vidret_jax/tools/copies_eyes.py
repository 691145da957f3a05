# SPDX-License-Identifier: Apache-2.0
"""Looks at videos: frames of files, and what a frozen network makes of them."""

import collections
from collections.abc import Callable, Iterator, Mapping
import concurrent.futures
import dataclasses
import os
import queue
import threading
from typing import Any

import numpy as np

from vidret_jax import sharding
from vidret_jax.data.copies import video_frames
from vidret_jax.data.frames import store as store_lib
from vidret_jax.data.frames import video as video_lib
from vidret_jax.search import bank as bank_lib
from vidret_jax.search.programs import programs

PIECE = 32  # Frames of a row.
_WAITING = 2  # Pieces of a video that are read ahead.


@dataclasses.dataclass(frozen=True)
class Frames:
  """How a video becomes frames; see `video_frames.read`."""

  fps: float = 1.0
  resize: int = video_frames.RESIZE
  crop: int = video_frames.CROP
  min_frames: int = video_frames.MIN_FRAMES

  def __post_init__(self):
    if not 0 < self.fps <= 1000:
      raise ValueError(
        f'fps={self.fps}: expected frames per second, up to 1000.'
      )
    if not 1 <= self.crop <= self.resize:
      raise ValueError(
        f'crop={self.crop}, resize={self.resize}: expected 1 or more, and a '
        'frame from which this can be cut.'
      )


class Pieces:
  """Pieces of videos in order, read ahead.

  Attributes:
    names: of the videos.
    unreadable: name -> why, of those that could not be read so far.
  """

  def __init__(
    self,
    files: Mapping[str, str | os.PathLike],
    frames: Frames,
    *,
    piece: int = PIECE,
    num_threads: int | None = None,
  ):
    """Wraps videos.

    Args:
      files: name -> file.
      frames: how they are read.
      piece: frames of a piece.
      num_threads: that decode, a video each; one per core by default.
    """
    self.names = tuple(files)
    self.unreadable: dict[str, str] = {}
    self.shape = (piece, frames.crop, frames.crop, 3)
    self._files = dict(files)
    self._frames = frames
    self._threads = max(num_threads or store_lib.cores(), 1)

  def __iter__(self) -> Iterator[tuple[str, np.ndarray | None]]:
    """Yields (name, uint8 [piece or fewer, crop, crop, 3]) of the videos.

    After the last piece of a video comes (name, None), and also in the place of
    the rest of a video that cannot be read.
    """
    stop = threading.Event()
    names = collections.deque(self.names)
    running: collections.deque = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(
      self._threads, thread_name_prefix='copies'
    ) as pool:
      try:
        while names or running:
          while names and len(running) < self._threads:
            out = queue.Queue(_WAITING)
            name = names.popleft()
            pool.submit(self._work, name, out, stop)
            running.append((name, out))
          name, out = running.popleft()
          while (found := out.get()) is not None:
            if isinstance(found, Exception):
              self._note(name, found)
              break
            yield name, found
          yield name, None
      finally:
        stop.set()

  def _work(self, name, out, stop):
    def put(x):
      while not stop.is_set():
        try:
          out.put(x, timeout=0.2)
          return
        except queue.Full:
          pass

    try:
      for piece in self._pieces(self._files[name]):
        put(piece)
        if stop.is_set():
          return
      put(None)
    except Exception as e:
      put(e)

  def _pieces(self, file):
    f, size = self._frames, self.shape[0]
    rows, short = [], True
    for frame in video_frames.frames(
      file, fps=f.fps, resize=f.resize, crop=f.crop
    ):
      rows.append(frame)
      if len(rows) == size:
        yield np.stack(rows)
        rows, short = [], False
    if short:
      rows = video_frames.repeat(np.stack(rows), f.min_frames)
    for start in range(0, len(rows), size):
      yield np.stack(rows[start : start + size])

  def _note(self, name, error):
    if not isinstance(error, (video_lib.UnreadableVideo, OSError)):
      raise error
    text = str(error).removeprefix(f'{self._files[name]}: ')
    self.unreadable[name] = text


def encode(
  model: Any,
  mesh: Any,
  variables: Any,
  pieces: Pieces,
  batch_size: int,
  look: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
  """Yields (name, {'vector' [n, d], 'regions' [n, piece, r, d], 'length' [n]}).

  Frames of videos follow each other without a gap in what the devices are
  given, however short the videos are.

  Args:
    model: takes frames, and leaves regions as they are (`features_only`).
    mesh: the devices.
    variables: of the model.
    pieces: of videos; those that cannot be read are left out.
    batch_size: times the frames of a piece is what is encoded at a time.
    look: is told each name once all of its frames were looked at.
  """
  eyes = _Eyes(model, mesh, variables, pieces.shape, batch_size)
  ended: collections.deque[str] = collections.deque()

  def whole():
    while ended and not eyes.waits(ended[0]):
      name = ended.popleft()
      regions = eyes.pop(name)
      if look is not None:
        look(name)
      if name not in pieces.unreadable:
        yield name, eyes.rows(regions)

  for name, frames in pieces:
    if frames is None:
      ended.append(name)
    else:
      eyes.add(name, frames)
    yield from whole()
  eyes.run()
  yield from whole()


class _Eyes:
  """The frozen network, given frames until a batch is full."""

  def __init__(self, model, mesh, variables, shape, batch_size):
    size = bank_lib.round_up(batch_size, mesh)
    self._program = programs(model, mesh).encode_item
    self._mesh, self._variables = mesh, variables
    self._batch = np.zeros((size, *shape), np.uint8)
    self._frames = self._batch.reshape(-1, *shape[1:])
    self._used = 0
    self._parts: list[tuple[str, int, int]] = []
    self._seen: dict[str, list[np.ndarray]] = {}

  def add(self, name: str, frames: np.ndarray) -> None:
    """Takes frames of a video; those of one follow each other."""
    while len(frames):
      room = len(self._frames) - self._used
      some, frames = frames[:room], frames[room:]
      end = self._used + len(some)
      self._frames[self._used : end] = some
      self._parts.append((name, self._used, end))
      self._used = end
      if end == len(self._frames):
        self.run()

  def run(self) -> None:
    """Looks at the frames that wait."""
    if not self._used:
      return
    length = np.full(len(self._batch), self._batch.shape[1], np.int32)
    regions = self._encode(frames=self._batch, length=length)['regions']
    regions = regions.reshape(len(self._frames), *regions.shape[2:])
    for name, start, end in self._parts:
      self._seen.setdefault(name, []).append(regions[start:end].copy())
    self._used = 0
    self._parts.clear()

  def waits(self, name: str) -> bool:
    """Whether frames of a video are still to be looked at."""
    return any(part[0] == name for part in self._parts)

  def pop(self, name: str) -> np.ndarray | None:
    """Regions of a video: [t, r, d]; None if no frame came."""
    found = self._seen.pop(name, None)
    return None if found is None else np.concatenate(found)

  def rows(self, regions: np.ndarray) -> dict[str, np.ndarray]:
    """The pieces of a video."""
    size, piece = self._batch.shape[:2]
    count = -(-len(regions) // piece)
    padding = ((0, count * piece - len(regions)), (0, 0), (0, 0))
    cut = np.pad(regions, padding).reshape(count, piece, *regions.shape[1:])
    length = np.full(count, piece, np.int32)
    length[-1] = len(regions) - piece * (count - 1)
    vectors = []
    for start in range(0, count, size):
      some, n = slice(start, start + size), min(size, count - start)
      emb = self._encode(
        regions=np.resize(cut[some], (size, *cut.shape[1:])),
        length=np.resize(length[some], size),
      )
      vectors.append(emb['vector'][:n])
    return dict(vector=np.concatenate(vectors), regions=cut, length=length)

  def _encode(self, **batch):
    batch = sharding.put_batch(batch, self._mesh)
    return sharding.fetch(self._program(self._variables, batch))
