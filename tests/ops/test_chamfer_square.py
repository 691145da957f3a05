# SPDX-License-Identifier: Apache-2.0
"""Each product made once gives what each pair of clips for itself gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.ops import chamfer, chamfer_square

SIZES = [
  (1, 5, 9, 16),  # One block.
  (2, 4, 9, 16),  # Its own opposite.
  (7, 4, 3, 8),  # No block has an opposite.
  (12, 5, 4, 8),
  (34, 4, 2, 8),  # 17 clips to a block.
  (48, 4, 2, 8),  # 16 blocks of three clips.
]


def clips(n, t, r, d, seed=0):
  return np.random.default_rng(seed).standard_normal((n, t, r, d), np.float32)


def weighted(similarity, weights):
  return jax.jit(jax.value_and_grad(lambda x: (similarity(x) * weights).sum()))


def plain(x):
  return chamfer.frame_similarity(x, x, pool='chamfer')


@pytest.mark.parametrize('size', SIZES)
def test_equals_all_with_all(size):
  n, t, *_ = size
  x, weights = clips(*size), clips(n, n, t, t, seed=1)
  got = chamfer_square.frame_similarity(x)
  assert got.shape == (n, n, t, t) and got.dtype == np.float32
  np.testing.assert_allclose(got, plain(x), rtol=1e-5, atol=1e-5)
  (_, got), (_, want) = (
    weighted(similarity, weights)(x)
    for similarity in (chamfer_square.frame_similarity, plain)
  )
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_rows_compare_themselves_with_columns():
  x = clips(3, 4, 5, 8)
  products = np.einsum('itrd,jusd->ijtusr', x, x)
  want = products.max(-2).mean(-1)
  np.testing.assert_allclose(
    chamfer_square.frame_similarity(x), want, rtol=1e-5, atol=1e-5
  )
  assert np.abs(want - want.transpose(1, 0, 3, 2)).max() > 0.1


@pytest.mark.parametrize('held', [1, 10**9])
@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
def test_tiles_change_nothing(monkeypatch, held, backend):
  """The least at a time and everything at once; blocks in turn and together."""
  x, weights = clips(32, 4, 3, 8), clips(32, 32, 4, 4, seed=1)
  want = weighted(plain, weights)(x)
  monkeypatch.setattr(chamfer, 'held', lambda: held)
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  got = weighted(chamfer_square.frame_similarity, weights)(x)
  for a, b in zip(got, want):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_first_of_equal_regions_takes_the_slope():
  x = clips(4, 4, 1, 8).repeat(3, axis=2)
  weights = np.ones((4, 4, 4, 4), np.float32)
  _, grad = weighted(chamfer_square.frame_similarity, weights)(x)
  _, want = weighted(plain, weights)(x)
  np.testing.assert_allclose(grad, want, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(grad[:, :, 1], grad[:, :, 2], rtol=1e-4, atol=1e-5)
  assert np.abs(grad[:, :, 0] - grad[:, :, 1]).max() > 0.1


def test_groups_of_clips():
  x = jnp.asarray(clips(12, 4, 3, 8)).reshape(2, 6, 4, 3, 8)
  got = jax.vmap(chamfer_square.frame_similarity)(x)
  for group, want in zip(x, got):
    np.testing.assert_allclose(plain(group), want, rtol=1e-5, atol=1e-5)


def test_half_precision():
  x = clips(8, 4, 3, 64) / 8
  half = jnp.asarray(x, jnp.bfloat16)
  weights = clips(8, 8, 4, 4, seed=1)
  got, slope = weighted(chamfer_square.frame_similarity, weights)(half)
  assert got.dtype == jnp.float32 and slope.dtype == jnp.bfloat16
  _, want = weighted(plain, weights)(half)
  np.testing.assert_allclose(
    np.float32(slope), np.float32(want), rtol=0.05, atol=0.05
  )
