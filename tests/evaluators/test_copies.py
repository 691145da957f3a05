# SPDX-License-Identifier: Apache-2.0
"""The evaluator of copies: numbers, missing videos, pruning, report, files."""

import dataclasses
import json

import numpy as np
import pytest

from tests.search import toy_copies
from vidret_jax import sharding
from vidret_jax.data.copies import annotations as annotations_lib
from vidret_jax.evaluators import copies, copy_files, copy_truth
from vidret_jax.metrics import copies as metrics

SEARCH = dict(chunk=24, edges=(24,), query_buckets=1, storage='float32')


@pytest.fixture(autouse=True)
def quick(quick_compiler):
  return quick_compiler


def annotations(protocol='fivr', **change):
  """Of the toy views; 'v8' is of another database, 'v2' has no frames."""
  queries, items = toy_copies.views()
  database = [name for name in items.ids if name != 'v8']
  labels = {
    'q0': {'ND': ['v0', 'v8'], 'DS': ['v1', 'v2']},
    'q1': {'DS': ['v3']},  # Has no frames itself.
    'q2': {'IS': ['v3', 'v4'], 'DA': ['v5', 'v8']},
    'q3': {'CS': ['v0', 'v9'], 'DS': ['v9']},
    'q4': {'ND': ['v6'], 'IS': ['v2']},
  }
  given = dict(protocol=protocol, queries=queries.ids, database=database)
  if protocol == 'fivr':
    given |= dict(labels=labels, easy=['v0', 'v12'])
  elif protocol == 'evve':
    right = {'a': ['v0', 'v2', 'v5'], 'b': ['v7']}
    events = {'a': ['q0', 'q1', 'q3'], 'b': ['q2', 'q4']}
    given |= dict(
      events=events,
      labels={q: {'P': right[e]} for e, some in events.items() for q in some},
    )
  else:
    given |= dict(
      labels={
        q: {'P': ['v0', 'v2'], 'N': [f'v{i + 3}', 'v10']}
        for i, q in enumerate(queries.ids)
      },
      unlabelled=['v1', 'v11', 'v12'],
    )
  return annotations_lib.build('here', **(given | change))


class View(toy_copies.View):
  """With what the evaluator reads beyond the search."""

  def __init__(self, known, *args):
    super().__init__(*args)
    self.annotations = known

  found = property(lambda self: self.lengths > 0)
  videos = property(lambda self: [None] * len(self))

  def __len__(self):
    return len(self.ids)


def views(known):
  """Queries, and the items of the database."""
  queries = View(known, 'q', toy_copies.QUERIES)
  items = View(known, 'v', toy_copies.ITEMS)
  keep = [i for i, name in enumerate(items.ids) if name in known.database]
  items.ids = tuple(items.ids[i] for i in keep)
  items.lengths = items.lengths[keep]
  order = np.argsort(items.ids)  # As views of data sets are.
  items.ids = tuple(items.ids[i] for i in order)
  items.lengths = items.lengths[order]
  return queries, items


@pytest.fixture(scope='module')
def network():
  return toy_copies.model(), toy_copies.variables()


def made(network, known, **options):
  queries, items = views(known)
  given = dict(queries=queries, items=items, search=SEARCH) | options
  return copies.Evaluator(network[0], sharding.make_mesh(), **given)


@pytest.fixture(scope='module')
def evaluated(network):
  """(evaluator, results)."""
  evaluator = made(
    network, annotations(), audio=True, curves=True, similarities='json'
  )
  return evaluator, evaluator.run(network[1])


def test_numbers(evaluated):
  evaluator, results = evaluated
  scores, known = evaluator.found.scores, annotations()
  lost = ~np.isfinite(scores)
  assert lost[1].all() and lost[:, evaluator.items.ids.index('v2')].all()
  assert lost.sum() == scores.shape[1] + scores.shape[0] - 1
  # By hand: which are right, among which, best first.
  row = dict(zip(evaluator.items.ids, scores[0]))
  order = sorted((v for v in row if v != 'v2'), key=lambda v: -row[v])
  places = sorted(order.index(v) for v in ('v0', 'v1'))
  ap = np.mean([(i + 1) / (p + 1) for i, p in enumerate(places)])
  assert evaluator.tasks['DSVR'].ap[0] == pytest.approx(ap)
  assert np.isnan(evaluator.tasks['DSVR'].ap[[1, 2]]).all()
  assert results['DSVR'] == pytest.approx(
    100 * np.nanmean(evaluator.tasks['DSVR'].ap)
  )
  assert np.flatnonzero(evaluator.tasks['DAVR'].right).tolist() == [2]
  names = [
    f'{t}V{k}{h}' for t in ('DS', 'DA') for k in 'RD' for h in ('', '_h')
  ]
  assert set(names) < set(results)
  assert results['queries_found'] == 4 and results['queries_expected'] == 5
  assert results['videos_found'] == len(known.database) - 1
  assert results['videos_expected'] == len(known.database)
  assert 'visited' not in results
  for task in evaluator.tasks.values():
    assert task.curve.shape == (21,) and (np.diff(task.curve) <= 0).all()


def test_caveats_tell_what_is_missing(evaluated):
  said = ' '.join(evaluated[0].caveats)
  assert "4 of 5 queries (missing: 'q1')" in said
  assert "12 of 13 videos of the database (missing: 'v2')" in said
  assert 'DSVR 4 of 6' in said and 'DAVR 1 of 1' in said
  assert "Labels name 1 videos that are not in the database ('v8')" in said


def test_report_and_files(evaluated, network, tmp_path):
  evaluator, results = evaluated
  found = evaluator.found
  page = evaluator.report(network[1], tmp_path, queries=['q0', 'q1', 'q3'])
  assert evaluator.found is found  # Nothing was computed again.
  text = page.read_text()
  assert page == tmp_path / 'index.html' and 'v9' in text and 'q3' in text
  content = json.loads((tmp_path / 'copies.json').read_text())
  assert content['results'] == results
  assert [row['id'] for row in content['rows']] == ['q0', 'q1', 'q3']
  curves = json.loads((tmp_path / 'retrieval-curves.json').read_text())
  assert set(curves) == set(evaluator.tasks)
  file = tmp_path / 'retrieval-similarities.json'
  read = copy_files.read(file)
  assert 'q1' not in read.queries
  judge = evaluator.judge
  scores, there, notes = copy_files.matrix(
    read, judge.queries, judge.items, 'file'
  )
  assert not notes
  np.testing.assert_array_equal(scores.astype(np.float32), found.scores)
  again = metrics.summary(judge.judge(scores, there))
  assert again == {name: results[name] for name in again}


def test_pruned_search(network, tmp_path):
  evaluator = made(
    network,
    annotations(),
    search=SEARCH | dict(visit=0.4),
    shards=str(tmp_path / 'shards'),
  )
  results = evaluator.run(network[1])
  assert results['visited'] == pytest.approx(100 * evaluator.found.share)
  assert 30 < results['visited'] < 60
  assert any('best 40 % of the videos' in text for text in evaluator.caveats)
  # Nobody is dropped: what was not visited is still counted.
  mask = np.isfinite(evaluator.found.scores)
  assert mask.sum() == 4 * (len(evaluator.items.ids) - 1)
  assert evaluator.tasks['ISVR'].right.tolist() == [2, 0, 2, 2, 1]
  assert any((tmp_path / 'shards').iterdir())
  page = evaluator.report(network[1], tmp_path / 'report')
  assert 'pairs compared' in page.read_text()


@pytest.mark.parametrize('protocol', ['evve', 'svd'])
def test_other_protocols(network, tmp_path, protocol):
  evaluator = made(network, annotations(protocol))
  results = evaluator.run(network[1])
  name = protocol.upper()
  assert {f'{name}_mAP', f'{name}_uAP'} < set(results)
  task = evaluator.tasks[name]
  assert np.isnan(task.ap).tolist() == [False, True, False, False, False]
  text = evaluator.report(network[1], tmp_path).read_text()
  assert f'{name}_mAP' in text or name in text
  rows = json.loads((tmp_path / 'copies.json').read_text())['rows']
  ranked = {row['id']: row['candidates'] for row in rows}
  if protocol == 'svd':
    # q2: v0, v10 and the three without a label; its v5, too.
    assert ranked['q2'] == 6
  else:
    assert ranked['q2'] == 12
    assert evaluator.judge.events['a'].tolist() == [0, 1, 3]


def judge(known, **options):
  queries, items = views(known)
  return copy_truth.Judge(known, queries.ids, items.ids, **options)


def test_truth():
  known = annotations()
  made_of = judge(known)
  truth, items = made_of.truth, made_of.items
  pairs = {
    (made_of.queries[q], items[i]): int(label)
    for q, i, label in zip(truth.query, truth.item, truth.label)
  }
  assert pairs['q3', 'v9'] == metrics.BITS['CS'] | metrics.BITS['DS']
  assert ('q0', 'v8') not in pairs and len(pairs) == 11
  assert truth.asked[2] == metrics.BITS['IS'] | metrics.BITS['DA']
  assert np.array(items)[truth.easy].tolist() == ['v0', 'v12']
  assert (truth.own == -1).all() and truth.unlabelled is None
  # A query of the database, which is not its own answer.
  both = dataclasses.replace(
    known,
    queries=('v3',),
    labels={'v3': {'ND': ('v3', 'v4')}},
  )
  made_of = copy_truth.Judge(both, ('v3',), items)
  assert made_of.truth.own.tolist() == [items.index('v3')]
  scores = np.zeros((1, len(items)), np.float32)
  scores[0, items.index('v4')] = 1
  task = made_of.judge(scores, metrics.there(scores))['DSVR']
  assert task.right.tolist() == [1] and task.mean == 1


def test_missing_as_penalty_is_said():
  known = annotations()
  queries, items = views(known)
  there = metrics.There(queries.found, items.found)
  said = ' '.join(judge(known, missing='penalise').notes(there))
  assert "count as misses (missing='penalise')" in said
  said = ' '.join(judge(annotations(easy=[])).notes(there))
  assert 'no hard numbers' in said
  assert 'earlier video' in ' '.join(judge(known, ties='earlier').notes(there))
  everything = metrics.There(*(np.ones_like(x) for x in there))
  said = judge(annotations('evve')).notes(everything)
  assert said == ('Found: all 5 queries, all 13 videos of the database.',)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(tasks=['DSVR', 'DSV']), "tasks='DSV'"),
    (dict(missing='no'), "missing='no'"),
    (dict(videos='play'), "videos='play'"),
    (dict(similarities='csv'), "similarities='csv'"),
    (dict(search=dict(chunk=2)), 'chunk=2'),
    (dict(search=dict(chunks=24)), "no option 'chunks'"),
    (dict(hidden=True), "no option 'hidden'"),
    (dict(queries=None), 'needs `data`'),
  ],
)
def test_bad_options(network, options, message):
  with pytest.raises(ValueError, match=message):
    made(network, annotations(), **options)


def test_queries_without_annotations():
  known = annotations()
  with pytest.raises(ValueError, match=r"2 queries .* \['x', 'y'\]"):
    copy_truth.Judge(known, ('q0', 'y', 'x'), known.database)
  with pytest.raises(ValueError, match='occurs twice'):
    copy_truth.Judge(known, ('q0', 'q0'), known.database)
