# SPDX-License-Identifier: Apache-2.0
"""Tests of ops/masks.py."""

import jax
import jax.numpy as jnp
import numpy as np

from vidret_jax.ops import masks


def test_zero_rows_removes_whatever_a_row_holds():
  x = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
  out = masks.zero_rows(x, jnp.array([True, False]))
  np.testing.assert_array_equal(out, [[1, 2], [0, 0]])


def test_zero_rows_takes_more_axes():
  x = jnp.full((2, 3, 4), jnp.nan)
  out = masks.zero_rows(x, jnp.array([False, False]))
  assert out.shape == (2, 3, 4) and not out.any()


def test_masked_mean_ignores_excluded_entries():
  x = jnp.array([[1.0, 2.0, jnp.nan], [4.0, 5.0, 6.0]])
  where = jnp.array([[True, True, False], [False, True, True]])
  np.testing.assert_allclose(masks.masked_mean(x, where, 1), [1.5, 5.5])
  np.testing.assert_allclose(masks.masked_mean(x, where, (0, 1)), 3.5)


def test_masked_mean_of_nothing_is_zero_with_a_finite_gradient():
  where = jnp.zeros(3, bool)
  value, grad = jax.value_and_grad(lambda x: masks.masked_mean(x, where, 0))(
    jnp.ones(3)
  )
  assert value == 0 and not grad.any()


def test_masked_mean_without_a_mask():
  x = jnp.arange(6.0).reshape(2, 3)
  np.testing.assert_allclose(masks.masked_mean(x, None, 0), x.mean(0))


def test_pair_mask():
  np.testing.assert_array_equal(
    masks.pair_mask(jnp.array([True, False, True])),
    [[1, 0, 1], [0, 0, 0], [1, 0, 1]],
  )
