# SPDX-License-Identifier: Apache-2.0
"""The second stage scores what it is given, each way alike, and sorts it."""

import subprocess
import sys

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from tests import devices
from tests.search import toy_two_stage as toy
from vidret_jax import sharding
from vidret_jax.search import programs, row_layout, store, two_stage

WAYS = [(by, unit) for by in ('item', 'query') for unit in (1, 300, 2**26)]


def problem(q=7, v=23, **options):
  model = toy.Tokens()
  queries, items = toy.embed(model, *toy.draw(q, v, **options))
  fine = model.apply(toy.variables(model), queries, items, method='fine')
  return model, queries, items, np.asarray(fine)


def score(model, queries, items, numbers, *, store=(), **options):
  mesh = sharding.make_mesh()
  where = toy.stored(items, mesh, **dict(store))
  return two_stage.fine_scores(
    model, mesh, toy.variables(model), queries, where, numbers, **options
  )


@pytest.mark.parametrize('by, unit_bytes', WAYS)
@pytest.mark.parametrize('budget', [0, 10**6])
def test_each_way_gives_the_scores_of_all_pairs(by, unit_bytes, budget):
  model, queries, items, fine = problem(whole=False)
  rng = np.random.default_rng(3)
  numbers = np.array([rng.permutation(23)[:5] for _ in range(7)])
  numbers[2, 1:4] = -1
  numbers[5] = -1
  got = score(
    model,
    queries,
    items,
    numbers,
    by=by,
    unit_bytes=unit_bytes,
    store=dict(budget=budget),
  )
  want = np.take_along_axis(fine, np.maximum(numbers, 0), 1)
  want = np.where(numbers >= 0, want, -np.inf)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  assert got.dtype == np.float32


def test_queries_on_the_devices_give_the_same():
  model, queries, items, fine = problem()
  numbers = np.tile(np.arange(6), (7, 1))
  got = score(model, jax.device_put(queries), items, numbers)
  np.testing.assert_array_equal(got, fine[:, :6])


@pytest.mark.parametrize('dtype, atol', [('float16', 0.02), ('bfloat16', 0.1)])
def test_items_kept_in_half_are_scored_in_full(dtype, atol):
  model, queries, items, fine = problem(whole=False)
  numbers = np.tile(np.arange(23), (7, 1))
  for budget in (0, 10**6):
    options = dict(dtype=dtype, exact=model.COARSE, budget=budget)
    mesh = sharding.make_mesh()
    kept = toy.stored(items, mesh, **options).take(np.arange(3))
    assert kept['deep']['tokens'].dtype == dtype
    assert (
      kept['mean'].dtype == np.float32 and kept['deep']['mask'].dtype == bool
    )
    got = score(model, queries, items, numbers, store=options)
    assert 0 < np.abs(got - fine).max() < atol


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
  q=st.integers(1, 4),
  v=st.integers(1, 9),
  extra=st.integers(0, 3),
  seed=st.integers(0, 10**6),
  by=st.sampled_from(['item', 'query', None]),
  on_device=st.booleans(),
)
def test_a_short_list_with_the_best_gives_the_order_of_all_pairs(
  q, v, extra, seed, by, on_device
):
  """Whole numbers in [-3, 3]: most examples have equal scores."""
  model, queries, items, fine = problem(q, v, seed=seed)
  k = min(2, v)
  best = np.argsort(-fine, axis=1, kind='stable')[:, :k]
  rng = np.random.default_rng(seed)
  lists = []
  for row in best:
    others = np.setdiff1d(np.arange(v), row)
    row = np.concatenate([row, rng.permutation(others)[:extra]])
    lists.append(rng.permutation(row))
  mesh = sharding.make_mesh()
  scores, numbers = two_stage.rerank(
    model,
    mesh,
    toy.variables(model),
    queries,
    toy.stored(items, mesh, budget=10**6 if on_device else 0),
    np.array(lists),
    by=by,
  )
  np.testing.assert_array_equal(numbers[:, :k], best)
  np.testing.assert_array_equal(scores, np.take_along_axis(fine, numbers, 1))


def test_equal_items_come_in_the_order_of_their_numbers():
  """Also with values that are not whole, and lists in any order."""
  model = toy.Tokens()
  queries, items = toy.draw(5, 4, whole=False)
  items = {k: np.repeat(x, 3, 0) for k, x in items.items()}
  queries, items = toy.embed(model, queries, items)
  mesh = sharding.make_mesh()
  lists = np.array([np.random.default_rng(i).permutation(12) for i in range(5)])
  for by in ('item', 'query'):
    _, numbers = two_stage.rerank(
      model,
      mesh,
      toy.variables(model),
      queries,
      toy.stored(items, mesh),
      lists,
      by=by,
    )
    for row in numbers.reshape(5, 4, 3):
      assert (np.diff(row) == 1).all(), numbers


def test_order_puts_absent_items_last():
  scores, numbers = two_stage.order(
    np.array([[-np.inf, 1.0, 2.0, 2.0, -np.inf]]), np.array([[-1, 3, 9, 4, 0]])
  )
  assert numbers.tolist() == [[4, 9, 3, 0, -1]]
  assert scores.tolist() == [[2, 2, 1, -np.inf, -np.inf]]


@pytest.mark.parametrize('by', ['item', 'query'])
def test_another_block_compiles_nothing(by):
  model, queries, items, _ = problem(8, 16)
  rng = np.random.default_rng(0)
  mesh = sharding.make_mesh()
  where = toy.stored(items, mesh)
  program = programs.pairs(model, mesh, where.layout.dtypes)
  program = program.of_items if by == 'item' else program.of_queries
  sizes = []
  for i in range(4):
    # Evenly spread lists, then ever more of them about the same items.
    numbers = np.array([rng.permutation(16 >> i)[:2] for _ in range(8)])
    two_stage.fine_scores(
      model,
      mesh,
      toy.variables(model),
      queries,
      where,
      numbers,
      by=by,
      unit_bytes=200,
    )
    sizes.append(program._cache_size())
  assert len(set(sizes)) == 1


def test_items_are_read_about_once(monkeypatch):
  model, queries, items, fine = problem(40, 20)
  mesh = sharding.make_mesh()
  where = toy.stored(items, mesh)
  read = []
  take = where.take

  def look(index):
    read.extend(np.unique(index).tolist())
    return take(index)

  monkeypatch.setattr(where, 'take', look)
  numbers = np.array(
    [np.random.default_rng(i).permutation(20)[:10] for i in range(40)]
  )
  got = two_stage.fine_scores(
    model, mesh, toy.variables(model), queries, where, numbers
  )
  np.testing.assert_array_equal(got, np.take_along_axis(fine, numbers, 1))
  assert len(read) < 2.5 * 20 and len(numbers.reshape(-1)) == 400


def test_without_a_second_stage_fine_is_score():
  model = toy.OneStage()
  queries, items = toy.embed(model, *toy.draw(3, 5))
  mesh = sharding.make_mesh()
  got = two_stage.fine_scores(
    model,
    mesh,
    toy.variables(model),
    queries,
    toy.stored(items, mesh),
    np.tile(np.arange(5), (3, 1)),
  )
  np.testing.assert_array_equal(got, queries['q'] @ items['mean'].T)
  assert two_stage.split(items, model.COARSE) == (items, {})


def test_split_names_an_absent_key():
  assert two_stage.split({'a': 1, 'b': 2}, ('a',)) == ({'a': 1}, {'b': 2})
  with pytest.raises(ValueError, match=r"'video'.*\['a'\]"):
    two_stage.split({'a': 1}, ('video',))


@pytest.mark.parametrize(
  'numbers, message',
  [
    (np.full((7, 2), 23), 'item 23 .* of 23 items'),
    (np.zeros((6, 2), int), r'\(6, 2\) for 7 queries'),
  ],
)
def test_wrong_lists_are_explained(numbers, message):
  model, queries, items, _ = problem()
  with pytest.raises(ValueError, match=message):
    score(model, queries, items, numbers)


def test_empty_lists():
  model, queries, items, _ = problem()
  assert score(model, queries, items, np.zeros((7, 0), int)).shape == (7, 0)
  got = score(model, queries, items, np.full((7, 2), -1))
  assert (got == -np.inf).all()


def test_several_devices_give_the_same():
  code = """
import jax, numpy as np
from tests.search import test_two_stage as t, toy_two_stage as toy
from vidret_jax import sharding
from vidret_jax.search import two_stage
assert jax.device_count() == 4
model, queries, items, fine = t.problem(8, 23)
mesh, variables = sharding.make_mesh(), toy.variables(model)
for queries in (queries, sharding.put_batch(queries, mesh)):
  emb = sharding.put_batch(queries, mesh)
  _, lists = two_stage.shortlist(
    model, mesh, variables, emb, toy.banked(items, mesh), 7)
  for by, unit_bytes in t.WAYS:
    for budget in (0, 10**6):
      got = two_stage.fine_scores(
        model, mesh, variables, queries, toy.stored(items, mesh, budget=budget),
        lists, by=by, unit_bytes=unit_bytes)
      np.testing.assert_array_equal(got, np.take_along_axis(fine, lists, 1))
"""
  devices.run(4, '-c', code)


# ---------------------------------------------------------------------- store


@pytest.mark.parametrize('budget', [0, 10**6])
def test_items_come_back_bit_for_bit(budget, tmp_path):
  _, _, items, _ = problem(whole=False)
  mesh = sharding.make_mesh()
  for path in (None, tmp_path / 'rows'):
    where = toy.stored(items, mesh, budget=budget, path=path)
    assert len(where) == where.rows == 23
    assert (where.resident is not None) == (budget > 0)
    index = np.array([22, 0, 0, 5, 22])
    got = where.take(index)
    assert jax.tree.structure(got) == jax.tree.structure(items)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(items)):
      assert a.dtype == b.dtype
      np.testing.assert_array_equal(a, b[index])
    assert where.take(np.zeros(0, int))['mean'].shape == (0, 4)
    for wrong in (-1, 23):
      with pytest.raises(IndexError):
        where.take(np.array([wrong]))


def test_a_store_refuses_other_blocks():
  _, _, items, _ = problem()
  where = toy.stored(items, sharding.make_mesh())
  block = next(toy.blocks(items, 4))
  with pytest.raises(ValueError, match='4 items after the 23'):
    where.append(block)
  where = store.FineStore(23, sharding.make_mesh(), 0)
  with pytest.raises(ValueError, match='empty'):
    _ = where.layout
  where.append(block)
  for wrong in (
    {**block, 'mean': block['mean'][:, :3]},
    {**block, 'mean': block['mean'].astype(np.float16)},
    {'mean': block['mean']},
  ):
    with pytest.raises(ValueError, match='embedding .*(mean|deep)'):
      where.append(wrong)
  with pytest.raises(ValueError, match="'int8'.*float16"):
    row_layout.layout_of(block, 'int8')


def test_a_full_disk_is_explained():
  """With a limit on the size of files, as a full disk would refuse."""
  code = """
import resource, signal
from tests.search import test_two_stage as t, toy_two_stage as toy
from vidret_jax import sharding
_, _, items, _ = t.problem()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
  toy.stored(items, sharding.make_mesh())
except OSError as e:
  assert e.errno and 'TMPDIR' in str(e) and '23 items' in str(e), str(e)
  raise SystemExit(7)
"""
  done = subprocess.run([sys.executable, '-c', code], capture_output=True)
  assert done.returncode == 7, done.stderr.decode()
