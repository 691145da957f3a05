# SPDX-License-Identifier: Apache-2.0
"""Spans: overlap, the band, the best cells, suppression."""

import functools

import jax
import numpy as np
import pytest

from tests.search import toy_moments
from vidret_jax.ops import temporal


@pytest.fixture(autouse=True)
def quick(quick_compiler):
  return quick_compiler


def test_overlap_is_that_of_the_hull():
  rng = np.random.default_rng(0)
  spans = np.sort(rng.integers(0, 6, (40, 2)), 1).astype(np.float32)
  got = temporal.hull_iou(spans[:, None], spans)
  want = [[toy_moments.iou(a, b) for b in spans] for a in spans]
  np.testing.assert_allclose(got, want, rtol=1e-6)
  assert temporal.hull_iou(spans[:1] * 0, spans[:1] * 0) == 0


@pytest.mark.parametrize(
  'length, least, most', [(6, 2, 4), (5, 0, 3), (4, 2, 9), (3, 5, 8), (1, 0, 1)]
)
def test_band_holds_all_products(length, least, most):
  rng = np.random.default_rng(length)
  start, end = rng.random((2, 3, length)).astype(np.float32)
  got = np.asarray(temporal.band_products(start, end, least, most))
  assert got.shape == (3, most - least, length)
  for d in range(most - least):
    for s in range(length):
      e = s + least + d
      want = start[:, s] * end[:, e] if e < length else 0
      np.testing.assert_array_equal(got[:, d, s], want)


def sorted_cells(start, end, weight, least, most):
  """(score, slot, start, end) of all spans, best first, stable."""
  n, length = start.shape
  cells = [
    ((start[v, s] * weight[v]) * end[v, e], v, s, e)
    for v in range(n)
    for s in range(length)
    for e in range(s + least, min(s + most, length))
  ]
  return sorted(cells, key=lambda cell: -cell[0])


@pytest.mark.parametrize(
  'n, length, least, most, k',
  [
    (3, 20, 2, 7, 25),
    (1, 20, 2, 7, 200),  # More than there are.
    (4, 5, 1, 30, 40),  # A band wider than the video.
    (2, 3, 3, 5, 4),  # No span at all.
    (5, 8, 0, 1, 9),
  ],
)
def test_top_spans_are_those_of_a_sort(n, length, least, most, k):
  rng = np.random.default_rng(k)
  start, end = rng.random((2, 4, n, length)).astype(np.float32)
  weight = rng.random((4, n)).astype(np.float32)
  for x in (start, end, weight):
    x[2:] = np.ceil(x[2:] * 2)  # Ties.
  # Videos of several lengths, one of them shorter than any span.
  clips = rng.integers(1, length + 1, (4, n, 1))
  start, end = (x * (np.arange(length) < clips) for x in (start, end))
  top_spans = functools.partial(
    temporal.top_spans, k=k, min_length=least, max_length=most
  )
  got = jax.jit(top_spans)(start, end, weight=weight)
  assert all(x.shape == (4, k) for x in got)
  for q in range(4):
    cells = sorted_cells(start[q], end[q], weight[q], least, most)
    cells = [cell for cell in cells if cell[0] > 0][:k]
    score, *places = (np.asarray(x[q]) for x in got)
    want = np.array(cells).reshape(-1, 4)
    np.testing.assert_array_equal(score[: len(want)], want[:, 0])
    assert (score[len(want) :] == 0).all()
    for x, y in zip(places, want.T[1:]):
      np.testing.assert_array_equal(x[: len(want)], y)
      assert (x >= 0).all()


def test_without_weights_videos_count_alike():
  start, end = np.random.default_rng(0).random((2, 2, 6)).astype(np.float32)
  top_spans = jax.jit(
    functools.partial(temporal.top_spans, k=5, min_length=1, max_length=4)
  )
  one, weight = top_spans(start, end), np.ones(2, np.float32)
  for x, y in zip(one, top_spans(start, end, weight=weight)):
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('threshold', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('ties', [1, 4])
def test_suppression_is_the_greedy_one(threshold, ties):
  rng = np.random.default_rng(ties)
  n, keep = 40, 15
  spans = np.sort(rng.integers(0, 30, (n, 2)), 1).astype(np.float32)
  scores = (np.ceil(rng.random(n) * 40 / ties) * ties).astype(np.float32)
  group = rng.integers(0, 5, n)
  where = rng.random(n) < 0.8
  suppress = jax.jit(functools.partial(temporal.suppress, keep=keep))

  def check(got, rows, groups):
    first = {g: i for i, g in reversed(list(enumerate(groups)))}
    rows.sort(key=lambda i: (-scores[i], first[groups[i]], i))
    rows = [(groups[i], *spans[i], i) for i in rows]
    want = [int(row[3]) for row in toy_moments.greedy(rows, threshold)][:keep]
    assert got.tolist() == want + [-1] * (keep - len(want))

  check(suppress(spans, scores, threshold), list(range(n)), [0] * n)
  got = suppress(spans, scores, threshold, group=group, where=where)
  check(got, np.flatnonzero(where).tolist(), group.tolist())


def test_more_may_stay_than_there_are():
  spans = np.float32([[0, 2], [0, 2], [5, 6]])
  got = temporal.suppress(spans, np.float32([1, 2, 3]), 0.5, 5)
  assert got.tolist() == [2, 1, -1, -1, -1]


def test_bad_lengths_and_counts_are_refused():
  x = np.ones((1, 4), np.float32)
  for least, most in ((3, 3), (-1, 2)):
    with pytest.raises(ValueError, match='min_length < max_length'):
      temporal.band_products(x, x, least, most)
  with pytest.raises(ValueError, match='k=0'):
    temporal.top_spans(x, x, 0, min_length=1, max_length=2)
