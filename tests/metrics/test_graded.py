# SPDX-License-Identifier: Apache-2.0
"""nDCG, mAP and recall against loops, scikit-learn and ranx."""

import numpy as np
import pytest

from vidret_jax.metrics import blocks, graded

CASES = (
  *('plain', 'ties', 'constant', 'float64', 'empty_rows'),
  *('sparse', 'sparse_ties', 'sparse_float64', 'irrelevant'),
)


def case(name, q=13, v=17, seed=0):
  """(scores, relevance, answers)."""
  rng = np.random.default_rng(seed)
  sim = rng.standard_normal((q, v)).astype(np.float32)
  if name in ('ties', 'sparse_ties'):
    sim = rng.integers(-2, 3, (q, v)).astype(np.float32) * np.float32(0.25)
    sim[0, :5] = [0.0, -0.0, 0.0, -0.0, 0.0]
  if name == 'constant':
    sim[:] = -0.5
  if name.endswith('float64'):
    sim = sim.astype(np.float64) + 1e-12
  levels = np.array([0, 0, 0.25, 0.5, 1], np.float32)
  relevance = levels[rng.integers(0, 5, (q, v))]
  if name.startswith('sparse'):
    relevance *= rng.random((q, v)) < 0.15
  if name == 'irrelevant':
    relevance[:] = 0
  answers = [np.flatnonzero(rng.random(v) < 0.2) for _ in range(q)]
  if name == 'empty_rows':
    relevance[2] = 0
    relevance[:, 3] = 0
    relevance[4] = np.minimum(relevance[4], 0.5)
    answers[5] = np.zeros(0, np.int64)
  return sim, relevance, answers


def falling(scores, higher_first):
  """Best first, by the rule for equal scores."""
  sign = -1 if higher_first else 1
  return sorted(range(len(scores)), key=lambda i: (-scores[i], sign * i))


def naive_ndcg(scores, relevance):
  k = int((relevance > 0).sum())
  discount = 1 / np.log2(np.arange(2, k + 2))
  found = relevance[falling(scores, True)][:k].astype(np.float64) @ discount
  ideal = np.sort(relevance)[::-1][:k].astype(np.float64) @ discount
  return found / ideal if k else 0.0


def naive_ap(scores, relevance, binary):
  g = relevance[falling(scores, False)].astype(np.float64)
  gain = (g == 1).astype(np.float64) if binary else g
  total = sum(gain[: t + 1].sum() / (t + 1) for t in np.flatnonzero(g == 1))
  return total / max(1, (g == 1).sum())


def naive_rank(scores, right):
  order = falling(scores, False)
  return min((order.index(i) for i in right), default=len(scores))


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('block', [1, 40, 2**18])
def test_loops_give_the_same(name, block, monkeypatch):
  monkeypatch.setattr(blocks, 'BLOCK', block)
  sim, relevance, answers = case(name)
  sides = (
    (graded.judge(sim, relevance), sim, relevance),
    (graded.judge_columns(sim, relevance), sim.T, relevance.T),
  )
  for judged, s, r in sides:
    want = [
      [naive_ndcg(*x) for x in zip(s, r)],
      [naive_ap(*x, False) for x in zip(s, r)],
      [naive_ap(*x, True) for x in zip(s, r)],
    ]
    np.testing.assert_allclose(judged, want, atol=1e-12)
  text, video = graded.recall_ranks(sim, answers)
  assert text.tolist() == [naive_rank(*x) for x in zip(sim, answers)]
  asked = [[i for i, a in enumerate(answers) if j in a] for j in range(17)]
  assert video.tolist() == [naive_rank(*x) for x in zip(sim.T, asked)]


def test_files_mapped_into_memory(tmp_path, monkeypatch):
  monkeypatch.setattr(blocks, 'BLOCK', 64)
  monkeypatch.setattr(blocks, 'PANEL', 4 * 13 * 16)
  sim, relevance, answers = case('ties', v=50)
  mapped = []
  for name, x in (('sim', sim), ('relevance', relevance)):
    np.save(tmp_path / f'{name}.npy', x)
    mapped.append(np.load(tmp_path / f'{name}.npy', mmap_mode='r'))
  for judge in (graded.judge, graded.judge_columns):
    for got, want in zip(judge(*mapped), judge(sim, relevance)):
      np.testing.assert_array_equal(got, want)
  for got, want in zip(
    graded.recall_ranks(mapped[0], answers), graded.recall_ranks(sim, answers)
  ):
    np.testing.assert_array_equal(got, want)


def test_graded_precision_by_hand():
  sim = np.array([[0.9, 0.8, 0.7, 0.6]], np.float32)
  relevance = np.array([[0.5, 1, 0.25, 1]], np.float32)
  judged = graded.judge(sim, relevance)
  # Places 2 and 4: (1.5 / 2 + 2.75 / 4) / 2; of ones only (1/2 + 2/4) / 2.
  assert judged.ap == [0.71875] and judged.ap_binary == [0.5]


def test_scikit_learn_where_definitions_meet():
  metrics = pytest.importorskip('sklearn.metrics')
  sim, relevance, _ = case('plain', q=20, v=30)
  judged = graded.judge(sim, relevance)
  for s, r, ndcg, binary in zip(sim, relevance, judged.ndcg, judged.ap_binary):
    k = int((r > 0).sum())
    want = metrics.ndcg_score([r], [s], k=k, ignore_ties=True)
    assert ndcg == pytest.approx(want, abs=1e-9)
    want = metrics.average_precision_score(r == 1, s)
    assert binary == pytest.approx(want, abs=1e-9)
  # Graded and binary precision are one where relevance is 0 or 1.
  ones = (relevance == 1).astype(np.float32)
  np.testing.assert_array_equal(*graded.judge(sim, ones)[1:])


@pytest.mark.slow  # Numba compiles for long.
def test_ranx_where_definitions_meet():
  ranx = pytest.importorskip('ranx')
  k, v = 6, 24
  rng = np.random.default_rng(3)
  sim = rng.permuted(np.tile(np.arange(v), (12, 1)), axis=1).astype(np.float32)
  relevance = np.zeros_like(sim)
  relevance[:, :k] = 1  # ranx takes whole gains.
  relevance = rng.permuted(relevance, axis=1)
  run = ranx.Run(
    {
      f'q{i}': {f'v{j}': float(s) for j, s in enumerate(x)}
      for i, x in enumerate(sim)
    }
  )
  right = [np.flatnonzero(x) for x in relevance]
  known = ranx.Qrels(
    {f'q{i}': {f'v{j}': 1 for j in x} for i, x in enumerate(right)}
  )
  names = [f'ndcg@{k}', 'map', 'hit_rate@1', 'hit_rate@5', 'hit_rate@10']
  want = ranx.evaluate(known, run, names)
  judged = graded.judge(sim, relevance)
  row = graded.recalls(graded.recall_ranks(sim, right)[0])
  got = [judged.ndcg.mean(), judged.ap.mean()]
  got += [row[f'R@{n}'] / 100 for n in (1, 5, 10)]
  np.testing.assert_allclose(got, list(want.values()), atol=1e-6)


def test_summary_is_percent():
  sim, relevance, answers = case('empty_rows')
  ranks = graded.recall_ranks(sim, answers)
  judged = graded.judge(sim, relevance), graded.judge_columns(sim, relevance)
  got = graded.summary(ranks, judged, binary=True)
  assert got['rsum'] == sum(x for name, x in got.items() if '@' in name)
  assert got['t2v_nDCG'] == 100 * judged[0].ndcg.mean()
  assert got['v2t_mAP_binary'] == 100 * judged[1].ap_binary.mean()
  assert got['mAP_avg'] == (got['t2v_mAP'] + got['v2t_mAP']) / 2
  assert got['t2v_MdR'] == np.median(ranks[0]) + 1
  assert not any('nDCG' in name for name in graded.summary(ranks))


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(sim=np.nan), 'score of query 2 and item 3 is nan'),
    (dict(sim=-np.inf), 'is -inf, expected finite'),
    (dict(relevance=1.5), r'relevance of query 2 and item 3 is 1.5.*in \[0, 1'),
    (dict(relevance=np.nan), 'relevance of query 2 and item 3 is nan'),
  ],
)
def test_bad_values_are_named(change, message):
  sim, relevance, _ = case('plain')
  arrays = dict(sim=sim, relevance=relevance)
  for name, value in change.items():
    arrays[name][2, 3] = value
  for judge in (graded.judge, graded.judge_columns):
    with pytest.raises(ValueError, match=message):
      judge(**arrays)


def test_shapes_must_agree():
  with pytest.raises(ValueError, match=r'scores \[2, 3\] and relevance \[3, 2'):
    graded.judge(np.zeros((2, 3)), np.zeros((3, 2)))
  with pytest.raises(ValueError, match=r'answers of 1 queries.*expected 2'):
    graded.recall_ranks(np.zeros((2, 3)), [[0]])
  with pytest.raises(ValueError, match='items below 3'):
    graded.recall_ranks(np.zeros((2, 3)), [[0], [3]])
