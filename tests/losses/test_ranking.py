# SPDX-License-Identifier: Apache-2.0
"""Tests of losses/ranking.py against the double sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.losses import ranking

SIMS = np.random.default_rng(0).normal(size=(5, 5)).astype('f')


def by_hand(s, margin, fix_norm):
  n, terms = len(s), []
  for i in range(n):
    for j in range(n):
      if i == j and fix_norm:
        continue
      terms.append(max(0, margin - (s[i, i] - s[i, j])))
      terms.append(max(0, margin - (s[i, i] - s[j, i])))
  return np.mean(terms)


@pytest.mark.parametrize('fix_norm', [True, False])
def test_double_sum(fix_norm):
  got = ranking.max_margin(jnp.asarray(SIMS), 0.3, fix_norm=fix_norm)
  np.testing.assert_allclose(got, by_hand(SIMS, 0.3, fix_norm), rtol=1e-6)


@pytest.mark.parametrize('fix_norm', [True, False])
def test_excluded_rows_influence_nothing(fix_norm):
  where = np.array([True, False, True, True, False])
  padded = np.where(where[:, None] & where, SIMS, np.nan)
  loss, grad = jax.value_and_grad(ranking.max_margin)(
    jnp.asarray(padded), 0.3, fix_norm=fix_norm, where=jnp.asarray(where)
  )
  small = SIMS[np.ix_(where, where)]
  want, want_grad = jax.value_and_grad(ranking.max_margin)(
    jnp.asarray(small), 0.3, fix_norm=fix_norm
  )
  np.testing.assert_allclose(loss, want, rtol=1e-6)
  np.testing.assert_allclose(grad[np.ix_(where, where)], want_grad, rtol=1e-6)
  assert np.isfinite(grad).all() and not grad[~where].any()


def test_subgradient_at_the_hinge_is_zero():
  # Every difference equals the margin exactly.
  grad = jax.grad(ranking.max_margin)(jnp.eye(3), 1.0)
  assert not grad.any()


def test_one_pair_has_no_negatives():
  loss, grad = jax.value_and_grad(ranking.max_margin)(jnp.ones((1, 1)), 0.2)
  assert loss == 0 and not grad.any()


def test_a_rectangle_is_refused():
  with pytest.raises(ValueError, match=r'square matrix, found \(2, 3\)'):
    ranking.max_margin(jnp.zeros((2, 3)), 0.2)
