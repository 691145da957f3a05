# SPDX-License-Identifier: Apache-2.0
"""The evaluator of moments: numbers, lists of others, hidden answers, files."""

import json

import numpy as np
import pytest

from tests.search import toy_moments
from vidret_jax import sharding
from vidret_jax.evaluators import matrix, moment_files, moments, non_finite
from vidret_jax.metrics import moments as metrics

SEARCH = dict(
  videos=4, alpha=3.0, before_nms=30, keep=20, min_length=1, max_length=6
)


@pytest.fixture(autouse=True)
def quick(quick_compiler):
  return quick_compiler


@pytest.fixture(scope='module')
def problem():
  return toy_moments.Problem()


def judge(problem, search=(), **options):
  return moments.Evaluator(
    problem.model,
    sharding.make_mesh(),
    **dict(
      queries=problem.queries,
      items=problem.items,
      search=SEARCH | dict(search),
      query_block=16,
      item_block=4,
    )
    | options,
  )


def test_numbers_are_those_of_a_plain_search(problem):
  evaluator = judge(problem, ks=(1, 5))
  results = evaluator.run(problem.variables)
  hits = {'VR': 0, 'VCMR': 0, 'SVMR': 0}
  for q, own in enumerate(problem.queries.own):
    videos, _, rows, mine = problem.expected(q, evaluator._search)
    true = problem.queries.spans[q]
    hits['VR'] += own in videos[:5]
    for task, found in (('VCMR', rows), ('SVMR', mine)):
      hits[task] += any(
        v == own and toy_moments.iou((s, e), true) >= 0.5
        for v, s, e, _ in found[:5]
      )
  n = len(problem.queries) / 100
  assert results['VR_r5'] == pytest.approx(hits['VR'] / n)
  assert results['VCMR_0.5-r5'] == pytest.approx(hits['VCMR'] / n)
  assert results['SVMR_0.5-r5'] == pytest.approx(hits['SVMR'] / n)
  assert 'VCMR_v-0.7-r1' in results and 'VR_stop' in results
  assert 'VCMR_0.5-r10' not in results


def test_lists_of_another_engine_replace_the_first_stage(problem, tmp_path):
  own = problem.queries.own
  other = (own + 1) % len(problem.items)
  items = np.stack([other, own], 1)
  valid = np.ones(items.shape, bool)
  valid[3, 1] = False
  path = tmp_path / 'vr.json'

  def write(scores):
    lists = metrics.Lists(items, valid, scores=np.float32(scores))
    moment_files.write(
      path,
      {'VR': lists},
      problem.queries.rows,
      dict(zip(problem.items.ids, problem.items.numbers.tolist())),
      problem.items.numbers,
    )
    return judge(problem, video_lists=str(path))

  scores = np.tile([0.5, 0.1], (len(own), 1))
  evaluator = write(scores)
  results = evaluator.run(problem.variables)
  found = evaluator.found
  assert found.videos.tolist() == np.where(valid, items, -1).tolist()
  np.testing.assert_allclose(
    found.video_scores, np.where(valid, np.exp(3 * scores), 0), rtol=1e-6
  )
  assert results['VR_r1'] == 0
  assert results['VR_r10'] == pytest.approx(100 - 100 / len(own))
  listed = set(map(tuple, np.argwhere(found.items >= 0)))
  for q, i in listed:
    assert found.items[q, i] in items[q][valid[q]]

  # What is written here can be read again.
  as_is = judge(problem, video_lists=str(path), list_scores='weight')
  as_is.run(problem.variables)
  np.testing.assert_array_equal(
    as_is.found.video_scores, np.where(valid, np.float32(scores), 0)
  )
  with pytest.raises(ValueError, match="list_scores='weight'"):
    write(scores * 400)
  content = json.loads(path.read_text())
  content['VR'][2]['predictions'][0][0] = 5
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match='not in this split.*5'):
    judge(problem, video_lists=str(path))
  content['SVMR'] = content.pop('VR')
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match='has lists for SVMR, expected VR'):
    judge(problem, video_lists=str(path))


def test_hidden_answers_give_predictions_but_no_numbers(problem, tmp_path):
  hidden = toy_moments.Queries(problem.queries.own, problem.items, False)
  evaluator = judge(problem, queries=hidden, predictions='json')
  assert evaluator.run(problem.variables) == {}
  assert 'hidden' in evaluator.caveats[0]
  page = evaluator.report(problem.variables, tmp_path)
  assert 'hidden' in page.read_text()
  content = json.loads((tmp_path / 'retrieval-predictions.json').read_text())
  assert set(content) == {'video2idx', 'VCMR', 'VR'}
  with pytest.raises(ValueError, match='SVMR.*hidden'):
    judge(problem, queries=hidden, tasks=('SVMR',))


def test_report_and_predictions(problem, tmp_path):
  evaluator = judge(problem, predictions='json', num_samples=3)
  results = evaluator.run(problem.variables)
  page = evaluator.report(problem.variables, tmp_path)
  assert page.exists() and 'VCMR' in page.read_text()
  found = moment_files.read(tmp_path / 'retrieval-predictions.json')
  assert found.tasks.keys() == {'VCMR', 'SVMR', 'VR'}
  lists = moment_files.aligned(found, problem.queries.ids, '')
  truth = evaluator.truth._replace(
    items=problem.items.numbers[evaluator.truth.items]
  )
  table = metrics.evaluate(lists, truth, kinds=problem.queries.kinds)
  assert metrics.summary(table) == results


def test_bad_scores_are_named(problem):
  params = {k: x.copy() for k, x in problem.params.items()}
  params['score'][17, 2] = np.nan
  with pytest.raises(
    non_finite.NonFiniteScore,
    match=f"query '{problem.queries.ids[17]}' and item 'clip_2' is nan",
  ):
    judge(problem).run({'params': params})
  params = {k: x.copy() for k, x in problem.params.items()}
  own = problem.queries.own[18]
  params['end'][18, own, 0] = np.inf
  with pytest.raises(
    non_finite.NonFiniteScore,
    match=f"query '{problem.queries.ids[18]}' and item 'clip_{own}' is nan",
  ):
    judge(problem, tasks=('SVMR',)).run({'params': params})


def test_options_are_checked(problem):
  for options, message in (
    (dict(nms=1), "no option 'nms'"),
    (dict(search=dict(nms=2)), 'nms=2'),
    (dict(search=dict(k=2)), "no option 'k'"),
    (dict(tasks=('VCMR', 'QA')), 'QA'),
    (dict(predictions='csv'), 'csv'),
    (dict(list_scores='x'), 'list_scores'),
  ):
    with pytest.raises(ValueError, match=message):
      judge(problem, **options)
  model, _ = matrix.retriever(np.zeros((2, 2)))
  with pytest.raises(TypeError, match="no method 'similarity'"):
    moments.Evaluator(
      model,
      sharding.make_mesh(),
      queries=problem.queries,
      items=problem.items,
    )
