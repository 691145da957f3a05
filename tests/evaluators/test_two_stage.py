# SPDX-License-Identifier: Apache-2.0
"""Two stages in blocks against the same by brute force; options; errors."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluators import page_reader
from tests.evaluators.two_stage_problem import Arrays, Problem
from tests.search import toy_two_stage as toy
from vidret_jax import sharding
from vidret_jax.evaluators import non_finite, two_stage, two_stage_options
from vidret_jax.metrics import caption_ranks, rerank
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.models import eercf


def two_keys(coarse, fine, listed):
  """[q, v] numbers that sort as (listed, score) pairs do."""
  return np.where(listed, fine.astype(np.float64) + 10_000, coarse)


def nearest(coarse, k):
  """bool [q, v], the k largest of each row; equal ones by column."""
  order = np.argsort(-coarse, 1, kind='stable')[:, :k]
  listed = np.zeros(coarse.shape, bool)
  np.put_along_axis(listed, order, True, 1)
  return listed


def brute_force(p, k, v2t, captions, ties):
  """Zero-based ranks (text, video) from whole matrices."""
  by_text = two_keys(p.coarse, p.fine, nearest(p.coarse, k))
  by_video = by_text
  if v2t == 'per_video_topk':
    # Equal texts: captions of one item stand side by side.
    order = np.argsort(p.item, kind='stable')
    listed = np.empty(p.coarse.shape, bool)
    listed[order] = nearest(p.coarse[order].T, k).T
    by_video = two_keys(p.coarse, p.fine, listed)
  return (
    ranks_lib.text_to_video(by_text, p.item, ties),
    ranks_lib.video_to_text(by_video, p.item, ties, captions),
  )


BLOCKS = [
  dict(query_block=7, item_block=3, bank_bytes=0, fine_bytes=0),
  dict(query_block=16, item_block=50, bank_bytes=300),
  {},
]


@pytest.mark.parametrize('k', [1, 4, 0])
@pytest.mark.parametrize('blocks', BLOCKS)
def test_blocks_rank_as_the_matrix_does(k, blocks):
  p = Problem()
  for v2t, captions, ties in itertools.product(
    two_stage_options.V2T, ranks_lib.V2T, ranks_lib.TIES
  ):
    judge = p.judge(k=k, v2t=v2t, captions=captions, ties=ties, **blocks)
    got = judge.run(p.variables)
    text, video = brute_force(p, k or 17, v2t, captions, ties)
    where = f'{v2t} {captions} {ties}'
    np.testing.assert_array_equal(judge.ranks.text, text, where)
    np.testing.assert_array_equal(judge.ranks.video, video, where)
    coarse = (
      ranks_lib.text_to_video(p.coarse, p.item, ties),
      ranks_lib.video_to_text(p.coarse, p.item, ties, captions),
    )
    np.testing.assert_array_equal(judge.coarse_ranks.text, coarse[0], where)
    np.testing.assert_array_equal(judge.coarse_ranks.video, coarse[1], where)
    for prefix, pair in (('', (text, video)), ('coarse_', coarse)):
      for direction, ranks in zip(('t2v', 'v2t'), pair):
        for name, value in ranks_lib.summary(ranks).items():
          assert got[f'{prefix}{direction}_{name}'] == value
    assert got['t2v_rsum'] == sum(got[f't2v_R@{n}'] for n in (1, 5, 10))
    listed = nearest(p.coarse, k or 17)[np.arange(37), p.item]
    assert got['t2v_shortlisted'] == 100 * listed.mean()


@pytest.mark.parametrize('v2t', two_stage_options.V2T)
def test_all_items_as_candidates_is_the_fine_score_alone(v2t):
  p = Problem(seed=3)
  judge = p.judge(k=100, v2t=v2t, query_block=8, item_block=8)
  judge.run(p.variables)
  np.testing.assert_array_equal(
    judge.ranks.text, ranks_lib.text_to_video(p.fine, p.item)
  )
  np.testing.assert_array_equal(
    judge.ranks.video, ranks_lib.video_to_text(p.fine, p.item)
  )


def test_a_second_stage_that_changes_nothing():
  p = Problem(model=toy.OneStage())
  judge = p.judge(k=5, ties='best')
  got = judge.run(p.variables)
  # Candidates that tie with a video that just missed the list come before it.
  assert (judge.ranks.text >= judge.coarse_ranks.text).all()
  inside = judge.coarse_ranks.text < 4
  np.testing.assert_array_equal(
    judge.ranks.text[inside], judge.coarse_ranks.text[inside]
  )
  assert got['t2v_R@1'] == got['coarse_t2v_R@1']


def test_half_precision_keeps_the_first_stage():
  p = Problem()
  full, half = p.judge(k=4), p.judge(k=4, fine_dtype='float16', fine_bytes=0)
  # Whole numbers this small are exact in half precision.
  assert full.run(p.variables) == half.run(p.variables)


def test_nothing_is_compiled_between_blocks_or_for_other_weights(compilations):
  p = Problem(model=toy.Tokens(width=5), q=40, v=16)
  options = dict(k=3, query_block=8, item_block=8, fine_bytes=0)
  other = jax.tree.map(lambda x: x * 2, p.variables)
  more = Problem(model=p.model, q=56, v=16, seed=1)
  before = len(compilations)
  for v2t in two_stage_options.V2T:
    p.judge(v2t=v2t, **options).run(p.variables)
    judged = len(compilations)
    assert judged > before
    p.judge(v2t=v2t, **options).run(other)
    assert len(compilations) == judged
  # More queries are more blocks of the same shape.
  more.judge(**options).run(p.variables)
  assert len(compilations) == judged


def test_what_cannot_be_read_is_ranked_last_and_named():
  p = Problem()
  frames = np.ones((17, 2), bool)
  frames[[3, 5]] = False
  p.items.add('frame_mask', frames)
  p.items.unreadable = {'v5': 'no such file'}
  for options in (dict(k=4), dict(k=17), dict(k=4, v2t='per_video_topk')):
    judge = p.judge(query_block=8, item_block=8, ties='worst', **options)
    judge.run(p.variables)
    assert judge.caveats == (
      '2 of 17 videos unreadable: v3, v5 (no such file); ranked last.',
    )
    lost = np.isin(p.item, [3, 5])
    assert (judge.ranks.text[lost] == 16).all()
    # The others rank as if the two did not exist.
    rest = Problem()
    left = np.setdiff1d(np.arange(17), [3, 5])
    rest.item = np.searchsorted(left, p.item[~lost])
    rest.coarse, rest.fine = (x[~lost][:, left] for x in (p.coarse, p.fine))
    k = min(options['k'], 15)
    text, _ = brute_force(rest, k, 'from_t2v', 'best_caption', 'worst')
    np.testing.assert_array_equal(judge.ranks.text[~lost], text)
    # Every text ties for a video that nobody has seen.
    assert (judge.ranks.video[[3, 5]] == 36).all()


class Rooted(toy.Tokens):
  """Its second stage fails for items whose first number is below -5."""

  def fine(self, q, v):
    first = v['deep']['tokens'][:, 0, 0]
    return super().fine(q, v) + jnp.sqrt(first + 5)


@pytest.mark.parametrize('v2t', two_stage_options.V2T)
def test_a_fine_score_that_is_not_finite_names_its_ids(v2t):
  p = Problem(model=Rooted())
  p.items.arrays['tokens'][6, 0, 0] = -6
  judge = p.judge(k=17, query_block=8, v2t=v2t)
  with pytest.raises(
    non_finite.NonFiniteScore, match="'q.*' and 'v6' is nan.*37 such"
  ):
    judge.run(p.variables)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(topk=3), "no option 'topk'; known are data, queries, items, k"),
    (dict(k=-1), 'k=-1: expected 0'),
    (dict(mode='fast'), "mode='fast': expected one of native, upstream"),
    (dict(v2t='topk'), "v2t='topk': expected one of from_t2v"),
    (dict(captions='all'), "captions='all'"),
    (dict(form='cube'), "form='cube'"),
    (dict(form='square'), "form='square' is for mode='upstream' only"),
    (dict(sim_matrix='x.npy'), "sim_matrix='x.npy' is for mode='upstream'"),
    (dict(dual_softmax=0), 'dual_softmax=0: expected a positive'),
    (dict(mode='upstream'), 'Tokens does not have'),
  ],
)
def test_bad_options_are_explained(options, message):
  with pytest.raises(ValueError, match=message):
    Problem().judge(**options)


@pytest.mark.parametrize('blocks', BLOCKS)
def test_dual_softmax_weighs_both_stages(blocks):
  p = Problem()
  tau = 2.0
  judge = p.judge(k=4, dual_softmax=tau, ties='best', **blocks)
  got = judge.run(p.variables)
  plain = p.judge(k=4, ties='best').run(p.variables)
  assert {k: got[k] for k in plain} == plain
  coarse = p.coarse.astype(np.float64)
  weight = np.exp(coarse / tau)
  weight *= len(coarse) / weight.sum(0)
  np.testing.assert_allclose(
    coarse * weight, rerank.dual_softmax(coarse, tau), rtol=1e-12
  )
  # Scores near each other change places by rounding: compare the medians.
  weighed = two_keys(
    coarse * weight, p.fine * weight, nearest(coarse * weight, 4)
  )
  want = ranks_lib.summary(ranks_lib.text_to_video(weighed, p.item, 'best'))
  assert got['dual_softmax_t2v_MnR'] == pytest.approx(want['MnR'], abs=0.2)
  assert got['dual_softmax_t2v_R@5'] == pytest.approx(want['R@5'], abs=3)


class Levels(toy.Tokens):
  """The toy with five levels of scores, as EERCF has them."""

  rank_weights: tuple = tuple(rerank.FINAL.items())
  loss_weights: tuple = (
    ('weak', 0.8),
    ('strong', 0.2),
    ('video', 0.5),
    ('frame_weak', 0.5),
    ('patch_weak', 0.05),
    ('frame_strong', 1.0),
    ('patch_strong', 0.0),
  )

  def levels(self, q, v, names):
    score, fine = self.score(q, v), super().fine(q, v)
    every = dict(
      video=score,
      frame_weak=fine,
      frame_strong=fine - score,
      patch_weak=score + 2 * fine,
    )
    return {n: every[n] for n in names}

  def fine(self, q, v):
    weights = dict(self.rank_weights)
    levels = self.levels(q, v, tuple(weights))
    return sum(w * levels[n] for n, w in weights.items())


@pytest.mark.parametrize('k', [0, 3, 40])
def test_upstreams_evaluation_of_the_same_matrices(k):
  p = Problem(model=Levels())
  options = dict(mode='upstream', k=k, query_block=8, item_block=8)
  judge = p.judge(dual_softmax=1.5, **options)
  got = judge.run(p.variables)
  fine = toy.Tokens()
  emb = toy.embed(fine, *(x.arrays for x in (p.queries, p.items)))
  fine = fine.apply(toy.variables(fine), *emb, method='fine')
  levels = dict(
    video=p.coarse,
    frame_weak=np.asarray(fine),
    frame_strong=np.asarray(fine) - p.coarse,
    patch_weak=p.coarse + 2 * np.asarray(fine),
  )
  fused = rerank.fuse_groups(levels)
  final = rerank.two_pass(p.coarse, fused, levels, k)
  np.testing.assert_allclose(judge.matrices.final, final, atol=2e-5)
  for prefix, sims in (('', final), ('coarse_', p.coarse)):
    want = caption_ranks.evaluate(sims, p.item)
    for direction, row in want.items():
      for name, value in row.items():
        assert got[f'{prefix}{direction}_{name}'] == pytest.approx(value)
  dual = rerank.put(
    rerank.dual_softmax(p.coarse, 1.5),
    rerank.dual_softmax(fused, 1.5) + np.float32(100),
    k,
  )
  np.testing.assert_allclose(
    judge.matrices.dual_softmax(k, 1.5), dual, atol=1e-3
  )


def test_upstreams_evaluation_refuses_scores_without_a_rank():
  p = Problem(model=Levels())
  p.items.arrays['tokens'][6, 0, 0] = np.nan
  with pytest.raises(
    non_finite.NonFiniteScore, match="'q0' and item 'v6' is nan"
  ):
    p.judge(mode='upstream', k=4).run(p.variables)


def test_upstreams_evaluation_ranks_what_cannot_be_read_last():
  p = Problem(model=Levels(), q=16, v=17)
  p.item = np.arange(16)
  p.queries.item = p.item
  frames = np.ones((17, 2), bool)
  frames[[3, 5]] = False
  p.items.add('frame_mask', frames)
  judge = p.judge(mode='upstream', k=4)
  got = judge.run(p.variables)
  assert judge.ranks.text[3] == judge.ranks.text[5] == 16
  assert all(np.isfinite(x) for x in got.values())
  assert 'v3, v5' in judge.caveats[0]
  with pytest.raises(ValueError, match='needs one caption per video.*16 has 0'):
    p.judge(mode='upstream', form='square').run(p.variables)
  square = Problem(model=Levels(), q=17, v=17)
  square.queries.item = np.random.default_rng(0).permutation(17)
  got = square.judge(mode='upstream', k=4, form='square').run(square.variables)
  assert 0 < got['t2v_rsum'] <= 300


@pytest.mark.parametrize('lost', [False, True])
def test_eercf_in_blocks_is_eercf_in_one_piece(lost):
  """The real system, on noise: its scores are all different."""
  sizes = dict(
    vision_width=64,
    vision_layers=1,
    patch=8,
    image_size=16,
    text_width=64,
    text_layers=1,
    context=8,
    vocab=40,
    dim=64,
  )
  model = eercf.make(clip=sizes, max_frames=3, temporal_layers=1)
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (11, 3, 16, 16, 3), dtype=np.uint8)
  mask = np.arange(3) < rng.integers(1, 4, 11)[:, None]
  mask[4] &= not lost
  text = np.zeros((20, 8), np.int32)
  text[:, 0], text[:, 4] = 38, 39
  text[:, 1:4] = rng.integers(1, 38, (20, 3))
  item = rng.permutation(np.arange(20) % 11)
  ids = [f'v{i}' for i in range(11)]
  items = Arrays(dict(frames=frames, frame_mask=mask), ids, videos=[None] * 11)
  queries = Arrays(
    dict(text=text), [f'q{i}' for i in range(20)], item=item, texts=[''] * 20
  )
  batch = dict(text=text[:11], frames=frames, frame_mask=mask)
  init = functools.partial(model.init, step=0, train=False, method='loss')
  variables = jax.jit(init)(jax.random.key(0), batch)

  @jax.jit
  def scores(variables):
    return model.apply(
      variables,
      dict(text=text),
      dict(frames=frames, frame_mask=mask),
      method=lambda m, q, v: [
        score(m.encode_query(q), m.encode_item(v))
        for score in (m.score, m.fine)
      ],
    )

  coarse, fine = (np.array(x) for x in scores(variables))
  coarse[:, ~mask.any(1)] = fine[:, ~mask.any(1)] = -1e6
  listed = nearest(coarse, 4)
  want = ranks_lib.text_to_video(two_keys(coarse, fine, listed), item)
  for dtype in (None, 'bfloat16'):
    judge = two_stage.Evaluator(
      model,
      sharding.make_mesh(),
      queries=queries,
      items=items,
      k=4,
      query_block=8,
      item_block=4,
      fine_bytes=0,
      fine_dtype=dtype,
    )
    got = judge.run(variables)
    if dtype is None:
      np.testing.assert_array_equal(judge.ranks.text, want)
    np.testing.assert_array_equal(
      judge.coarse_ranks.text, ranks_lib.text_to_video(coarse, item)
    )
    assert len(judge.caveats) == lost
    assert got['rerank_mflop_per_query'] < got['all_pairs_mflop_per_query']


def test_costs_of_the_stages():
  p = Problem()
  got = p.judge(k=4, count_costs=True).run(p.variables)
  width, tokens = 4, 3
  # A product takes two operations; other ones are few but there.
  coarse = 2 * 17 * width / 1e6
  assert got['coarse_mflop_per_query'] == pytest.approx(coarse, rel=0.1)
  pair = 2 * (tokens + 1) * width / 1e6
  for name, pairs in (('rerank', 4), ('all_pairs', 17)):
    flops = got[f'{name}_mflop_per_query']
    assert pairs * pair <= flops < 3 * pairs * pair
    assert got[f'{name}_mb_per_query'] > pairs * tokens * width * 4 / 1e6
  spent = got['coarse_mflop_per_query'] + got['rerank_mflop_per_query']
  share = 100 * spent / got['all_pairs_mflop_per_query']
  assert got['mflop_share'] == pytest.approx(share)


@pytest.mark.parametrize('options', [dict(k=3), dict(mode='upstream', k=8)])
def test_the_page_shows_both_stages(options, tmp_path):
  p = Problem(model=Levels())
  judge = p.judge(count_costs=True, num_samples=9, title='Stages', **options)
  page = judge.report(p.variables, tmp_path)
  text = page_reader.parse(page).text
  assert 'coarse score of all 17' in text
  assert f'fine score of the best {options["k"]}' in text
  shown = json.loads((tmp_path / 'rankings.json').read_text())
  assert len(shown['rows']) == 9
  coarse_place = np.argsort(np.argsort(-p.coarse, 1, kind='stable'), 1)
  if 'mode' in options:
    final = judge.matrices.final
  else:
    final = two_keys(p.coarse, p.fine, nearest(p.coarse, 3))
  for row in shown['rows']:
    query = p.queries.ids.index(row['query'])
    best = np.argsort(-final[query], kind='stable')[:5]
    assert [c['id'] for c in row['top']] == [f'v{i}' for i in best]
    places = coarse_place[query, best] + 1
    assert [c['coarse_rank'] for c in row['top']] == places.tolist()
    assert row['rank'] == judge.ranks.text[query] + 1
    assert row['coarse_rank'] == judge.coarse_ranks.text[query] + 1
  table = shown['table']['t2v']
  assert table['R@1'] == judge.run(p.variables)['t2v_R@1']
