# SPDX-License-Identifier: Apache-2.0
"""Chosen frames of a video file, by number, as OpenCV would return them.

The number of a frame is its place in the order in which frames are shown.
Colours are converted as OpenCV 5 does, too: with the matrix (BT.601 unless the
file says BT.709 or another) and the range that the file names. Older OpenCV
took BT.601 whatever the file said.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import itertools
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data.frames import transform as transform_lib

SUFFIXES = (
  *('.mp4', '.avi', '.mkv', '.webm', '.mov', '.m4v', '.mpg', '.mpeg'),
  *('.flv', '.wmv', '.3gp', '.ts', '.ogv', '.mts', '.m2ts', '.vob'),
)
MAX_FRAMES = 10_000_000  # Of a file; more are a damaged or hostile header.
_LIMITS = {'max_pixels': str(transform_lib.MAX_PIXELS)}  # Of decoders.
# Containers of one file: playlists and scripts could name other files.
_CONTAINERS = (
  'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpeg,mpegts,mpegvideo,'
  'ogg,m4v,h264,hevc,gif,rm'
)


class UnreadableVideo(ValueError):
  """A video that cannot be read; the message says why."""


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a file reports of itself.

  Attributes:
    fps: frames per second.
    count: frames that decoding is expected to give.
    reported: frames by the header, or by duration and fps where it is silent.
  """

  fps: float
  count: int
  reported: int


def read(
  path: pathlib.Path,
  choose: Callable[[Facts, int], np.ndarray],
  finish: Callable[[np.ndarray], np.ndarray],
  size: int,
) -> list[np.ndarray]:
  """Decodes a file up to the last frame that is wanted.

  Args:
    path: a file.
    choose: (facts, number of frames that can be read) -> int64 [n] numbers of
      the frames to return, all below that number, in any order.
    finish: RGB uint8 [h, w, 3] -> what is kept of a frame.
    size: side in pixels of what is kept; frames that would take too much
      memory before that are refused.

  Returns:
    A list of n results of `finish`.

  Raises:
    UnreadableVideo: no video, no frame rate, no frame that can be decoded, or
      too large.
  """
  with opened(path) as container:
    facts = _facts(container)
  readable = facts.count
  while True:
    wanted = choose(facts, readable)
    found, seen = _decode(path, set(wanted.tolist()), finish, size)
    if len(found) == len(set(wanted.tolist())):
      return [found[i] for i in wanted.tolist()]
    # The file ends before its header says: choose again among what is there.
    if not seen:
      raise UnreadableVideo('not one frame can be decoded')
    readable = seen


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Any]:
  """An open container with a video stream.

  Raises:
    UnreadableVideo: it is none; also instead of what PyAV raises within.
  """
  import av

  options = {'protocol_whitelist': 'file', 'format_whitelist': _CONTAINERS}
  if path.exists():
    if not path.is_file():  # A pipe would be waited for.
      raise UnreadableVideo('is no file')
    if not path.stat().st_size:
      raise UnreadableVideo('is empty')
  try:
    with av.open(f'file:{path}', options=options) as container:
      if not container.streams.video:
        raise UnreadableVideo('has no video stream')
      yield container
  # Damaged files make PyAV stumble over its own list of streams.
  except (av.error.FFmpegError, IndexError, UnicodeError) as e:
    raise UnreadableVideo(f'is no video that can be read ({e})') from None


def _facts(container):
  stream = container.streams.video[0]
  fps = float(stream.guessed_rate or stream.average_rate or 0)
  count = reported = stream.frames
  if fps <= 0:
    raise UnreadableVideo(f'reports {fps} frames per second')
  if not reported:
    # Demuxing is cheap: nothing is decoded.
    packets = (p for p in container.demux(stream) if p.size)
    count = sum(1 for _ in itertools.islice(packets, MAX_FRAMES + 1))
    seconds = (container.duration or 0) / 1e6
    reported = int(seconds * fps + 0.5) or count
  if max(count, reported) > MAX_FRAMES:
    raise UnreadableVideo(
      f'reports {max(count, reported)} frames, expected at most {MAX_FRAMES}'
    )
  return Facts(fps=fps, count=count, reported=reported)


def _decode(path, wanted, finish, size):
  """{number: result} of the wanted frames, and how many frames were seen."""
  found, seen = {}, 0
  if wanted:
    last = max(wanted)
    with opened(path) as container:
      for number, frame in enumerate(decoded(container, size)):
        seen = number + 1
        if number in wanted:
          found[number] = finish(rgb(frame))
        if number == last:
          break
  return found, seen


def decoded(container: Any, size: int) -> Iterator[Any]:
  """Frames until the end or the first one that cannot be decoded.

  Args:
    container: see `opened`.
    size: see `read`.

  Yields:
    Frames of PyAV in the order in which they are shown.

  Raises:
    UnreadableVideo: an unknown codec, or too large.
  """
  import av

  stream = container.streams.video[0]
  if stream.codec_context is None:
    raise UnreadableVideo('is compressed in an unknown way')
  _check_shape(stream.codec_context, size)
  stream.codec_context.options = _LIMITS
  # Clips are read side by side, so one thread for each is enough.
  stream.codec_context.thread_count = 1
  frames = container.decode(stream)
  while True:
    try:
      frame = next(frames)
    except (StopIteration, IndexError, av.error.FFmpegError):
      return
    _check_shape(frame, size)
    yield frame


def _check_shape(shape, size):
  try:
    transform_lib.check_shape(shape.width, shape.height, size)
  except transform_lib.UnreadableImage as e:
    raise UnreadableVideo(f'has frames of {e}') from None


def rgb(frame: Any, shape: tuple[int, int] | None = None) -> np.ndarray:
  """Pixels of a frame of PyAV, upright.

  Args:
    frame: see `decoded`.
    shape: (width, height) to resize to before it is turned; None: as it is.

  Returns:
    uint8 [h, w, 3].
  """
  width, height = shape or (None, None)
  pixels = frame.to_ndarray(
    width=width, height=height, format='rgb24', interpolation='BICUBIC'
  )
  turns = round(frame.rotation / 90) % 4
  return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
