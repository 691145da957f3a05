# SPDX-License-Identifier: Apache-2.0
"""Position embeddings of a grid of patches, for images of another size."""

import math

import numpy as np

# Of the cubic kernel, as in torch.nn.functional.interpolate.
_SHARPNESS = -0.75


def positions(table: np.ndarray, grid: int) -> np.ndarray:
  """Resamples the table of a Vision Transformer; the class token is kept.

  Bicubic with the corners of the *areas* aligned and without antialiasing,
  channel by channel: `F.interpolate(mode='bicubic', align_corners=False)`, the
  rule of DeiT, BEiT and of `interpolate_pos_encoding` in Hugging Face's CLIP.

  Args:
    table: [1 + g g, w], class token first, patches row by row.
    grid: patches along a side that are wanted.

  Returns:
    float32 [1 + grid grid, w].

  Raises:
    ValueError: the rows are not a class token and a square.
  """
  side = math.isqrt(max(len(table) - 1, 0))
  if side < 1 or len(table) != 1 + side * side:
    raise ValueError(
      f'{len(table)} positions are not a class token and a square grid'
    )
  weights = cubic(side, grid)
  values = table[1:].astype(np.float64).reshape(side, side, -1)
  values = np.einsum('yj,xi,jiw->yxw', weights, weights, values, optimize=True)
  values = values.reshape(grid * grid, -1)
  first = table[:1].astype(np.float64)
  return np.concatenate([first, values]).astype(np.float32)


def cubic(old: int, new: int) -> np.ndarray:
  """Weights of cubic convolution (Keys, 1981) along an axis: [new, old]."""
  centre = (np.arange(new) + 0.5) * (old / new) - 0.5
  first = np.floor(centre).astype(int)
  weights = np.zeros((new, old))
  for tap in range(-1, 3):
    distance = np.abs(centre - first - tap)
    # Beyond the border the outermost value goes on.
    index = np.clip(first + tap, 0, old - 1)
    np.add.at(weights, (np.arange(new), index), _kernel(distance))
  return weights


def _kernel(x):
  a = _SHARPNESS
  near = ((a + 2) * x - (a + 3)) * x * x + 1
  far = a * (((x - 5) * x + 8) * x - 4)
  return np.where(x <= 1, near, np.where(x < 2, far, 0))
