# SPDX-License-Identifier: Apache-2.0
"""Random resized crops of clips: one box for all frames.

Szegedy et al., arXiv 1409.4842, as torchvision does it for tensors of bytes.
"""

import math

import numpy as np

_TRIES = 10
RATIO = (3 / 4, 4 / 3)


def check(name: str, scale: tuple[float, float]) -> None:
  """Refuses shares of the area that no crop can have.

  Raises:
    ValueError: naming the option and its value.
  """
  if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
    raise ValueError(
      f'{name}={tuple(scale)}: expected two shares of the area, the smaller '
      'first, above 0 and at most 1.'
    )


def draw(
  rng, height: int, width: int, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
  """A box: top, left, height and width in pixels.

  After ten boxes that do not fit it is the largest one in the centre whose
  ratio is allowed.

  Args:
    rng: a `numpy.random.RandomState`.
    height: of the frames.
    width: of the frames.
    scale: smallest and largest share of the area.
  """
  low, high = math.log(RATIO[0]), math.log(RATIO[1])
  for _ in range(_TRIES):
    area = height * width * rng.uniform(*scale)
    ratio = math.exp(rng.uniform(low, high))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      top = rng.randint(height - h + 1)
      return top, rng.randint(width - w + 1), h, w
  w, h = width, height
  if width / height < RATIO[0]:
    h = round(width / RATIO[0])
  elif width / height > RATIO[1]:
    w = round(height * RATIO[1])
  return (height - h) // 2, (width - w) // 2, h, w


def resized(
  frames: np.ndarray,
  box: tuple[int, int, int, int],
  size: int,
  *,
  antialias: bool = False,
  flip: bool = False,
) -> np.ndarray:
  """Cuts a box out of every frame and resizes it bilinearly.

  Args:
    frames: uint8 [n, h, w, 3].
    box: see `draw`.
    size: R, side of the result in pixels.
    antialias: whether what shrinks is smoothed. torchvision 0.14, which
      upstream runs with, does not do it; 0.17 does.
    flip: whether the result is mirrored.

  Returns:
    uint8 [n, R, R, 3].
  """
  top, left, height, width = box
  rows, down = _taps(height, size, antialias)
  columns, across = _taps(width, size, antialias)
  if flip:
    columns, across = columns[:, ::-1], across[:, ::-1]
  # A frame as a matrix of numbers, three for a pixel: rows and columns are then
  # chosen in half the time.
  columns = (columns[:, :, None] * 3 + np.arange(3)).reshape(len(columns), -1)
  down, across = down[:, :, None], np.repeat(across, 3, axis=1)
  out = np.empty((len(frames), size, size, 3), np.uint8)
  for frame, to in zip(frames, out, strict=True):
    part = frame[top : top + height, left : left + width].reshape(height, -1)
    tall = _weighted(part, rows, down, axis=0)
    done = _weighted(tall, columns, across, axis=1)
    # Rounded, halves to even, as torch rounds.
    to[:] = np.rint(done, out=done).reshape(to.shape)
  return out


def _weighted(x, places, weights, axis):
  """Sum of rows (or columns) of x at some places by their weights."""
  total = np.take(x, places[0], axis=axis) * weights[0]
  for place, weight in zip(places[1:], weights[1:]):
    total += np.take(x, place, axis=axis) * weight
  return total


def _taps(size: int, out: int, antialias: bool):
  """Neighbours of each pixel of a resized side, and their weights.

  As torch.nn.functional.interpolate with align_corners=False.

  Returns:
    (int64 [k, out], float32 [k, out]).
  """
  scale = size / out
  middle = (np.arange(out) + 0.5) * scale
  if not antialias or scale <= 1:
    place = np.clip(middle - 0.5, 0, size - 1)
    first = np.floor(place).astype(np.int64)
    second = place - first
    index = np.stack([first, np.minimum(first + 1, size - 1)])
    return index, np.stack([1 - second, second]).astype(np.float32)
  first = np.floor(middle - scale + 0.5).astype(np.int64)
  index = first + np.arange(math.ceil(2 * scale) + 1)[:, None]
  weights = np.maximum(1 - np.abs(index + 0.5 - middle) / scale, 0)
  weights *= (index >= 0) & (index < size)
  weights /= weights.sum(axis=0)
  return np.clip(index, 0, size - 1), weights.astype(np.float32)
