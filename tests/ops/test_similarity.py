# SPDX-License-Identifier: Apache-2.0
"""Tests of ops/similarity.py against the formulas, one pair at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.ops import similarity

SIZES = (3, 1, 4)


@pytest.fixture
def problem():
  rng = np.random.default_rng(0)
  available = rng.random((6, 3)) > 0.4
  available[:, 1] |= ~available.any(1)
  return dict(
    text=rng.normal(size=(5, 8)).astype('f'),
    weights=rng.dirichlet(np.ones(3), 5).astype('f'),
    video=rng.normal(size=(6, 8)).astype('f'),
    available=available,
  )


def per_expert(x):
  return np.split(x, np.cumsum(SIZES)[:-1], -1)


def test_available_mixture(problem):
  got = similarity.available_mixture(
    **jax.tree.map(jnp.asarray, problem), sizes=SIZES
  )
  text, video = per_expert(problem['text']), per_expert(problem['video'])
  for q in range(5):
    for v in range(6):
      share = problem['weights'][q] * problem['available'][v]
      share = share / share.sum()
      want = sum(s * (t[q] @ x[v]) for s, t, x in zip(share, text, video))
      np.testing.assert_allclose(got[q, v], want, atol=1e-5)


def test_an_item_without_experts_has_no_score(problem):
  problem['available'][2] = False
  got = similarity.available_mixture(
    **jax.tree.map(jnp.asarray, problem), sizes=SIZES
  )
  assert np.isnan(got[:, 2]).all()
  assert np.isfinite(np.delete(np.asarray(got), 2, 1)).all()


def test_own_mixture_masks_by_the_query_only(problem):
  rng = np.random.default_rng(1)
  own = rng.random((5, 3)) > 0.5
  own[:, 0] = True
  got = similarity.own_mixture(
    jnp.asarray(problem['text']),
    jnp.asarray(problem['weights']),
    own,
    jnp.asarray(problem['video']),
    SIZES,
  )
  text, video = per_expert(problem['text']), per_expert(problem['video'])
  for q in range(5):
    share = problem['weights'][q] * own[q]
    share = share / share.sum()
    for v in range(6):
      want = sum(
        s * h * (t[q] @ x[v]) for s, h, t, x in zip(share, own[q], text, video)
      )
      np.testing.assert_allclose(got[q, v], want, atol=1e-5)


def test_l2_normalize():
  x = jnp.array([[3.0, 4.0], [0.0, 0.0], [1e-13, 0.0]])
  got = similarity.l2_normalize(x)
  # Below eps the divisor is eps, as in torch.nn.functional.normalize.
  np.testing.assert_allclose(got, [[0.6, 0.8], [0, 0], [0.1, 0]], rtol=1e-6)
  grad = jax.grad(lambda x: similarity.l2_normalize(x).sum())(x)
  assert np.isfinite(grad).all()


def test_l2_normalize_in_half_precision_does_not_overflow():
  x = jnp.full((1, 64), 300, jnp.float16)
  got = similarity.l2_normalize(x)
  assert got.dtype == jnp.float16
  np.testing.assert_allclose(got.astype('f'), 1 / 8, rtol=1e-3)


def test_dot_all_accumulates_in_float32():
  a = jnp.full((1, 4096), 0.01, jnp.float32)
  got = similarity.dot_all(a, a, dtype=jnp.bfloat16)
  assert got.dtype == jnp.float32
  exact = 4096 * float(jnp.bfloat16(0.01)) ** 2
  np.testing.assert_allclose(got, exact, rtol=1e-5)


def test_expand():
  got = similarity.expand(jnp.array([[1.0, 2.0, 3.0]]), SIZES)
  np.testing.assert_array_equal(got, [[1, 1, 1, 2, 3, 3, 3, 3]])
