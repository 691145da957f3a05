# SPDX-License-Identifier: Apache-2.0
"""Tests of losses/hard_negatives.py against the formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.losses import hard_negatives

pytestmark = pytest.mark.usefixtures('quick_compiler')

RNG = np.random.default_rng(0)
N, EPS = 5, 0.01
SIMS = RNG.uniform(0.05, 0.95, (N, N)).astype('f')
LABELS = np.eye(N, dtype='f')
LABELS[0, 3] = LABELS[3, 0] = 1
WHERE = np.array([True, False, True, True, True])


def parts(sims, labels):
  hard, own = [], []
  for i, row in enumerate(np.float64(sims)):
    hard.append(-np.log(max(1 - row[labels[i] == 0].max(), EPS)))
    own.append(-np.log(max(row[i], EPS)))
  return np.mean(hard), np.mean(own)


@jax.jit
def both(sims, labels, where=None):
  def total(sims):
    found = hard_negatives.sshn(sims, labels, eps=EPS, where=where)
    return sum(found), found

  grad, found = jax.grad(total, has_aux=True)(sims)
  return found, grad


def test_parts():
  np.testing.assert_allclose(both(SIMS, LABELS)[0], parts(SIMS, LABELS), 1e-5)


def test_slope_of_the_hardest_negative_and_of_itself():
  _, grad = both(SIMS, LABELS)
  want = np.diag(-1 / np.diagonal(SIMS) / N)
  for i, row in enumerate(np.where(LABELS > 0, -1, SIMS)):
    want[i, row.argmax()] = 1 / (1 - row.max()) / N
  np.testing.assert_allclose(grad, want, rtol=1e-5)


def test_where_the_logarithms_stop():
  """At eps there is a slope still, beyond it there is none."""
  labels = np.eye(3, dtype='f')
  sims = np.zeros((3, 3), 'f')
  np.fill_diagonal(sims, [EPS, EPS / 2, 1])
  sims[:, 0] = [EPS, 1, 0.5]
  _, grad = both(sims, labels)
  np.testing.assert_allclose(np.diagonal(grad), [-1 / EPS / 3, 0, -1 / 3], 1e-5)
  # The hardest negative of row 1 is beyond, and 0 ties twice in row 0.
  np.testing.assert_allclose(grad[1], 0)
  np.testing.assert_allclose(grad[0], [-1 / EPS / 3, 1 / 3, 0], 1e-5)


def test_excluded_clips_influence_nothing():
  pairs = WHERE[:, None] & WHERE
  got, grad = both(np.where(pairs, SIMS, np.nan), LABELS, WHERE)
  small = np.ix_(WHERE, WHERE)
  np.testing.assert_allclose(got, parts(SIMS[small], LABELS[small]), 1e-5)
  want = np.zeros_like(SIMS)
  want[small] = both(SIMS[small], LABELS[small])[1]
  np.testing.assert_allclose(grad, want, rtol=1e-5)
  got, grad = both(SIMS, LABELS, WHERE & False)
  assert not np.any(got) and not grad.any()


def test_a_row_without_a_negative():
  (hard, _), grad = both(SIMS, np.ones((N, N), 'f'))
  np.testing.assert_allclose(hard, -np.log(101), rtol=1e-6)
  assert not np.asarray(grad)[~np.eye(N, dtype=bool)].any()


def test_wrong_shapes_are_named():
  with pytest.raises(ValueError, match=r'found \(5, 4\) and \(5, 5\)'):
    hard_negatives.sshn(SIMS[:, :4], LABELS)


def test_overshoot():
  z = np.array([[-3, -1, -0.5], [1, 1.25, np.nan]], 'f')
  loss = jax.jit(jax.value_and_grad(hard_negatives.overshoot))
  got, grad = loss(z, where=~np.isnan(z))
  assert got == 2.25
  np.testing.assert_array_equal(grad, [[-1, 0, 0], [0, 1, 0]])
  # A sum, wide enough for many.
  many = jnp.full((5000,), 2, jnp.bfloat16)
  assert loss(many)[0] == 5000
