# SPDX-License-Identifier: Apache-2.0
"""Sequences of groups of rows by length."""

import jax.numpy as jnp
import numpy as np

from vidret_jax.ops import lengths


def masks(*counts):
  return jnp.arange(9) < jnp.asarray(counts)[:, None]


def test_groups_are_sorted_each_for_itself():
  mask = masks(5, 2, 9, 1, 3, 3, 8, 0)
  order = lengths.order(mask, 4)
  assert order.tolist() == [[3, 1, 0, 2], [3, 0, 1, 2]]
  assert int(lengths.longest(mask, 4, 3)) == 5
  assert int(lengths.longest(mask, 4, 4)) == 9
  shortest = lengths.rows({'mask': mask}, order, slice(2))['mask']
  assert shortest.sum(1).tolist() == [1, 2, 0, 3]


def test_join_undoes_rows():
  rng = np.random.default_rng(0)
  mask = masks(*rng.integers(1, 10, 12))
  x = jnp.asarray(rng.normal(size=(12, 9, 2)))
  order = lengths.order(mask, 6)
  parts = [
    lengths.rows((x, mask), order, which)
    for which in (slice(4), slice(4, None))
  ]
  assert [len(p[1]) for p in parts] == [8, 4]
  back = lengths.join(*parts, order)
  np.testing.assert_array_equal(back[0], x)
  np.testing.assert_array_equal(back[1], mask)
