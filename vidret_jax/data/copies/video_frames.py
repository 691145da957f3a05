# SPDX-License-Identifier: Apache-2.0
"""Frames of video files at even times, as the copy detectors take them.

What ffmpeg's filters fps, scale and crop make of a file, frame for frame: the
video loader of HAP-VR (arXiv 2407.15566, upstream's `--loader video`), S2VS and
DnS. A file is decoded once from start to end, and one decoded frame is in
memory at a time; only frames that are wanted are converted to RGB.
"""

from collections.abc import Callable, Iterator
import fractions
import itertools
import math
import os
import pathlib
from typing import Any, TypeVar

import numpy as np

from vidret_jax.data.frames import video as video_lib

RESIZE = 256  # Shorter side of a frame in pixels.
CROP = 224  # Side of what is cut out of its middle.
MIN_FRAMES = 4  # The comparator halves time twice.
MAX_FRAMES = 14_400  # Of `read`: four hours a second apart, 2.2 GB.
MAX_FPS = 1000
MAX_TICKS = 1_000_000  # More are a damaged or hostile header, ...
MAX_PAUSE = 3600  # ... as is a longer time without a frame, in seconds.
Result = TypeVar('Result')


def read(
  path: str | os.PathLike,
  *,
  fps: float = 1.0,
  resize: int = RESIZE,
  crop: int = CROP,
  min_frames: int = MIN_FRAMES,
  max_frames: int = MAX_FRAMES,
) -> np.ndarray:
  """All frames of a video at even times.

  Args:
    path: of the file.
    fps: frames per second to take.
    resize: shorter side of a frame in pixels, its longer one in proportion;
      both rounded up to even numbers.
    crop: side of the square that is cut out of the middle, at half of what is
      left over, rounded down.
    min_frames: the video is repeated, doubling its length, until it has so
      many; 1 to leave it as it is.
    max_frames: that a file may have before, to bound the memory.

  Returns:
    uint8 [t, crop, crop, 3] RGB, t >= min_frames.

  Raises:
    video_lib.UnreadableVideo: it cannot be decoded, or has more frames.
    ValueError: options that nothing can be read with.
  """
  found = []
  for frame in frames(path, fps=fps, resize=resize, crop=crop):
    if len(found) == max_frames:
      raise video_lib.UnreadableVideo(
        f'has more than {max_frames} frames at {fps:g} per second; cut it '
        'into parts, or raise max_frames'
      )
    found.append(frame)
  return repeat(np.stack(found), min_frames)


def repeat(rows: np.ndarray, min_rows: int) -> np.ndarray:
  """[t, ...] -> [t * 2**n, ...], the smallest n with min_rows or more."""
  while 0 < len(rows) < min_rows:
    rows = np.concatenate([rows, rows])
  return rows


def frames(
  path: str | os.PathLike,
  *,
  fps: float = 1.0,
  resize: int = RESIZE,
  crop: int = CROP,
) -> Iterator[np.ndarray]:
  """What `read` returns, one uint8 [crop, crop, 3] after another, any number.

  Raises:
    video_lib.UnreadableVideo: it cannot be decoded; raised before the first
      frame is given, unless frames change to a size that is refused.
    ValueError: options that nothing can be read with.
  """
  if not 1 <= crop <= resize:
    raise ValueError(
      f'crop={crop}, resize={resize}: expected 1 or more, and a frame from '
      'which this can be cut'
    )

  def finish(frame):
    shape = even_shape(frame.width, frame.height, resize)
    pixels = video_lib.rgb(frame, shape)
    top, left = ((side - crop) // 2 for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + crop, left : left + crop])

  return ticks(path, finish, fps=fps, size=resize)


def even_shape(width: int, height: int, side: int) -> tuple[int, int]:
  """(width, height) whose shorter one is `side`, rounded up to even numbers."""
  short = min(width, height)
  return tuple(2 * -(-x * side // (2 * short)) for x in (width, height))


def ticks(
  path: str | os.PathLike,
  finish: Callable[[Any], Result],
  *,
  fps: float = 1.0,
  size: int = RESIZE,
) -> Iterator[Result]:
  """The frame of each time 0, 1 / fps, 2 / fps, ... of a video.

  ffmpeg's filter fps: times are rounded to the nearest tick, halves up; of the
  frames of a tick the last one is taken, a tick without any repeats the one
  before, and the last frame lasts as long as the file says. At one per second
  this shows what is seen just before 0.5 s, 1.5 s, ... Where the filter would
  give nothing, as the video is shorter than half a tick, the last frame is
  given.

  Args:
    path: of the file.
    finish: frame of PyAV -> what is wanted of it.
    fps: ticks per second.
    size: see `frames.video.read`.

  Yields:
    Results of `finish`; where a frame is repeated, the same one.

  Raises:
    video_lib.UnreadableVideo: not one frame can be decoded, or times that no
      video has.
    ValueError: no number of frames per second.
  """
  if not 0 < fps <= MAX_FPS:
    raise ValueError(f'fps={fps}: expected frames per second, up to {MAX_FPS}')
  rate = fractions.Fraction(fps)
  with video_lib.opened(pathlib.Path(path)) as container:
    shown = None
    for frame, start, end in _timed(container, size):
      due = _round(start * rate)
      if shown is None:
        first = tick = due
      if due > tick:
        yield from _repeated(finish(shown), tick, due, first, fps)
        tick = due
      shown, due = frame, _round(end * rate)
    if shown is None:
      raise video_lib.UnreadableVideo('not one frame can be decoded')
    if due > tick or tick == first:
      due = max(due, first + 1)
      yield from _repeated(finish(shown), tick, due, first, fps)


def _repeated(result, tick, due, first, fps):
  if due - tick > MAX_PAUSE * fps or due - first > MAX_TICKS:
    raise video_lib.UnreadableVideo(
      f'has a frame that lasts {(due - tick) / fps:g} s, {tick - first} ticks '
      f'from its start; expected at most {MAX_PAUSE} s and {MAX_TICKS} ticks'
    )
  return itertools.repeat(result, due - tick)


def _timed(container, size):
  """Yields (frame, start, end), in seconds from the start of the file."""
  stream = container.streams.video[0]
  each = 1 / (stream.guessed_rate or stream.average_rate or 25)
  origin = fractions.Fraction(container.start_time or 0, 10**6)
  # Raw streams tell no times.
  end = fractions.Fraction(0)
  for frame in video_lib.decoded(container, size):
    base = frame.time_base or stream.time_base
    timed = frame.pts is not None and base
    start = frame.pts * base - origin if timed else end
    end = start + (frame.duration * base if timed and frame.duration else each)
    yield frame, start, end


def _round(x):
  """To the nearest integer, halves away from zero, as ffmpeg does."""
  return math.floor(abs(x) + fractions.Fraction(1, 2)) * (1 if x >= 0 else -1)
