# SPDX-License-Identifier: Apache-2.0
"""Counting and top-k on single blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.ops import ranking


def test_padding_and_unscored_items_count_nowhere():
  sims = jnp.array([[1.0, 2, 9, jnp.nan], [3, 3, 9, 0], [9, 9, 9, 9]])
  got = ranking.count(
    sims,
    own_q=jnp.array([1.0, 3, 0]),
    column_q=jnp.array([0, 1, -1]),
    threshold_v=jnp.array([3.0, 2, 0, 0]),
    query_mask=np.array([True, True, False]),
    item_mask=np.array([True, True, False, True]),
    has_score_v=np.array([True, True, True, False]),
  )
  assert got.row_greater[:2].tolist() == [1, 0]
  assert got.row_equal[:2].tolist() == [1, 2]
  assert got.col_greater[:2].tolist() == [0, 1]
  assert got.col_equal[:2].tolist() == [1, 1]
  assert got.bad == 0


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_non_finite_scores_are_counted(value):
  sims = np.zeros((3, 3), np.float32)
  sims[1, 1] = sims[2, 0] = value  # Row 2 is padding.
  mask = np.ones(3, bool)
  got = ranking.count(
    sims,
    np.zeros(3),
    np.full(3, -1),
    np.zeros(3),
    np.array([True, True, False]),
    mask,
    mask,
  )
  assert got.bad == 1


def test_pooled_columns_count_videos():
  sims = jnp.array([[1.0], [5], [5], [2]])
  mask = np.ones(1, bool)
  got = ranking.count(
    sims,
    jnp.zeros(4),
    np.full(4, 9),
    jnp.array([5.0]),
    np.ones(4, bool),
    mask,
    mask,
    np.array([0, 0, 1, 2], np.int32),
  )
  assert (got.col_greater[0], got.col_equal[0]) == (0, 2)
  got = ranking.count(
    sims,
    jnp.zeros(4),
    np.full(4, 9),
    jnp.array([1.0]),
    np.ones(4, bool),
    mask,
    mask,
    np.array([0, 0, 1, 2], np.int32),
  )
  assert (got.col_greater[0], got.col_equal[0]) == (3, 0)


def test_the_own_score_ties_with_itself_however_it_was_rounded():
  own = np.array([0.3, 0.7], np.float32)
  sims = np.full((2, 2), 0.1, np.float32)
  sims[[0, 1], [1, 0]] = np.nextafter(own, np.float32(9))
  mask = np.ones(2, bool)
  got = ranking.count(sims, own, np.array([1, 0]), own[::-1], mask, mask, mask)
  assert got.row_greater.tolist() == got.col_greater.tolist() == [0, 0]
  assert got.row_equal.tolist() == got.col_equal.tolist() == [1, 1]


def test_own_scores_are_taken_from_the_block_that_holds_them():
  sims = jnp.arange(6.0).reshape(2, 3)
  got = ranking.take_own(sims, jnp.array([2, -1]), jnp.array([-7.0, -7.0]))
  assert got.tolist() == [2, -7]


@pytest.mark.parametrize('block', [1, 2, 3, 7, 20])
def test_running_top_k_is_a_stable_sort(block):
  rng = np.random.default_rng(block)
  sims = rng.integers(0, 4, (5, 17)).astype(np.float32)  # Mostly ties.
  k = 6
  best = (jnp.full((5, k), -jnp.inf), jnp.full((5, k), -1, jnp.int32))
  for first in range(0, 17, block):
    part = np.full((5, block), np.nan, np.float32)
    real = sims[:, first : first + block]
    part[:, : real.shape[1]] = real
    mask = np.arange(block) < real.shape[1]
    best = jax.jit(ranking.merge_top)(best, part, np.int32(first), mask)
  want = np.argsort(-sims, 1, kind='stable')[:, :k]
  np.testing.assert_array_equal(best[1], want)
  np.testing.assert_array_equal(best[0], np.take_along_axis(sims, want, 1))


@pytest.mark.parametrize('own_lists', [False, True])
@pytest.mark.parametrize('pooled', [False, True])
def test_short_lists_count_before_all_others(own_lists, pooled):
  rng = np.random.default_rng(3)
  q, v, k = 9, 6, 2
  sims = rng.integers(-3, 4, (q, v)).astype(np.float32)
  fine = rng.integers(-3, 4, (q, v)).astype(np.float32)
  item = np.sort(rng.permutation(np.arange(q) % v))
  place = np.stack([rng.permutation(v)[:k] for _ in range(q)])
  score = np.take_along_axis(fine, place, 1)
  listed = np.zeros((q, v), bool)
  np.put_along_axis(listed, place, True, 1)
  columns, by_column = None, listed
  if own_lists:
    rows = np.stack([rng.permutation(q)[:k] for _ in range(v)])
    columns = ranking.ShortLists(
      rows.astype(np.int32), np.take_along_axis(fine.T, rows, 1)
    )
    by_column = np.zeros((v, q), bool)
    np.put_along_axis(by_column, rows, True, 1)
    by_column = by_column.T
  row_keys = np.where(listed, fine + 100, sims)
  col_keys = np.where(by_column, fine + 100, sims)
  at = np.arange(q), item
  best = np.full(v, -np.inf, np.float32)
  np.maximum.at(best, item, sims[at])
  best_fine = np.full(v, -np.inf, np.float32)
  np.maximum.at(best_fine, item, np.where(by_column[at], fine[at], -np.inf))
  # A place outside of the block belongs to another one.
  place = np.concatenate([place, np.full((q, 2), [[-1, v]])], 1)
  score = np.concatenate([score, np.full((q, 2), 50, np.float32)], 1)
  stages = ranking.TwoStages(
    ranking.ShortLists(place.astype(np.int32), score),
    columns,
    np.where(listed[at], fine[at], -np.inf).astype(np.float32),
    best_fine,
  )
  got = ranking.count(
    sims,
    sims[at],
    item.astype(np.int32),
    best,
    np.ones(q, bool),
    np.ones(v, bool),
    np.ones(v, bool),
    item.astype(np.int32) if pooled else None,
    stages,
  )
  own = row_keys[at][:, None]
  np.testing.assert_array_equal(got.row_greater, (row_keys > own).sum(1))
  np.testing.assert_array_equal(got.row_equal, (row_keys == own).sum(1))
  threshold = np.where(best_fine > -np.inf, best_fine + 100, best)
  rivals = col_keys
  if pooled:
    rivals = np.full((v, v), -np.inf)
    np.maximum.at(rivals, item, col_keys)
  np.testing.assert_array_equal(got.col_greater, (rivals > threshold).sum(0))
  np.testing.assert_array_equal(got.col_equal, (rivals == threshold).sum(0))
