# SPDX-License-Identifier: Apache-2.0
"""Metrics of copies against slow ones, written down as they are defined."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from vidret_jax.metrics import copies, copy_places

BITS = copies.BITS
DRAWS = {
  'all_differ': lambda rng, shape: rng.normal(size=shape),
  'some_equal': lambda rng, shape: rng.integers(-2, 3, shape) * 0.5 * -1.0,
  'all_equal': lambda rng, shape: np.zeros(shape),
}
MISSING = ('ignore', 'penalise')


def problem(draw, seed=0, q=7, n=40, missing=True, pruned=True):
  """(scores, truth, found): queries among the items, labels that overlap."""
  rng = np.random.default_rng(seed)
  label = np.zeros((q, n), np.uint8)
  for name in ('ND', 'DS', 'CS', 'IS', 'DA'):
    label |= np.uint8(BITS[name]) * (rng.random((q, n)) < 0.08)
  label[5] = 0
  query, item = np.nonzero(label)
  own = np.where(np.arange(q) % 3 == 0, rng.permutation(n)[:q], -1)
  asked = np.bitwise_or.reduce(label, axis=1)
  asked[5] |= BITS['DA']  # Of a video outside of the database.
  truth = copies.Truth(
    *(query, item, label[query, item], own, asked),
    easy=rng.random(n) < 0.2,
    unlabelled=rng.random(n) < 0.5,
  )
  scores = DRAWS[draw](rng, (q, n)).astype(np.float32)
  found = copies.There(np.ones(q, bool), np.ones(n, bool))
  if missing:
    found.queries[2] = False
    found.items[rng.permutation(n)[:6]] = False
  scores[~found.queries] = np.nan
  scores[:, ~found.items] = np.nan
  if pruned:
    scores[rng.random((q, n)) < 0.1] = np.nan
  return scores, truth, found


def slow_pool(pairs):
  """AP of [(score, right)], of equal ones the later first."""
  order = sorted(range(len(pairs)), key=lambda i: (pairs[i][0], i))[::-1]
  hits = total = 0
  for rank, i in enumerate(order):
    hits += pairs[i][1]
    total += pairs[i][1] * hits / (rank + 1)
  return total


def ranked(row, items, later):
  """Scored items, best first."""
  items = [i for i in items if not np.isnan(row[i])]
  return sorted(items, key=lambda i: (-row[i], -i if later else i))


def slow_fivr(scores, truth, found, task, hard, missing, ties):
  """(AP of queries, uAP, right items)."""
  q, n = scores.shape
  label = np.zeros((q, n), np.uint8)
  label[truth.query, truth.item] = truth.label
  bits = sum(BITS[name] for name in copies.TASKS[task])
  aps, pool, total = {}, [], 0
  for i in range(q):
    if not found.queries[i]:
      continue
    if task == 'DAVR' and not truth.asked[i] & BITS['DA']:
      continue
    field = [
      j for j in range(n) if j != truth.own[i] and not (hard and truth.easy[j])
    ]
    right = {j for j in field if label[i, j] & bits}
    field = [j for j in field if found.items[j]]
    if missing == 'ignore':
      right &= set(field)
    total += len(right)
    pool += [
      (scores[i, j], j in right) for j in field if not np.isnan(scores[i, j])
    ]
    if right:
      hits = ap = 0
      for rank, j in enumerate(ranked(scores[i], field, ties == 'later')):
        hits += j in right
        ap += (j in right) * hits / (rank + 1)
      aps[i] = ap / len(right)
  return aps, slow_pool(pool) / max(total, 1), total


@pytest.mark.parametrize('draw', DRAWS)
@pytest.mark.parametrize('missing', MISSING)
@pytest.mark.parametrize('wide', [False, True])
def test_fivr(draw, missing, wide):
  scores, truth, found = problem(draw)
  ties = 'later' if wide else 'earlier'
  got = copies.fivr(
    scores.astype(np.float64) if wide else scores,
    *(truth,),
    tasks=tuple(copies.TASKS),
    missing=missing,
    ties=ties,
    found=found,
  )
  assert len(got) == 2 * len(copies.TASKS)
  for name, task in got.items():
    stem, _, hard = name.partition('_')
    aps, uap, total = slow_fivr(
      scores, truth, found, stem, bool(hard), missing, ties
    )
    assert dict(zip(*_known(task.ap))) == pytest.approx(aps), name
    assert task.uap == pytest.approx(uap), name
    assert task.right.sum() == total
    assert task.mean == pytest.approx(np.mean(list(aps.values())))


def _known(ap):
  there = np.flatnonzero(~np.isnan(ap))
  return there.tolist(), ap[there].tolist()


def test_the_penalty_is_for_missing_videos():
  scores, truth, found = problem('all_differ', pruned=False)
  mild = copies.fivr(scores, truth, found=found)
  hard = copies.fivr(scores, truth, found=found, missing='penalise')
  for name, task in mild.items():
    np.testing.assert_array_equal(task.expected, hard[name].expected)
    there = found.queries
    assert (hard[name].right[there] == task.expected[there]).all()
    assert (task.right[there] <= task.expected[there]).all()
    assert task.expected[~there].sum() and not task.right[~there].any()
    lost = hard[name].right.sum() > task.right.sum()
    assert (hard[name].uap < task.uap) == lost
  assert hard['ISVR'].mean < mild['ISVR'].mean
  # All there: no difference.
  scores, truth, found = problem('all_differ', missing=False)
  a, b = (copies.fivr(scores, truth, missing=m, found=found) for m in MISSING)
  assert copies.summary(a) == copies.summary(b)


def test_videos_that_a_search_left_out_are_right_and_not_found():
  scores, truth, _ = problem('all_differ', missing=False, pruned=False)
  whole = copies.fivr(scores, truth)
  cut = scores.copy()
  cut[truth.query[:9], truth.item[:9]] = np.nan
  pruned = copies.fivr(cut, truth)
  for name, task in pruned.items():
    np.testing.assert_array_equal(task.right, whole[name].right)
  assert pruned['ISVR'].mean < whole['ISVR'].mean


@pytest.mark.parametrize('draw', DRAWS)
def test_evve(draw):
  scores, truth, found = problem(draw, pruned=False)
  truth = truth._replace(label=np.full_like(truth.label, BITS['P']))
  task = copies.evve(scores, truth, found=found)['EVVE']
  pool, total, aps = [], 0, []
  for i in np.flatnonzero(found.queries):
    field = [j for j in np.flatnonzero(found.items) if j != truth.own[i]]
    right = set(truth.item[truth.query == i]) & set(field)
    ap = n = 0
    for r, j in enumerate(ranked(scores[i], field, later=False)):
      if j in right:
        ap += ((n / r if r else 1) + (n + 1) / (r + 1)) / 2
        n += 1
    aps.append(ap / len(right) if right else 0)
    pool += [(scores[i, j], j in right) for j in field]
    total += len(right)
  assert 0.0 in aps
  np.testing.assert_allclose(task.ap[found.queries], aps)
  assert task.uap == pytest.approx(slow_pool(pool) / total)
  rows = {'one': np.array([0, 2]), 'other': np.array([4]), 'none': [2]}
  events = copies.by_event(task, {k: np.array(x) for k, x in rows.items()})
  assert events == pytest.approx(
    dict(one=task.ap[0], other=task.ap[4], none=0.0)
  )


@pytest.mark.parametrize('draw', DRAWS)
@pytest.mark.parametrize('labelled', [False, True])
def test_svd(draw, labelled):
  scores, truth, found = problem(draw, pruned=False)
  wrong = truth.label & BITS['ND'] > 0
  p = len(truth.query)
  truth = truth._replace(
    label=np.where(wrong, BITS['N'], BITS['P']).astype(np.uint8),
    order=np.random.default_rng(1).permutation(p),
    unlabelled=None if labelled else truth.unlabelled,
  )
  task = copies.svd(scores, truth, found=found)['SVD']
  pool, total = [], 0
  for i in np.flatnonzero(found.queries):
    mine = np.flatnonzero(truth.query == i)
    own = {truth.item[k]: truth.label[k] == BITS['P'] for k in mine}
    field = [truth.item[k] for k in mine[np.argsort(truth.order[mine])]]
    if not labelled:
      free = np.flatnonzero(truth.unlabelled)
      field += [j for j in free if j not in own]
    field = [j for j in field if found.items[j] and j != truth.own[i]]
    right = [bool(own.get(j, False)) for j in field]
    pool += list(zip(scores[i, field], right))
    total += sum(right)
    want = 0
    if any(right):
      want = sklearn.average_precision_score(right, scores[i, field])
    assert task.ap[i] == pytest.approx(want)
  assert task.uap == pytest.approx(slow_pool(pool) / total)
  # Those that are missing and labelled count where they are punished.
  harsh = copies.svd(scores, truth, found=found, missing='penalise')['SVD']
  np.testing.assert_array_equal(harsh.right, harsh.expected * found.queries)


@pytest.mark.parametrize('draw', DRAWS)
@pytest.mark.parametrize('missing', MISSING)
def test_curve(draw, missing):
  """As the script of FIVR-200K computes it, without the query itself."""
  scores, truth, found = problem(draw)
  tasks = copies.fivr(scores, truth, missing=missing, found=found, curve=True)
  for name, task in tasks.items():
    stem, _, hard = name.partition('_')
    bits = sum(BITS[label] for label in copies.TASKS[stem])
    curves = []
    for i in np.flatnonzero(task.right):
      field = np.ones(scores.shape[1], bool)
      if missing == 'ignore':
        field &= found.items
      if hard:
        field &= ~truth.easy
      if truth.own[i] >= 0:
        field[truth.own[i]] = False
      right = np.zeros(len(field), bool)
      mine = truth.query == i
      right[truth.item[mine & (truth.label & bits > 0)]] = True
      values = np.where(np.isnan(scores[i]), -1e3, scores[i])[field]
      precision, recall, _ = sklearn.precision_recall_curve(
        right[field], values
      )
      at = [precision[recall >= k * 0.05].max() for k in range(21)]
      curves.append(at)
    np.testing.assert_allclose(task.curve, np.mean(curves, 0), err_msg=name)


def test_zeros_of_both_signs_are_equal():
  found = copy_places.ordered(np.array([-0.0, 0.0, np.nan], np.float32))
  assert found[0] == found[1] and found[2] == 0
  values = [-np.inf, -2, -1e-40, 0, 1e-40, 1, np.inf]
  for kind in (np.float16, np.float32, np.float64):
    codes = copy_places.ordered(np.array(values, kind))
    rising = np.diff(np.array(values, kind)) > 0  # float16 has no 1e-40.
    assert ((np.diff(codes.astype(np.int64)) > 0) == rising).all()
    assert codes.min() > 0


def test_long_pools_are_looked_up_in_blocks(monkeypatch):
  scores, truth, found = problem('some_equal', q=9)
  want = copies.summary(copies.fivr(scores, truth, found=found))
  for block in (1, 90):  # One row, two rows and more.
    monkeypatch.setattr(copy_places, '_BLOCK', block)
    assert copies.summary(copies.fivr(scores, truth, found=found)) == want


def test_nothing_to_find():
  none = np.zeros(0, np.int64)
  truth = copies.Truth(none, none, none.astype(np.uint8), np.full(2, -1))
  scores = np.zeros((2, 3), np.float32)
  assert copies.summary(copies.fivr(scores, truth)) == dict.fromkeys(
    ('DSVR', 'DSVD', 'CSVR', 'CSVD', 'ISVR', 'ISVD'), 0.0
  )
  task = copies.evve(scores, truth, curve=True)['EVVE']
  assert task.mean == task.uap == 0 and not task.curve.any()
  lost = copies.svd(np.full((2, 3), np.nan, np.float32), truth)
  assert copies.summary(lost) == {'SVD_mAP': 0.0, 'SVD_uAP': 0.0}


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(tasks=('DSVD',)), 'tasks'),
    (dict(missing='drop'), 'missing'),
    (dict(ties='mean'), 'ties'),
    (dict(found=copies.There(np.ones(2, bool), np.ones(2, bool))), 'found'),
  ],
)
def test_bad_options(change, message):
  scores, truth, _ = problem('all_differ')
  with pytest.raises(ValueError, match=message):
    copies.fivr(scores, truth, **change)


def test_bad_truth():
  scores, truth, _ = problem('all_differ')
  with pytest.raises(ValueError, match=r'expected \[7, items\]'):
    copies.fivr(scores[1:], truth)
  with pytest.raises(ValueError, match='sorted by query'):
    copies.fivr(scores, truth._replace(query=truth.query[::-1]))
  with pytest.raises(ValueError, match='distinct'):
    copies.fivr(scores, truth._replace(item=np.zeros_like(truth.item)))
  with pytest.raises(ValueError, match='easy'):
    copies.fivr(scores, truth._replace(easy=np.ones(3, bool)))
