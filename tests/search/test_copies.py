# SPDX-License-Identifier: Apache-2.0
"""Scores of a copy search: every pair as if alone, whatever the batches."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.search import toy_copies as toy
from vidret_jax import sharding
from vidret_jax.search import (
  copies,
  copy_plan,
  copy_programs,
  copy_queries,
  copy_reading,
  copy_shards,
  copy_stages,
)


@pytest.fixture(autouse=True)
def quick(quick_compiler):
  """Every test here compiles as little as it can."""


def compiled():
  """How many programs of each kind there are."""
  programs = copy_programs.programs(toy.model(), sharding.make_mesh())
  return {k: p._cache_size() for k, p in programs._asdict().items()}


@pytest.fixture(scope='module')
def counted():
  """(scores of all pairs, programs that they took)."""
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  copy_programs.programs.cache_clear()  # Of other modules.
  yield toy.find(), compiled()
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.fixture
def everything(counted):
  return counted[0]


def one_at_a_time(model, variables, queries, items, chunk):
  """The loop of the original: no padding, chunks averaged on the host."""

  @jax.jit
  def score(q, v):
    q, v = ({'regions': x[None], 'length': np.r_[len(x)]} for x in (q, v))
    q = model.apply(variables, q, method='encode_query')
    v = model.apply(variables, v, method='encode_item')
    return model.apply(variables, q, v, method='fine')[0, 0]

  out = np.full((len(queries.ids), len(items.ids)), np.nan)
  for a, b in np.ndindex(out.shape):
    if queries.lengths[a] and items.lengths[b]:
      target = items.read(b)
      parts = [target[i : i + chunk] for i in range(0, len(target), chunk)]
      parts = [p for p in parts if len(p) > 3]
      out[a, b] = np.mean([score(queries.read(a), p) for p in parts])
  return out


def test_padded_scores_equal_one_pair_at_a_time(everything):
  # Some of the lengths: each pair of lengths compiles.
  items = toy.View('v', [n if n in (8, 11, 24, 50) else 0 for n in toy.ITEMS])
  queries = toy.View('q', [n if n in (5, 30) else 0 for n in toy.QUERIES])
  want = one_at_a_time(toy.model(), toy.variables(), queries, items, 24)
  there = ~np.isnan(want)
  assert there.sum() == 2 * 5 and np.ptp(want[there]) > 0.02
  np.testing.assert_allclose(everything.scores[there], want[there], atol=2e-5)


def test_the_whole_network_is_compared_alike():
  """With attention and comparator: odd lengths, chunks, a dropped rest."""
  queries = toy.View('q', (0, 9))
  items = toy.View('v', (7, 0, 28, 15))  # 28: chunks of 13, 13 and 2.
  model, variables = toy.model(features_only=False), toy.variables()
  got = copies.find(
    model,
    sharding.make_mesh(),
    variables,
    queries,
    items,
    dataclasses.replace(toy.OPTIONS, chunk=13, edges=(16,)),
  )
  items_now = toy.View('v', (7, 0, 28, 0))
  want = one_at_a_time(model, variables, queries, items_now, 13)
  there = ~np.isnan(want)
  assert there.sum() == 2
  np.testing.assert_allclose(got.scores[there], want[there], atol=2e-5)
  assert np.abs(want[1, 0] - want[1, 2]) > 1e-4
  assert np.isfinite(got.scores[1, 3])


def test_the_fused_kernel_compares_alike(everything):
  """Within the programs of the search, each device its own videos."""
  queries, items = toy.View('q', (5,)), toy.View('v', (8, 11))
  got = copies.find(
    *(toy.model(kernel='pallas'), sharding.make_mesh(), toy.variables()),
    *(queries, items, dataclasses.replace(toy.OPTIONS, edges=(16,))),
  )
  np.testing.assert_allclose(got.scores, everything.scores[:1, :2], atol=2e-5)


def test_missing_videos_have_no_score(everything):
  missing = (np.array(toy.QUERIES) == 0)[:, None] | (np.array(toy.ITEMS) == 0)
  np.testing.assert_array_equal(np.isnan(everything.scores), missing)
  assert everything.scores.dtype == np.float32
  assert everything.visited is None and everything.share == 1


def test_one_program_per_pair_of_lengths(counted):
  """Another search of like lengths, and other weights, compile nothing."""
  want = dict(queries=2, coarse=0, items=3, score=0, fine=2 * 3, some=0)
  assert counted[1] == want
  before = compiled()
  pair = toy.View('p', toy.QUERIES), toy.View('w', toy.ITEMS[::-1])
  toy.find(pair=pair, seed=1)
  assert compiled() == before


def test_visiting_everything_is_the_whole_search(everything):
  found = toy.find(visit=0.999)  # Rounded up to every item.
  assert found.share == 1
  np.testing.assert_array_equal(found.visited, ~np.isnan(found.scores))
  np.testing.assert_allclose(found.scores, everything.scores, atol=2e-5)


def test_what_is_not_visited_is_ranked_behind(everything):
  pair = toy.views()
  found = toy.find(visit=0.2, pair=pair)
  for i, name in enumerate(pair[1].ids):
    if 0 < toy.ITEMS[i] <= 24:  # Chunks may be read on their own.
      times = 1 + found.visited[:, i].any()
      assert pair[1].reads.count(name) == times
  there = ~np.isnan(everything.scores)
  np.testing.assert_array_equal(np.isnan(found.scores), ~there)
  visited = found.visited
  assert visited.sum(1).tolist() == [3, 0, 3, 3, 3]  # 13 * 0.2, rounded up
  assert found.share == 12 / 52
  np.testing.assert_allclose(
    found.scores[visited], everything.scores[visited], atol=2e-5
  )
  rest = there & ~visited
  assert found.scores[rest].max() < found.scores[visited].min()
  # In the order of the cosines of mean vectors, over the whole matrix.
  model, vector = toy.model(), []
  for view in pair:
    rows = [view.read(i).sum((0, 1)) for i in range(len(view.ids))]
    vector.append([x / max(np.linalg.norm(x), 1e-9) for x in rows])
  coarse = np.array(vector[0]) @ np.array(vector[1]).T
  coarse[:, 5], coarse[:, 6], coarse[:, 12] = -9, -9, -9  # Means of chunks.
  whole = rest & (coarse > -9)
  assert model.COARSE == ('vector',)
  order = np.argsort(coarse[whole])
  assert (np.diff(found.scores[whole][order]) > -1e-6).all()


@pytest.mark.parametrize(
  'storage, atol', [('float16', 1e-3), ('bfloat16', 8e-3)]
)
def test_features_in_16_bit_change_scores_little(everything, storage, atol):
  got = toy.find(storage=storage).scores
  change = np.nanmax(np.abs(got - everything.scores))
  print(storage, 'changes a score by at most', change)
  assert 0 < change < atol


def test_features_of_16_bit_are_sent_as_they_are():
  """Widened on the devices, they are the numbers they would be here."""

  class Short(toy.View):
    dtype = np.dtype(np.float16)

    def read(self, i):
      return super().read(i).astype(self.dtype)

  class Wide(Short):
    dtype = np.dtype(np.float32)

    def read(self, i):
      return super(Short, self).read(i).astype('f2').astype('f4')

  sent = []
  scores = []
  for view in (Short, Wide):
    pair = view('q', toy.QUERIES), view('v', toy.ITEMS)
    records = copy_plan.cut(pair[1].lengths, 24)
    sent.append(
      copy_reading.batch(
        *(pair[1], records, np.arange(2)), rows=2, frames=12, storage='float32'
      )['regions']
    )
    scores.append(toy.find(pair=pair).scores)
  assert [x.dtype for x in sent] == [np.float16, np.float32]
  np.testing.assert_array_equal(*sent)
  np.testing.assert_array_equal(*scores)


def test_queries_that_do_not_fit_are_sent_again(everything, monkeypatch):
  taken = []
  take = copy_queries.Queries.__getitem__
  monkeypatch.setattr(
    *(copy_queries.Queries, '__getitem__'),
    lambda self, number: (
      taken.append((self._size, number)) or take(self, number)
    ),
  )
  got = toy.find(query_bytes=0)
  np.testing.assert_array_equal(got.scores, everything.scores)
  size, number = zip(*taken)
  assert min(size) > 0 and set(number) == {0, 1}  # All of them are in a file.


def test_only_queries_that_visit_a_batch_are_sent(monkeypatch):
  taken = []
  take = copy_queries.Queries.__getitem__
  monkeypatch.setattr(
    *(copy_queries.Queries, '__getitem__'),
    lambda self, number: taken.append(number) or take(self, number),
  )
  model, mesh = toy.model(), sharding.make_mesh()
  search = copy_stages.Search(
    *(model, mesh, toy.variables(), *toy.views(), toy.OPTIONS, None, None)
  )
  wanted = np.zeros((len(toy.QUERIES), len(toy.ITEMS)), bool)
  wanted[0, [0, 3, 7]] = True  # Items of three lengths, one query.
  scores = search.stage('fine', wanted)
  assert len(taken) == 3 and len(set(taken)) == 1
  np.testing.assert_array_equal(np.isfinite(scores), wanted)


class Odd(toy.View):
  """Gives other features for one video."""

  def __init__(self, *args, change, **options):
    super().__init__(*args, **options)
    self.change = change

  def read(self, i):
    x = super().read(i)
    return self.change(x) if self.ids[i] in ('v3', 'q3') else x


def spoil(x):
  x = x.copy()
  x[-1, 0, 0] = np.nan
  return x


@pytest.mark.parametrize('kind', ['memory', 'folder'])
def test_scores_that_are_not_finite_name_the_videos(kind, tmp_path):
  queries, _ = toy.views()
  items = Odd('v', toy.ITEMS, change=spoil)
  folder = tmp_path / 'scores' if kind == 'folder' else None
  with pytest.raises(
    ValueError, match=r"4 scores .* 1 items\): 'q0' with 'v3'"
  ):
    toy.find(pair=(queries, items), folder=folder)
  if folder:
    # What is wrong is not kept, what is right is; with other features it is
    # another search.
    kept = sorted(p.name for p in (folder / 'fine').iterdir())
    assert kept and not any(name.endswith('.part') for name in kept)
    items.change = lambda x: x
    with pytest.raises(copy_shards.StaleScores, match='items: the folder has'):
      toy.find(pair=(queries, items), folder=folder)


def test_numbers_too_large_for_16_bit_are_found():
  queries, items = toy.views()
  items = Odd('v', toy.ITEMS, change=lambda x: x * 1e6)
  with pytest.raises(ValueError, match=r"not finite .*'v3'"):
    toy.find(pair=(queries, items), storage='float16')


def test_videos_of_another_shape_are_named():
  queries = Odd('q', toy.QUERIES, change=lambda x: x[:-1])
  with pytest.raises(ValueError, match=r"'q3'.*\(7, 3, 6\).*\(8, 3, 6\)"):
    toy.find(pair=(queries, toy.views()[1]))


def test_videos_that_cannot_be_compared():
  queries, items = toy.views()
  with pytest.raises(ValueError, match='regions of 6 values, items of 5'):
    toy.find(pair=(queries, toy.View('v', (8,), dim=5)))
  with pytest.raises(ValueError, match=r"queries: video 'q1' has 3 frames"):
    toy.find(pair=(toy.View('q', (8, 3)), items))
  with pytest.raises(ValueError, match='items: none of the 2 videos'):
    toy.find(pair=(queries, toy.View('v', (0, 0))))


BAD = {
  'chunk': (3, 8.0, True),
  'edges': ((), (8, 8), (16, 8), (2,), (8.0,), 0, True, 'all'),
  'query_buckets': (0,),
  'batch_frames': (0,),
  'shard_frames': ('many',),
  'storage': ('float64',),
  'visit': (0, 1.5, -1, True, '1'),
  'readers': (0,),
  'ahead': (0,),
  'query_bytes': (-1,),
}


def test_bad_options():
  for name, values in BAD.items():
    for value in values:
      with pytest.raises(ValueError, match=f'{name}=.*: expected'):
        copies.Options(**{name: value})
