# SPDX-License-Identifier: Apache-2.0
"""Search for moments against a sort of all cells of all videos."""

import dataclasses

import numpy as np
import pytest

from tests.search import toy_moments
from vidret_jax import sharding
from vidret_jax.search import moment_programs, moments, moments_upstream

FEW = moments.Options(
  videos=4, alpha=3.0, before_nms=30, keep=20, min_length=1, max_length=6
)


@pytest.fixture(autouse=True)
def quick(quick_compiler):
  return quick_compiler


def search(problem, options, **keywords):
  keywords = dict(query_block=8, item_block=3) | keywords
  return moments.find(
    problem.model,
    sharding.make_mesh(),
    problem.variables,
    problem.queries,
    problem.items,
    options,
    own=problem.queries.own,
    **keywords,
  )


def check(problem, found, options):
  for q in range(len(problem.queries)):
    videos, weights, rows, own = problem.expected(q, options)
    assert found.videos[q].tolist() == videos.tolist()
    np.testing.assert_allclose(found.video_scores[q], weights, rtol=1e-6)
    for want, numbers, spans, scores in (
      (rows, found.items[q], found.spans[q], found.scores[q]),
      (own, None, found.own_spans[q], found.own_scores[q]),
    ):
      n = len(want)
      assert (scores[n:] == 0).all() and (spans[n:] == 0).all()
      want = np.array(want, np.float64).reshape(n, 4)
      np.testing.assert_array_equal(spans[:n], want[:, 1:3])
      np.testing.assert_allclose(scores[:n], want[:, 3], rtol=1e-5)
      if numbers is not None:
        assert numbers[:n].tolist() == want[:, 0].astype(int).tolist()
        assert (numbers[n:] == -1).all()


@pytest.mark.parametrize(
  'changes',
  [
    dict(videos=100, keep=1000, before_nms=1000),
    dict(min_length=3, max_length=40, end_offset=1),
    dict(nms=0.4, end_offset=1, keep=5),
    dict(min_length=2, max_length=9, grid=2),
  ],
)
def test_search_is_a_sort_of_all_cells(changes):
  problem = toy_moments.Problem()
  options = dataclasses.replace(FEW, **changes)
  check(problem, search(problem, options), options)


def test_blocks_do_not_matter():
  problem = toy_moments.Problem()
  one = search(problem, FEW, query_block=64, item_block=64)
  two = search(problem, FEW, query_block=4, item_block=2, bank_bytes=0)
  check(problem, one, FEW)
  for name, x in vars(one).items():
    np.testing.assert_array_equal(x, getattr(two, name), err_msg=name)


def test_nothing_is_compiled_for_another_block(compilations):
  problem = toy_moments.Problem(queries=35)
  # More queries want a video than a table has room for.
  problem.params['score'][:20, 3] = 0.4
  options = dataclasses.replace(FEW, videos=1, alpha=2.5)
  counts = []
  # The first time, small things are compiled, too.
  for _ in range(2):
    moment_programs.programs.cache_clear()
    before = len(compilations)
    check(problem, search(problem, options, query_block=16), options)
    counts.append(len(compilations) - before)
  assert counts[1] == 3  # Three blocks, three programs.
  check(problem, search(problem, options, query_block=16), options)
  assert len(compilations) == before + counts[1]


def test_tables_name_every_pair_once():
  rng = np.random.default_rng(0)
  devices, size, blocks, width = 2, 3, 4, 2
  rows = rng.integers(-1, 11, (8, 5))
  rows[1:, 0] = 4
  seen = np.full(rows.shape, -1)
  tables = moment_programs.tables(rows, size, blocks, devices, width)
  for i, of_block in enumerate(tables):
    for table in of_block:
      assert table.shape == (devices, size, width)
      for device, item, lane in np.argwhere(table >= 0):
        place = table[device, item, lane] + device * rows.size // devices
        assert seen.flat[place] == -1
        seen.flat[place] = i * size + item
  np.testing.assert_array_equal(seen, rows)


def test_tasks_are_found_alone():
  problem = toy_moments.Problem()
  whole = vars(search(problem, FEW))
  for tasks, names in (
    (('VR',), {'videos', 'video_scores'}),
    (('SVMR',), {'own_spans', 'own_scores'}),
    (
      ('VCMR',),
      {'videos', 'video_scores', 'items', 'spans', 'scores'},
    ),
  ):
    found = vars(search(problem, FEW, tasks=tasks))
    assert {k for k, x in found.items() if x is not None} == names
    for name in names:
      np.testing.assert_array_equal(found[name], whole[name], err_msg=name)


def test_imported_lists_are_searched():
  problem = toy_moments.Problem()
  own = problem.queries.own
  numbers = np.stack([own, np.full_like(own, -1), (own + 2) % 7], 1)
  weights = np.tile(np.float32([1, 5, 2]), (len(own), 1))
  found = search(problem, FEW, lists=(numbers, weights))
  np.testing.assert_array_equal(found.videos, numbers)
  np.testing.assert_array_equal(found.video_scores[:, 1], 0)
  for q, (mine, _, other) in enumerate(numbers):
    rows = [(p, mine) for p, *_ in problem.cells(q, mine, FEW)]
    rows += [(p, other) for p, *_ in problem.cells(q, other, FEW, 2)]
    rows = sorted(rows, reverse=True)[: FEW.keep]
    n = len(rows)
    assert found.items[q, :n].tolist() == [v for _, v in rows]
    np.testing.assert_allclose(
      found.scores[q, :n], [p for p, _ in rows], rtol=1e-5
    )
  short = search(
    problem,
    dataclasses.replace(FEW, videos=1),
    lists=(numbers, weights),
    tasks=('VCMR',),
  )
  assert (short.items == np.where(short.items < 0, -1, own[:, None])).all()
  for bad, message in (
    ((numbers[:3], weights[:3]), r'\(3, 3\).*expected \(19, k\)'),
    ((numbers + 7, weights), 'names video 13 of a corpus of 7'),
    ((numbers, weights * np.inf), 'finite'),
  ):
    with pytest.raises(ValueError, match=message):
      search(problem, FEW, lists=bad)


def test_suppression_as_upstream():
  problem = toy_moments.Problem()
  options = dataclasses.replace(FEW, nms=0.1, nms_upstream=True)
  plain = search(problem, FEW)
  found = search(problem, options)
  for q, own in enumerate(problem.queries.own):
    # VCMR: the list is cut first.
    real = plain.scores[q] > 0
    rows = np.column_stack([plain.items[q], plain.spans[q]])[real]
    rows = toy_moments.greedy(rows.tolist(), 0.1)
    got = np.column_stack([found.items[q], found.spans[q]])
    assert got[found.scores[q] > 0].tolist() == rows
    # SVMR: (video_idx, start, end) is read as (start, end, score).
    name = problem.items.numbers[own]
    real = plain.own_scores[q] > 0
    spans = plain.own_spans[q][real].tolist()
    spans.sort(key=lambda x: -x[1])
    rows = toy_moments.greedy([(0, name, s, e) for s, e in spans], 0.1)
    got = found.own_spans[q][found.own_scores[q] > 0]
    assert got.tolist() == [list(row[2:]) for row in rows]
  one = np.array([[4, 1.5, 6, 0.2]])
  assert moments_upstream.suppress(one, 0.5, 100).tolist() == [0]
  none = moments_upstream.suppress(one[:0], 0.5, 100)
  assert none.tolist() == []


def test_curves_are_the_probabilities_of_the_own_videos():
  problem = toy_moments.Problem()
  chosen = np.array([4, 0, 11])
  own = problem.queries.own[chosen]
  found = moments.curves(
    problem.model,
    sharding.make_mesh(),
    problem.variables,
    problem.queries,
    problem.items,
    chosen,
    own,
    block=2,
  )
  for got, name in zip(found, ('start', 'end')):
    assert got.shape == (3, problem.length)
    for row, q, v in zip(got, chosen, own):
      n = problem.clips[v]
      want = np.exp(problem.params[name][q, v, :n])
      np.testing.assert_allclose(row[:n], want / want.sum(), rtol=1e-5)
      assert (row[n:] == 0).all()


def test_bad_searches_are_refused():
  problem = toy_moments.Problem(queries=3)
  for keywords, message in (
    (dict(tasks=('QA',)), 'QA'),
    (dict(tasks=()), 'one or more of VCMR, SVMR, VR'),
  ):
    with pytest.raises(ValueError, match=message):
      search(problem, FEW, **keywords)
  with pytest.raises(ValueError, match='lower alpha'):
    search(problem, dataclasses.replace(FEW, alpha=1e4))
  problem.queries.own[1] = -1
  with pytest.raises(ValueError, match='SVMR'):
    search(problem, FEW)
  for bad in (
    dict(videos=0),
    dict(min_length=3, max_length=3),
    dict(end_offset=-1),
    dict(grid=0),
    dict(nms=1.5),
    dict(alpha=float('nan')),
  ):
    with pytest.raises(ValueError, match=next(iter(bad))):
      moments.Options(**bad)
