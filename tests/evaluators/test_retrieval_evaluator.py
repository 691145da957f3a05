# SPDX-License-Identifier: Apache-2.0
"""Ranks by blocks against ranks of whole matrices; options; errors."""

import functools

import jax
import numpy as np
import pytest

from tests.evaluators import toy
from vidret_jax import sharding
from vidret_jax.evaluators import matrix, mean_loss, non_finite, retrieval
from vidret_jax.evaluators.hiding import Hiding
from vidret_jax.metrics import ranks as ranks_lib


def judge(model, queries, items, **options):
  return retrieval.Evaluator(
    model, sharding.make_mesh(), queries=queries, items=items, **options
  )


def matrix_judge(sims, item, **options):
  model, variables = matrix.retriever(sims)
  queries, items = matrix.sources(item, [f'v{i}' for i in range(sims.shape[1])])
  return judge(model, queries, items, **options), variables


def whole_matrix(model, variables, queries, items):
  """[q, v] scores of one call."""
  rows, cols = np.arange(len(queries)), np.arange(len(items))

  @jax.jit
  def score(query_batch, item_batch):
    q = model.apply(variables, query_batch, method='encode_query')
    v = model.apply(variables, item_batch, method='encode_item')
    return model.apply(variables, q, v, method='score')

  return np.asarray(score(queries.gather(rows, rows), items.gather(cols, cols)))


@pytest.mark.parametrize('ties', ranks_lib.TIES)
@pytest.mark.parametrize('v2t', ranks_lib.V2T)
@pytest.mark.parametrize(
  'blocks',
  [
    dict(query_block=7, item_block=3, bank_bytes=0),
    dict(query_block=16, item_block=50, bank_bytes=100),
    {},
  ],
)
def test_blocks_count_what_the_matrix_says(ties, v2t, blocks):
  rng = np.random.default_rng(5)
  sims = rng.integers(-3, 4, (41, 19)).astype(np.float32)
  item = rng.permutation(np.arange(41) % 17)  # Items 17 and 18 lack captions.
  evaluator, variables = matrix_judge(sims, item, ties=ties, v2t=v2t, **blocks)
  got = evaluator.run(variables)
  text = ranks_lib.text_to_video(sims, item, ties)
  video = ranks_lib.video_to_text(sims, item, ties, v2t)
  np.testing.assert_array_equal(evaluator.ranks.text, text)
  np.testing.assert_array_equal(evaluator.ranks.video, video)
  assert np.isinf(video).sum() == 2
  want = {
    f'{d}_{k}': x
    for d, r in (('t2v', text), ('v2t', video))
    for k, x in ranks_lib.summary(r).items()
  }
  assert got == want


@pytest.mark.parametrize(
  'options', [{}, dict(gating='none'), dict(availability='legacy_2019')]
)
def test_ce_in_blocks_is_ce_in_one_piece(options):
  model, variables, queries, items = toy.build(**options)
  evaluator = judge(
    model, queries, items, query_block=16, item_block=8, bank_bytes=1000
  )
  evaluator.run(variables)
  sims = whole_matrix(model, variables, queries, items)
  np.testing.assert_array_equal(
    evaluator.ranks.text, ranks_lib.text_to_video(sims, queries.item)
  )
  np.testing.assert_array_equal(
    evaluator.ranks.video, ranks_lib.video_to_text(sims, queries.item)
  )


def test_numbers_of_the_leaky_rule_are_marked():
  model, variables, queries, items = toy.build(availability='legacy_2019')
  evaluator = judge(model, queries, items)
  got = evaluator.run(variables)
  assert got and all(name.endswith('_leaky2019') for name in got)
  assert any('leaks the answer' in text for text in evaluator.caveats)
  pairs = toy.Pairs(items, queries)
  loss = mean_loss.Evaluator(
    model, sharding.make_mesh(), pairs=pairs, batch_size=8
  ).run(variables)
  assert set(loss) == {'loss_leaky2019', 'ranking_leaky2019'}
  fair = judge(*(toy.build()[i] for i in (0, 2, 3)))
  assert not fair.caveats and 't2v_R@1' in fair.run(toy.build()[1])


def test_nothing_is_compiled_after_the_first_evaluation(compilations):
  model, variables, queries, items = toy.build(margin=0.31)
  options = dict(query_block=8, item_block=8, bank_bytes=500)
  judge(model, queries, items, **options).run(variables)
  assert len(compilations) >= 5  # Two encoders, score, own scores, counts.
  # Other weights, and another evaluator of the same module.
  params = jax.tree.map(lambda x: x * 1.5, variables['params'])
  judged = len(compilations)
  evaluator = judge(model, queries, items, **options)
  evaluator.run(dict(variables, params=params))
  evaluator.run(variables)
  assert len(compilations) == judged


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_score_that_is_not_finite_names_its_ids(value):
  sims = np.zeros((9, 5), np.float32)
  sims[7, 3] = value
  evaluator, variables = matrix_judge(
    sims, np.arange(9) % 5, query_block=4, item_block=2
  )
  with pytest.raises(non_finite.NonFiniteScore, match=r"'v2#1' and item 'v3'"):
    evaluator.run(variables)


def test_a_video_without_experts_is_an_error_or_last():
  model, variables, queries, items = toy.build()
  items.available[4] = False
  with pytest.raises(
    non_finite.NonFiniteScore, match="clip4.*no_expert='last'"
  ):
    judge(model, queries, items).run(variables)
  evaluator = judge(model, queries, items, no_expert='last')
  evaluator.run(variables)
  own = queries.item == 4
  assert (evaluator.ranks.text[own] == len(items) - 1).all()
  # The others rank as if it did not exist.
  sims = np.delete(whole_matrix(model, variables, queries, items), 4, 1)
  rest = queries.item[~own]
  want = ranks_lib.text_to_video(sims[~own], rest - (rest > 4))
  np.testing.assert_array_equal(evaluator.ranks.text[~own], want)
  # All queries tie for it: it stands in the middle.
  assert evaluator.ranks.video[4] == (len(queries) - 1) / 2


def test_hidden_experts_do_not_count():
  model, variables, queries, items = toy.build()
  hidden = judge(
    model, queries, items, drop_experts=('audio', 'scene.net'), no_expert='last'
  )
  got = hidden.run(variables)
  bare = toy.Items()
  bare.available[:, [0, 2]] = False
  assert got == judge(model, queries, bare, no_expert='last').run(variables)
  only = judge(
    model,
    queries,
    items,
    only_experts=('face', 'scene.other'),
    no_expert='last',
  )
  assert only.run(variables) == got


def test_random_hiding_depends_on_seed_and_video_only():
  names = ('a', 'b', 'c')
  available = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0]] * 50, bool)
  video = np.arange(200)
  hide = Hiding(names, rate=0.5, seed=3)
  got = hide.apply(available, video)
  np.testing.assert_array_equal(got & ~available, False)
  np.testing.assert_array_equal(got.any(1), available.any(1))  # One stays.
  share = got[::4].mean()
  assert 0.45 < share < 0.65
  order = np.random.default_rng(0).permutation(200)
  np.testing.assert_array_equal(hide.apply(available[order], order), got[order])
  other = Hiding(names, rate=0.5, seed=4).apply(available, video)
  assert (other != got).any()
  np.testing.assert_array_equal(
    Hiding(names, rate=1.0).apply(available, video).sum(1), available.any(1)
  )
  # A smaller rate hides a part of what a larger one hides.
  less = Hiding(names, rate=0.2, seed=3).apply(available, video)
  np.testing.assert_array_equal(less & got, got)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(quer_block=3), "no option 'quer_block'; known are data, queries"),
    (dict(ties='first'), "ties='first': expected one of mean, best, worst"),
    (dict(v2t='pool'), "v2t='pool'"),
    (dict(no_expert='skip'), "no_expert='skip'"),
    (dict(videos='move'), "videos='move'"),
    (dict(drop_experts=('sound',)), "'sound'; this dataset has audio, face"),
    (dict(drop_rate=2), 'drop_rate=2'),
  ],
)
def test_bad_options_are_explained(options, message):
  model, _, queries, items = toy.build()
  with pytest.raises(ValueError, match=message):
    judge(model, queries, items, **options)


def test_experts_cannot_be_hidden_where_there_are_none():
  with pytest.raises(ValueError, match='need items with `experts`'):
    matrix_judge(np.eye(2), np.arange(2), drop_rate=0.5)


def test_data_must_be_named():
  model, *_ = toy.build()
  with pytest.raises(ValueError, match='needs `data`, or both'):
    retrieval.Evaluator(model, sharding.make_mesh())
  with pytest.raises(ValueError, match='needs a `name`'):
    retrieval.Evaluator(model, sharding.make_mesh(), data=dict(split='x'))
  with pytest.raises(ValueError, match="no dataset 'nothing_like_it'"):
    retrieval.Evaluator(
      model, sharding.make_mesh(), data=dict(name='nothing_like_it')
    )


def test_no_queries_is_an_error():
  evaluator, variables = matrix_judge(np.zeros((0, 3)), np.zeros(0, int))
  with pytest.raises(ValueError, match='no queries'):
    evaluator.run(variables)


def test_captions_that_do_not_fit_a_block_cannot_be_pooled():
  evaluator, variables = matrix_judge(
    np.zeros((9, 2), np.float32),
    np.zeros(9, int),
    query_block=4,
    v2t='max_pool',
  )
  with pytest.raises(ValueError, match='query_block=9 or more'):
    evaluator.run(variables)


def test_mean_loss_weighs_batches_by_their_rows():
  model, variables, queries, items = toy.build()
  pairs = toy.Pairs(items, queries)
  got = mean_loss.Evaluator(
    model, sharding.make_mesh(), pairs=pairs, batch_size=10
  ).run(variables)
  apply = jax.jit(
    functools.partial(model.apply, step=0, train=False, method='loss')
  )
  want = 0.0
  for start in (0, 10, 20):
    index = np.arange(start, min(start + 10, 23))
    loss, _ = apply(variables, pairs.gather(index, index))
    want += float(loss) * len(index) / 23
  assert got['loss'] == pytest.approx(want, abs=1e-6)
  assert got['ranking'] == got['loss']
  # 23 = 2 x 11 + 1: the last row has no negatives and is left out.
  short = mean_loss.Evaluator(
    model, sharding.make_mesh(), pairs=pairs, batch_size=11
  ).run(variables)
  assert np.isfinite(short['loss'])


def test_mean_loss_explains_its_errors():
  model, variables, queries, items = toy.build()
  mesh = sharding.make_mesh()
  with pytest.raises(ValueError, match="no option 'batch'"):
    mean_loss.Evaluator(model, mesh, batch=3)
  with pytest.raises(ValueError, match='needs `data` or `pairs`'):
    mean_loss.Evaluator(model, mesh)
  broken = jax.tree.map(lambda x: x * np.nan, variables)
  with pytest.raises(ValueError, match="'clip0' on"):
    mean_loss.Evaluator(
      model, mesh, pairs=toy.Pairs(items, queries), batch_size=8
    ).run(broken)
