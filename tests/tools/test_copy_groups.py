# SPDX-License-Identifier: Apache-2.0
"""Pairs and groups of copies: against plain loops, and in little memory.

What a group looks like is in `test_copies_tool.py`.
"""

import tracemalloc

import numpy as np
import pytest

from vidret_jax.tools import copy_groups


def drawn(seed, n):
  rng = np.random.default_rng(seed)
  scores = rng.uniform(-1, 1, (n, n)).astype(np.float32)
  scores[rng.random((n, n)) < 0.05] = np.nan
  return scores, rng.random((n, n)) < 0.3


@pytest.mark.parametrize('seed', range(4))
def test_pairs_as_in_a_plain_loop(seed, monkeypatch):
  monkeypatch.setattr(copy_groups, '_STRIP', 3)
  scores, visited = drawn(seed, 11)
  visited = visited if seed else None
  got = copy_groups.pairs(scores, visited)
  want = []
  for i in range(11):
    for j in range(i + 1, 11):
      two = [
        scores[a, b] if visited is None or visited[a, b] else np.nan
        for a, b in ((i, j), (j, i))
      ]
      if not np.isnan(two).all():
        want.append((i, j, *two, np.nanmean(two)))
  columns = got.first, got.second, got.forth, got.back, got.score
  for a, b in zip(columns, zip(*want)):
    np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize('seed', range(4))
def test_groups_are_what_can_be_reached(seed):
  n, threshold = 40, 0.85
  found = copy_groups.pairs(*drawn(seed, n))
  reached = np.eye(n, dtype=bool)
  near = found.score >= threshold
  reached[found.first[near], found.second[near]] = True
  reached |= reached.T
  for _ in range(6):  # Twice as far each time.
    reached = reached.astype(int) @ reached > 0
  want = {tuple(np.flatnonzero(row).tolist()) for row in reached}
  want = sorted(group for group in want if len(group) > 1)
  groups = copy_groups.groups(found, threshold, [0] * n)
  assert sorted(tuple(sorted(m.number for m in g)) for g in groups) == want
  pair = {
    frozenset((a, b)): s
    for a, b, s in zip(
      found.first.tolist(), found.second.tolist(), found.score.tolist()
    )
  }
  for first, *rest in groups:
    for m in rest:
      with_ = first.number if m.through is None else m.through
      shown = pair[frozenset((m.number, with_))]
      assert m.score == pytest.approx(shown) and shown >= threshold
  (row,) = copy_groups.table(found, n, [threshold])
  assert row[1:] == (near.sum(), len(want), sum(map(len, want)))


def test_memory_grows_with_the_pairs_that_were_compared():
  """A folder of many videos on short lists, and one group of all of them."""
  n = 3000
  scores = np.full((n, n), np.float32(np.nan))
  visited = np.zeros((n, n), bool)
  i = np.arange(n - 1)
  scores[i, i + 1], visited[i, i + 1] = 0.9, True
  tracemalloc.start()
  found = copy_groups.pairs(scores, visited)
  (group,) = copy_groups.groups(found, 0.5, range(n))
  table = copy_groups.table(found, n, [0.5, 0.95])
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert len(group) == n and table == [(0.5, n - 1, 1, n), (0.95, 0, 0, 0)]
  assert peak < n * n  # One byte for each pair of videos.
