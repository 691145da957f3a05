# SPDX-License-Identifier: Apache-2.0
"""Tests of losses/ranking.py against loops over pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.losses import ranking

pytestmark = pytest.mark.usefixtures('quick_compiler')

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


def sampled_by_hand(s, ranks, kind, margin=0.1):
  """In float64, with the order that upstream sorts: the true pair is 999."""
  s, total = np.float64(s), 0.0
  for i, rank in enumerate(ranks):
    row = s[i].copy()
    row[i] = 999
    gap = s[i, np.argsort(-row)[rank]] - s[i, i]
    total += max(0, margin + gap) if kind == 'hinge' else np.log1p(np.exp(gap))
  return total / len(s)


SAMPLED = jax.jit(jax.value_and_grad(ranking.sampled), static_argnames='kind')
RANKS = np.array([1, 4, 2, 1, 3])


@pytest.mark.parametrize('kind', ['hinge', 'lse'])
def test_negatives_of_given_ranks(kind):
  for ranks in (RANKS, np.full(5, 1), np.full(5, 4)):
    got = ranking.sampled(SIMS, ranks, kind=kind, margin=0.3)
    want = sampled_by_hand(SIMS, ranks, kind, 0.3)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize('kind', ['hinge', 'lse'])
def test_slope_of_sampled_negatives(kind):
  # Far from ties and from the edge of the hinge, where there is no slope.
  loss = jax.grad(lambda s: ranking.sampled(s, RANKS, kind=kind, margin=0.3))
  want, step = np.zeros((5, 5)), 1e-6
  for at in np.ndindex(5, 5):
    moved = np.zeros((5, 5))
    moved[at] = step
    up, down = (
      sampled_by_hand(SIMS + d, RANKS, kind, 0.3) for d in (moved, -moved)
    )
    want[at] = (up - down) / (2 * step)
  np.testing.assert_allclose(loss(SIMS), want, atol=1e-6)


@pytest.mark.parametrize('kind', ['hinge', 'lse'])
@pytest.mark.parametrize('filler', [np.nan, 1e30, -np.inf])
def test_excluded_rows_are_no_sampled_negatives(kind, filler):
  where = np.array([True, False, True, True, False])
  held = np.where(where[:, None] & where, SIMS, np.float32(filler))
  ranks = np.array([2, 77, 1, 2, 0])
  got, grad = SAMPLED(held, ranks, kind=kind, where=where)
  small = SIMS[np.ix_(where, where)]
  want, want_grad = SAMPLED(small, ranks[where], kind=kind)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  full = np.zeros_like(SIMS)
  full[np.ix_(where, where)] = want_grad
  np.testing.assert_allclose(grad, full, rtol=1e-6)


@pytest.mark.parametrize('kind', ['hinge', 'lse'])
def test_a_single_row_has_no_sampled_negative(kind):
  for size in (1, 5):
    for rows in (0, 1):
      where = np.arange(size) < rows
      held = np.where(where[:, None] & where, 0.5, np.nan).astype('f')
      ranks = np.ones(size, 'i4')
      loss, grad = SAMPLED(held, ranks, kind=kind, where=where)
      assert loss == 0 and not grad.any()


def test_the_edge_of_the_sampled_hinge_has_a_slope():
  """PyTorch's `clamp` is not flat at its bound."""
  sims = np.array([[0.5, 0.25], [-2, 0.5]], 'f')
  grad = jax.grad(ranking.sampled)(sims, np.ones(2, int), margin=0.25)
  np.testing.assert_allclose(grad, [[-0.5, 0.5], [0, 0]])


def test_the_true_pair_is_first_however_low_it_is():
  sims = np.array([[-5, 1, 2], [3, -5, 1], [1, 2, -5]], 'f')
  got = ranking.sampled(sims, np.ones(3, int), margin=0.0)
  np.testing.assert_allclose(got, (7 + 8 + 7) / 3, rtol=1e-6)


def test_sampled_in_half_precision_is_float32():
  half = jnp.asarray(SIMS, jnp.bfloat16)
  got = ranking.sampled(half, RANKS)
  assert got == ranking.sampled(half.astype('f'), RANKS)
  assert got.dtype == jnp.float32


def test_drawn_ranks_are_uniform_among_the_others():
  where = np.arange(3000) < 5
  ranks = ranking.draw_ranks(jax.random.key(1), where)
  assert ranks.dtype == jnp.int32
  counts = np.bincount(ranks)
  assert counts[0] == 0 and len(counts) == 5
  np.testing.assert_allclose(counts[1:] / 3000, 0.25, atol=0.03)


def test_the_pool_of_drawn_ranks_is_traced():
  where, found = np.ones(200, bool), {}
  draw = jax.jit(ranking.draw_ranks)
  for pool in (1, 7, 199, 200, 2**31 - 1):
    found[pool] = np.asarray(draw(jax.random.key(1), where, pool))
    assert found[pool].min() >= 1
    assert found[pool].max() <= min(pool, 199)
  assert draw._cache_size() == 1
  assert found[7].max() == 7
  everything = ranking.draw_ranks(jax.random.key(1), where)
  for pool in (199, 200, 2**31 - 1):
    np.testing.assert_array_equal(found[pool], everything)


def test_padding_does_not_change_the_draw():
  where = np.arange(8) < 5
  padded, alone = (
    ranking.draw_ranks(jax.random.key(2), w, 3) for w in (where, where[:5])
  )
  np.testing.assert_array_equal(padded[:5], alone)


def test_wrong_arguments_of_sampled_are_named():
  with pytest.raises(ValueError, match="kind='soft', expected 'hinge' or"):
    ranking.sampled(SIMS, RANKS, kind='soft')
  with pytest.raises(ValueError, match=r'found \(5, 4\), and \[5\]'):
    ranking.sampled(SIMS[:, :4], RANKS)
  with pytest.raises(ValueError, match=r'\[5\], found \(4,\)'):
    ranking.sampled(SIMS, RANKS[:4])
