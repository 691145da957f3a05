# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/resample.py."""

import numpy as np
import pytest

from vidret_jax.convert import resample


def slow_bicubic(grid, new):
  """F.interpolate(bicubic, align_corners=False) by its definition."""
  old, channels = grid.shape[0], grid.shape[-1]
  out = np.zeros((new, new, channels))

  def kernel(x, a=-0.75):
    x = abs(x)
    if x <= 1:
      return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
      return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return 0.0

  for y in range(new):
    for x in range(new):
      cy, cx = ((i + 0.5) * old / new - 0.5 for i in (y, x))
      fy, fx = int(np.floor(cy)), int(np.floor(cx))
      for j in range(fy - 1, fy + 3):
        for i in range(fx - 1, fx + 3):
          pixel = grid[min(max(j, 0), old - 1), min(max(i, 0), old - 1)]
          out[y, x] += kernel(cy - j) * kernel(cx - i) * pixel
  return out


def table(side, width=3, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(1 + side * side, width)).astype(np.float32)


@pytest.mark.parametrize('old,new', [(2, 5), (7, 9), (5, 3), (1, 4), (4, 1)])
def test_is_the_definition(old, new):
  source = table(old)
  got = resample.positions(source, new)
  assert got.shape == (1 + new * new, 3) and got.dtype == np.float32
  np.testing.assert_array_equal(got[0], source[0])
  want = slow_bicubic(source[1:].reshape(old, old, -1), new)
  np.testing.assert_allclose(got[1:], want.reshape(new * new, -1), atol=1e-6)


@pytest.mark.parametrize('old,new', [(7, 14), (14, 7), (16, 24), (7, 9)])
def test_torch_agrees(old, new):
  torch = pytest.importorskip('torch')
  source = table(old)
  grid = torch.tensor(source[1:].T.reshape(1, -1, old, old))
  want = torch.nn.functional.interpolate(
    grid, size=(new, new), mode='bicubic', align_corners=False
  )
  got = resample.positions(source, new)[1:]
  want = want.numpy().reshape(-1, new * new).T
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_same_grid_stays():
  source = table(6)
  np.testing.assert_array_equal(resample.positions(source, 6), source)


def test_half_precision_is_widened():
  source = table(3)
  half = source.astype(np.float16)
  got = resample.positions(half, 4)
  want = resample.positions(half.astype(np.float32), 4)
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('rows', [0, 1, 3, 6, 50 - 1])
def test_rows_that_are_no_grid(rows):
  with pytest.raises(ValueError, match=f'{rows} positions'):
    resample.positions(np.zeros((rows, 4), np.float32), 3)
