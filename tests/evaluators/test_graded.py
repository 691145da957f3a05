# SPDX-License-Identifier: Apache-2.0
"""The graded evaluator: numbers, page, files, blocks, errors."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluators import page_reader
from vidret_jax import sharding
from vidret_jax.data import pickles
from vidret_jax.evaluators import graded, matrix, non_finite, whole_scores
from vidret_jax.metrics import graded as metrics

Q, V = 29, 13


class Levelled(matrix.MatrixRetriever):
  """Levels beside the score, as HGR has them."""

  def levels(self, q, v):
    sim = self.score(q, v)
    return dict(sentence=sim, verb=-sim, noun=jnp.round(sim))


def problem(seed=0, graded_too=True):
  """(scores, answers, relevance, queries, items)."""
  rng = np.random.default_rng(seed)
  sims = rng.normal(size=(Q, V)).astype(np.float32).round(1)
  answers = [np.flatnonzero(rng.random(V) < 0.2) for _ in range(Q)]
  answers[0] = np.zeros(0, np.int64)
  relevance = rng.choice(np.float32([0, 0, 0.25, 0.5, 1]), (Q, V))
  queries, items = matrix.sources(
    np.array([a[0] if len(a) else 0 for a in answers]),
    [f'v{i}' for i in range(V)],
    texts=[f'query {i}' for i in range(Q)],
    captions=[[f'says {i}'] for i in range(V)],
    answers=answers,
    graded=relevance if graded_too else None,
  )
  return sims, answers, relevance, queries, items


def judge(sims, queries, items, *, levels=False, **options):
  model = (Levelled if levels else matrix.MatrixRetriever)()
  variables = {'params': {'sims': jnp.asarray(sims)}}
  evaluator = graded.Evaluator(
    model,
    sharding.make_mesh(),
    queries=queries,
    items=items,
    levels=levels,
    **options,
  )
  return evaluator, variables


def expected(sims, answers, relevance, **options):
  judged = (
    metrics.judge(sims, relevance),
    metrics.judge_columns(sims, relevance),
  )
  return metrics.summary(metrics.recall_ranks(sims, answers), judged, **options)


@pytest.mark.parametrize(
  'options',
  [
    dict(),
    dict(query_block=8, item_block=5, bank_bytes=0, score_bytes=0),
    dict(query_block=7, item_block=4, bank_bytes=40, mAP_binary=True),
  ],
)
def test_numbers_are_those_of_the_matrix(options):
  sims, answers, relevance, queries, items = problem()
  evaluator, variables = judge(sims, queries, items, **options)
  got = evaluator.run(variables)
  binary = options.get('mAP_binary', False)
  assert got == expected(sims, answers, relevance, binary=binary)
  found = evaluator.scores['score']
  np.testing.assert_array_equal(found, sims)
  assert isinstance(found, np.memmap) == ('score_bytes' in options)
  lost = sum(not len(x) for x in answers)
  assert f'{lost} of 29 queries are the caption' in evaluator.caveats[0]


def test_without_relevance_there_is_recall():
  sims, answers, _, queries, items = problem(graded_too=False)
  evaluator, variables = judge(sims, queries, items)
  got = evaluator.run(variables)
  assert got == metrics.summary(metrics.recall_ranks(sims, answers))
  assert 'no graded relevance' in evaluator.caveats[0]


def test_levels():
  sims, answers, relevance, queries, items = problem()
  evaluator, variables = judge(sims, queries, items, levels=True, query_block=8)
  got = evaluator.run(variables)
  want = {'': sims, 'sentence_': sims, 'verb_': -sims, 'noun_': sims.round()}
  for prefix, level in want.items():
    for name, value in expected(level, answers, relevance).items():
      assert got[f'{prefix}{name}'] == value, f'{prefix}{name}'


def test_a_source_without_answers_has_one_per_query():
  sims, _, _, queries, items = problem()
  truth = queries.ground_truth(items)
  found = graded.answers(object(), items, truth)
  assert [x.tolist() for x in found] == [[i] for i in truth.item_of_query]


def test_page(tmp_path):
  sims, answers, relevance, queries, items = problem()
  evaluator, variables = judge(sims, queries, items, levels=True)
  path = evaluator.report(variables, tmp_path, queries=queries.ids[:9])
  got = evaluator._results
  page = page_reader.read(path)
  assert page['metrics']['t2v_nDCG'] == f'{got["t2v_nDCG"]:.1f}'
  assert page['metrics']['v2t_mAP'] == f'{got["v2t_mAP"]:.1f}'
  assert page['facts']['rsum'] == f'{got["rsum"]:.1f}'
  content = json.loads((tmp_path / 'rankings.json').read_text())
  rows = zip(page['rows'], content['rows'], strict=True)
  for i, (row, kept) in enumerate(rows):
    order = np.argsort(-sims[i], kind='stable')[:5]
    assert [c['id'] for c in row['top']] == [f'v{j}' for j in order]
    assert [c['correct'] for c in row['top']] == [
      j in answers[i] for j in order
    ]
    assert row['rank'] == evaluator.ranks.text[i] + 1
    assert kept['nDCG'] == evaluator.judged[0].ndcg[i]
    assert [c['relevance'] for c in kept['top']] == [
      relevance[i, j] for j in order
    ]
    assert kept['top'][0]['levels']['verb'] == -sims[i, order[0]]
    best = max(answers[i], key=lambda j: (sims[i, j], -j), default=0)
    assert row['truth']['id'] == f'v{best}'
  text = path.read_text()
  assert 'relevance 0.25' in text and 'no right clip' in text
  assert f'{len(answers[1])} right clips' in text


@pytest.mark.parametrize('levels', [False, True])
def test_predictions(tmp_path, levels):
  sims, _, _, queries, items = problem()
  evaluator, variables = judge(
    sims, queries, items, levels=levels, predictions='legacy'
  )
  evaluator.report(variables, tmp_path)
  got = evaluator.run(variables)
  with np.load(tmp_path / 'retrieval-predictions.npz') as file:
    np.testing.assert_array_equal(file['scores'], sims)
    assert file['item_ids'].tolist() == list(items.ids)
    assert file['texts'].tolist() == queries.texts
    assert ('verb' in file) == levels
  kept = pickles.load_npy(tmp_path / 'retrieval-predictions.npy')
  assert kept['cap_names'] == queries.texts and kept['vid_names'][1] == 'v1'
  want = np.stack([sims.T, -sims.T, sims.T.round()]) if levels else sims.T
  np.testing.assert_array_equal(kept['scores'], want)
  with open(tmp_path / 'scores.csv', newline='') as file:
    header, row = csv.reader(file)
  assert row[:2] == ['predefined', 'retrieval-predictions.npy']
  assert len(row) == len(header) + 2
  table = dict(zip(header, row[2:]))
  assert table['ir1'] == f'{got["t2v_R@1"]:.2f}'
  assert table['rsum'] == f'{got["rsum"]:.2f}'
  assert ('nDCG_tv' in table) != levels
  if not levels:
    assert table['nDCG_tv'] == f'{got["t2v_nDCG"] / 100:.2f}'


def test_scores_that_are_not_finite_are_named():
  sims, _, _, queries, items = problem()
  sims[11, 7] = np.nan
  evaluator, variables = judge(
    sims, queries, items, query_block=8, item_block=5
  )
  with pytest.raises(non_finite.NonFiniteScore, match="item 'v7' is nan") as e:
    evaluator.run(variables)
  assert repr(queries.ids[11]) in str(e.value)


def test_bad_options_are_named():
  _, _, _, queries, items = problem()
  for options, message in (
    (dict(predictions='csv'), "predictions='csv': expected"),
    (dict(ties='mean'), "no option 'ties'"),
  ):
    with pytest.raises(ValueError, match=message):
      judge(np.zeros((Q, V)), queries, items, **options)


def test_no_room_for_scores(monkeypatch):
  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(whole_scores.os, 'posix_fallocate', full)
  with pytest.raises(OSError, match='5 queries and 4 items need .* TMPDIR'):
    whole_scores.empty((5, 4), 0)
  assert not isinstance(whole_scores.empty((5, 4), 80), np.memmap)
