# SPDX-License-Identifier: Apache-2.0
"""RandAugment on clips: the same operations for all frames.

Cubuk et al., arXiv 1909.13719, with the 14 operations, strengths and rounding
that torchvision applies to tensors of bytes (`RandAugment`, 31 bins): nearest
neighbours, and black beyond the border.
"""

import math

import numpy as np
from PIL import Image, ImageFilter

BINS = 31
OPERATIONS = (
  *('Identity', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY', 'Rotate'),
  *('Brightness', 'Color', 'Contrast', 'Sharpness'),
  *('Posterize', 'Solarize', 'AutoContrast', 'Equalize'),
)
_SIGNED = OPERATIONS[1:10]
_SMOOTH = ImageFilter.Kernel((3, 3), (1, 1, 1, 1, 5, 1, 1, 1, 1), 13)
_GREY = np.float32((0.2989, 0.587, 0.114))


def check(count: int, magnitude: int) -> None:
  """Refuses options that nothing can be done with.

  Raises:
    ValueError: naming the option and its value.
  """
  if count < 0:
    raise ValueError(f'randaugment={count}: expected 0 operations or more.')
  if not 0 <= magnitude < BINS:
    raise ValueError(f'magnitude={magnitude}: expected 0 to {BINS - 1}.')


def draw(
  rng, count: int, magnitude: int, height: int, width: int
) -> list[tuple[str, float]]:
  """Operations with their strengths, drawn with replacement.

  Args:
    rng: a `numpy.random.RandomState`.
    count: operations.
    magnitude: bin, 0 to 30.
    height: of the frames in pixels.
    width: of the frames in pixels.
  """
  chosen = []
  for _ in range(count):
    name = OPERATIONS[rng.randint(len(OPERATIONS))]
    value = strength(name, magnitude, height, width)
    if name in _SIGNED and rng.random_sample() < 0.5:
      value = -value
    chosen.append((name, value))
  return chosen


def strength(name: str, magnitude: int, height: int, width: int) -> float:
  """What a bin means for an operation, without a sign.

  Returns:
    The shear's tangent, pixels, degrees, what is added to a factor of 1, bits
    or a grey level.
  """
  part = magnitude / (BINS - 1)
  if name.startswith('Shear'):
    return 0.3 * part
  if name.startswith('Translate'):
    return 150.0 / 331.0 * (width if name[-1] == 'X' else height) * part
  if name == 'Rotate':
    return 30.0 * part
  if name in ('Brightness', 'Color', 'Contrast', 'Sharpness'):
    return 0.9 * part
  if name == 'Posterize':
    return 8.0 - round(magnitude / ((BINS - 1) / 4))
  if name == 'Solarize':
    return 255.0 * (1 - part)
  return 0.0


def apply(frames: np.ndarray, name: str, value: float) -> np.ndarray:
  """One operation.

  Args:
    frames: uint8 [n, h, w, 3].
    name: one of `OPERATIONS`.
    value: see `strength`; may be negative where it has a sign.

  Returns:
    uint8 [n, h, w, 3].

  Raises:
    ValueError: an unknown operation.
  """
  if name == 'Identity':
    return frames
  if name in ('ShearX', 'ShearY', 'TranslateX', 'TranslateY', 'Rotate'):
    return _geometric(frames, name, value)
  if name not in _OF_ONE:
    raise ValueError(f'no operation {name!r}; choose from {OPERATIONS}.')
  return np.stack([_OF_ONE[name](frame, value) for frame in frames])


def _geometric(frames, name, value):
  height, width = frames.shape[1:3]
  across, down = (-0.5 * width, -0.5 * height)
  if name == 'ShearX':  # About the corner at the top left.
    inverse = (1, value, -value * down, 0, 1, 0)
  elif name == 'ShearY':
    inverse = (1, 0, 0, value, 1, -value * across)
  elif name == 'TranslateX':
    inverse = (1, 0, -int(value), 0, 1, 0)
  elif name == 'TranslateY':
    inverse = (1, 0, 0, 0, 1, -int(value))
  else:
    turn = math.radians(-value)
    sine, cosine = math.sin(turn), math.cos(turn)
    inverse = (cosine, sine, 0, -sine, cosine, 0)
  place = _sources(height, width, inverse)
  flat = frames.reshape(len(frames), height * width, 3)
  moved = np.take(flat, np.maximum(place, 0), axis=1)
  moved[:, place < 0] = 0
  return moved.reshape(frames.shape)


def _sources(height, width, inverse):
  """int64 [h * w], the pixel that each pixel shows, or -1.

  In float32 and from the centre of the image, as torch's grids are.
  """
  x = np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)
  y = np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2)
  a, b, c, d, e, f = np.float32(inverse)
  column = a * x + b * y[:, None] + c + np.float32((width - 1) / 2)
  row = d * x + e * y[:, None] + f + np.float32((height - 1) / 2)
  column, row = np.rint(column).astype(np.int64), np.rint(row).astype(np.int64)
  inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
  return np.where(inside, row * width + column, -1).reshape(-1)


def _blend(frame, other, factor):
  """factor * frame + (1 - factor) * other, cut off, rounded downwards."""
  factor = np.float32(factor)
  mixed = factor * frame + (np.float32(1) - factor) * other
  return np.clip(mixed, 0, 255).astype(np.uint8)


def _mapped(frame, table):
  """Grey levels by a table of 256, or of 256 for each channel."""
  table = np.broadcast_to(np.asarray(table, np.uint8), (3, 256)).reshape(-1)
  return np.asarray(Image.fromarray(frame).point(table.tolist()))


def _grey(frame):
  return (frame.astype(np.float32) @ _GREY).astype(np.uint8)


def _brightness(frame, value):
  return _mapped(frame, _blend(_LEVELS, np.float32(0), 1 + value))


def _color(frame, value):
  grey = _grey(frame).astype(np.float32)[..., None]
  return _blend(frame.astype(np.float32), grey, 1 + value)


def _contrast(frame, value):
  mean = _grey(frame).mean(dtype=np.float64).astype(np.float32)
  return _mapped(frame, _blend(_LEVELS, mean, 1 + value))


def _sharpness(frame, value):
  smooth = np.asarray(Image.fromarray(frame).filter(_SMOOTH), np.float32)
  return _blend(frame.astype(np.float32), smooth, 1 + value)


def _posterize(frame, value):
  return frame & np.uint8(256 - (1 << (8 - int(value))))


def _solarize(frame, value):
  return _mapped(frame, np.where(_LEVELS >= value, 255 - _LEVELS, _LEVELS))


def _autocontrast(frame, value):
  del value
  found = Image.fromarray(frame).getextrema()
  low, high = np.split(np.asarray(found, np.float32), 2, axis=1)
  flat = low == high
  scale = np.float32(255) / np.where(flat, 255, high - low)
  table = (_LEVELS - np.where(flat, 0, low)) * scale
  return _mapped(frame, np.clip(table, 0, 255))


def _equalize(frame, value):
  del value
  return _mapped(frame, [_equalizing(frame[..., c]) for c in range(3)])


def _equalizing(channel):
  counts = np.bincount(channel.reshape(-1), minlength=256)
  used = counts[counts > 0]
  step = used[:-1].sum() // 255
  if not step:
    return np.arange(256)
  table = (np.cumsum(counts) + step // 2) // step
  return np.clip(np.concatenate([[0], table[:-1]]), 0, 255)


_LEVELS = np.arange(256, dtype=np.float32)
_OF_ONE = {
  'Brightness': _brightness,
  'Color': _color,
  'Contrast': _contrast,
  'Sharpness': _sharpness,
  'Posterize': _posterize,
  'Solarize': _solarize,
  'AutoContrast': _autocontrast,
  'Equalize': _equalize,
}
