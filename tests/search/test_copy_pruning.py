# SPDX-License-Identifier: Apache-2.0
"""Which pairs a pruned search compares, and the order of the others."""

import numpy as np

from vidret_jax.search import copy_pruning


def test_what_was_not_visited_keeps_its_order():
  coarse = np.array([[0.5, np.nan, 0.75, 0.25], [0.125, 0, np.nan, 1]], 'f')
  visited = np.array([[1, 0, 0, 0], [0, 0, 0, 1]], bool)
  fine = np.where(visited, np.float32(-0.5), np.float32(np.nan))
  fine[1, 3] = 0.5
  got = copy_pruning.fill(fine, coarse, visited)
  # A step of 1 below the least; the best of the rest has a coarse 0.75.
  want = [[-0.5, np.nan, -1.5, -2.0], [-2.125, -2.25, np.nan, 0.5]]
  np.testing.assert_array_equal(got, np.array(want, 'f'))
  whole = copy_pruning.fill(fine, np.where(visited, coarse, np.nan), visited)
  np.testing.assert_array_equal(whole, fine)


def test_units_hold_every_pair_once():
  rng = np.random.default_rng(0)
  for lanes in (1, 2, 4, 5):
    wanted = rng.random((7, 5)) < 0.4
    wanted[2] = False
    query, item, count = copy_pruning.units(wanted, lanes)
    got = np.zeros_like(wanted)
    for u in range(count):
      got[query[u], item[u]] = True
    np.testing.assert_array_equal(got, wanted)
    assert len(query) == 7 * -(-5 // lanes) and item.shape == (
      len(query),
      lanes,
    )


def test_choosing_takes_the_first_of_equals():
  coarse = np.array([[0.5, np.nan, 0.5, 0.5, 0.1], [np.nan] * 5], np.float32)
  got = copy_pruning.choose(coarse, 0.5)
  assert got.tolist() == [[True, False, True, False, False], [False] * 5]
  many = np.arange(20, dtype=np.float32)[None]
  assert copy_pruning.choose(many, 0.05).sum() == 1
