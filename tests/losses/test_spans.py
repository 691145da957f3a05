# SPDX-License-Identifier: Apache-2.0
"""Tests of losses/spans.py against the formula in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.losses import spans

pytestmark = pytest.mark.usefixtures('quick_compiler')

RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(5, 7))).astype('f')
LOGITS[1, 4:] = LOGITS[3, 2:] = -1e10
INDEX = np.array([6, 3, 0, 1, 2])


@functools.cache
def slope(loss, argnums=0):
  return jax.jit(jax.value_and_grad(loss, argnums=argnums))


def by_hand(logits, index):
  logits = np.float64(logits)
  rows = np.exp(logits - logits.max(1, keepdims=True))
  rows /= rows.sum(1, keepdims=True)
  return -np.log(rows[np.arange(len(index)), index]).mean()


def test_cross_entropy():
  got = spans.boundary_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(INDEX))
  np.testing.assert_allclose(got, by_hand(LOGITS, INDEX), rtol=1e-6)


def test_excluded_rows_influence_nothing():
  where = np.array([True, False, True, True, False])
  held = np.where(where[:, None], LOGITS, [[np.nan], [np.nan], [0], [0], [9e9]])
  places = np.where(where, INDEX, [0, -99, 0, 0, 99])
  loss = slope(spans.boundary_cross_entropy)
  got, grad = loss(jnp.asarray(held, 'f'), jnp.asarray(places), where)
  want, want_grad = loss(jnp.asarray(LOGITS[where]), jnp.asarray(INDEX[where]))
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_allclose(grad[where], want_grad, rtol=1e-5, atol=1e-7)
  assert not np.asarray(grad)[~where].any()


def test_no_row_is_no_loss():
  loss, grad = slope(spans.boundary_cross_entropy)(
    jnp.full((2, 3), jnp.nan), jnp.zeros(2, int), jnp.zeros(2, bool)
  )
  assert loss == 0 and not grad.any()


def test_half_precision_is_summed_in_float32():
  half = jnp.asarray(LOGITS, jnp.bfloat16)
  got = spans.boundary_cross_entropy(half, jnp.asarray(INDEX))
  assert got.dtype == jnp.float32
  want = by_hand(np.asarray(half, np.float64), INDEX)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_wrong_shapes_are_named():
  with pytest.raises(ValueError, match=r'logits \(5, 7\) and index \(4,\)'):
    spans.boundary_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(INDEX[:4]))
