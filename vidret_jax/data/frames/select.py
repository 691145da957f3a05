# SPDX-License-Identifier: Apache-2.0
"""Which frames of a clip are read: numbers only, before anything is decoded.

The rules are those of upstream's readers (CLIP4Clip's `rawvideo_util.py` and
`_get_rawvideo`; frame folders as EERCF reads them).
"""

from collections.abc import Sequence
import re

import numpy as np

SELECTS = ('first', 'last', 'uniform')  # Upstream's slice_framepos 0, 1, 2.
ORDERS = ('as_is', 'reversed', 'shuffled')  # Upstream's frame_order 0, 1, 2.
FOLDER_MOST = 256  # Longer folders are first thinned out ...
FOLDER_KEPT = 128  # ... to this many frames.
MAX_SECONDS = 10_000_000  # Longer clips are damaged or hostile headers.
_NUMBER = re.compile(r'_(\d+)\.jpe?g', re.IGNORECASE)


def uniform(n: int, m: int) -> np.ndarray:
  """int64 [m]: m of n frames, first and last among them.

  NumPy's own rounding decides some of the numbers, so NumPy is asked.
  """
  return np.linspace(0, n - 1, m, dtype=int)


def folder(n: int) -> np.ndarray:
  """int64 [<= 256]: the frames of a folder of n that are considered at all."""
  return uniform(n, FOLDER_KEPT) if n > FOLDER_MOST else np.arange(n)


def reduce(
  n: int,
  max_frames: int,
  select: str = 'uniform',
  order: str = 'as_is',
  rng: np.random.Generator | None = None,
) -> np.ndarray:
  """Which of n frames a clip of at most max_frames shows, in which order.

  Args:
    n: number of frames there are.
    max_frames: number of frames kept at most.
    select: 'first', 'last' or 'uniform'; no effect if n <= max_frames.
    order: 'as_is', 'reversed' or 'shuffled', applied to what is kept.
    rng: where 'shuffled' takes its order from.

  Returns:
    int64 [min(n, max_frames)].

  Raises:
    ValueError: an option is unknown, or 'shuffled' has no generator.
  """
  check(max_frames, select, order)
  if n <= max_frames:
    chosen = np.arange(n)
  elif select == 'first':
    chosen = np.arange(max_frames)
  elif select == 'last':
    chosen = np.arange(n - max_frames, n)
  else:
    chosen = uniform(n, max_frames)
  if order == 'reversed':
    return chosen[::-1]
  if order == 'shuffled':
    if rng is None:
      raise ValueError("frame_order='shuffled' needs a random generator")
    return rng.permutation(chosen)
  return chosen


def check(max_frames: int, select: str, order: str) -> None:
  """Refuses options that nothing can be read with.

  Raises:
    ValueError: naming the option, its value and the values it can have.
  """
  if max_frames < 1:
    raise ValueError(f'max_frames={max_frames}: expected 1 or more')
  if select not in SELECTS:
    raise ValueError(f'select={select!r}: expected one of {SELECTS}')
  if order not in ORDERS:
    raise ValueError(f'frame_order={order!r}: expected one of {ORDERS}')


def check_part(framerate: int, start: float | None, end: float | None) -> None:
  """Refuses options of `seconds` that no video can be read with.

  Raises:
    ValueError: naming the option and its value.
  """
  if framerate < 1:
    raise ValueError(f'framerate={framerate}: expected 1 or more')
  if (start is None) != (end is None):
    raise ValueError(f'start={start}, end={end}: give both or none')


def seconds(
  fps: float,
  count: float,
  framerate: int = 1,
  start: float | None = None,
  end: float | None = None,
  readable: int | None = None,
) -> np.ndarray:
  """Frame numbers of a video file that are looked at, second by second.

  Args:
    fps: frames per second, as the file reports it; its integer part counts.
    count: number of frames, as the file reports it.
    framerate: frames per second that are looked at.
    start, end: the part of the file in seconds, both or none; the second `end`
      is part of it. Negative ones are 0, reversed ones are swapped, equal ones
      are one second apart.
    readable: how many frames there are, where `count` is only an estimate.

  Returns:
    int64 [n], ascending, of frames that are there.

  Raises:
    ValueError: fewer than `framerate` frames per second, or longer than any
      video is; framerate is not positive, or only one of start and end given.
  """
  check_part(framerate, start, end)
  fps, count = int(fps), int(count)
  if fps < framerate:
    raise ValueError(
      f'{fps} frames per second, expected {framerate} or more (framerate)'
    )
  duration = -(-count // fps)
  if duration > MAX_SECONDS:
    raise ValueError(f'{duration} seconds, expected at most {MAX_SECONDS}')
  first, last = 0, duration
  if start is not None:
    first, last = sorted((max(int(start), 0), max(int(end), 0)))
    last = min(last if last > first else first + 1, duration)
  offsets = np.arange(0, fps, max(1, fps // framerate))[:framerate]
  numbers = (np.arange(first, last + 1)[:, None] * fps + offsets).reshape(-1)
  return numbers[numbers < (count if readable is None else readable)]


def sort_names(names: Sequence[str]) -> list[str]:
  """Frame names `<anything>_<integer>.jpg` by that integer.

  Raises:
    ValueError: a name is not of that form.
  """
  return sorted(names, key=_number)


def is_frame(name: str) -> bool:
  """Whether a name is one of a frame."""
  return _match(name) is not None


def _match(name):
  return _NUMBER.fullmatch(name, max(name.rfind('_'), 0))


def _number(name):
  found = _match(name)
  if found is None:
    raise ValueError(
      f'{name!r} is no frame name, expected <anything>_<integer>.jpg'
    )
  return int(found[1])
