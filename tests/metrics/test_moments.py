# SPDX-License-Identifier: Apache-2.0
"""Moment metrics against plain loops, and the corners of the definition."""

import math

import numpy as np
import pytest

from vidret_jax.metrics import moments


def problem(q=23, n=11, v=4, annotators=1, seed=0):
  """(lists, truth) with spans on a grid, so that overlaps hit thresholds."""
  rng = np.random.default_rng(seed)

  def spans(*shape):
    start = rng.integers(0, 8, shape)
    return np.stack([start, start + rng.integers(0, 6, shape)], -1)

  lengths = rng.integers(0, n + 1, q)
  lists = moments.Lists(
    items=rng.integers(0, v, (q, n)),
    valid=np.arange(n) < lengths[:, None],
    spans=spans(q, n).astype(np.float32) * np.float32(1.5),
  )
  there = np.arange(annotators) < rng.integers(1, annotators + 1, q)[:, None]
  truth = moments.Truth(
    rng.integers(0, v, q),
    spans(q, annotators).astype(np.float32) * np.float32(1.5),
    there,
  )
  return lists, truth


def overlap(a, b):
  """In float32, step by step."""
  (a0, a1), (b0, b1) = a, b
  inner = max(np.float32(0), min(a1, b1) - max(a0, b0))
  hull = max(a1, b1) - min(a0, b0)
  return inner / hull if hull else np.float32(0)


def by_hand(task, lists, truth, threshold, k):
  """Which queries are answered, by loops: bool [q]."""
  out = []
  for i, own in enumerate(truth.items):
    pairs = truth.spans[i][truth.annotators[i]]
    rows = [
      (lists.items[i, j], lists.spans[i, j])
      for j in range(min(lists.items.shape[1], 100))
      if lists.valid[i, j]
    ]
    if task == 'SVMR':
      rows = [row for row in rows if row[0] == own]
    right = False
    for item, span in rows[:k]:
      agree = [overlap(span, p) >= np.float32(threshold) for p in pairs]
      enough = task == 'VR' or sum(agree) >= min(2, len(pairs))
      right |= item == own and enough
    out.append(right)
  return np.array(out)


@pytest.mark.parametrize('annotators', [1, 4])
def test_equal_to_loops(annotators):
  lists, truth = problem(annotators=annotators)
  kinds = [('v', 't', 'vt')[i % 3] for i in range(len(truth.items))]
  table = moments.evaluate(
    dict.fromkeys(moments.TASKS, lists),
    truth,
    kinds=kinds,
    thresholds=(0.3, 0.5),
    cutoffs=(1, 3, 100),
  )
  blocks = [f'{task}_by_type' for task in moments.TASKS]
  assert list(table) == [*moments.TASKS, *blocks]
  some = 0
  for task in moments.TASKS:
    want = {}
    for t in (0.3, 0.5):
      for k in (1, 3, 100):
        name = f'r{k}' if task == 'VR' else f'{t}-r{k}'
        want[name] = by_hand(task, lists, truth, t, k)
    assert list(table[task]) == list(want)
    for name, right in want.items():
      some += 0 < right.sum() < len(right)
      assert table[task][name] == 100 * right.mean()
      for kind in moments.KINDS:
        here = np.array(kinds) == kind
        got = table[f'{task}_by_type'][f'{kind}-{name}']
        assert got == pytest.approx(100 * right[here].mean(), rel=1e-15)
  assert some > 10  # The problem tells right from wrong.


def test_thresholds_count_and_are_float32():
  """0.5 is enough for 0.5, and the float32 0.7 for 0.7."""
  true = np.array([[[0, 10]], [[0, 10]], [[0, 10]]], np.float32)
  spans = np.array([[[0, 5]], [[0, 7]], [[0, 6.9999]]], np.float32)
  items = np.zeros((3, 1), int)
  lists = moments.Lists(items, items == 0, spans)
  truth = moments.Truth(items[:, 0], true)
  right = moments.overlaps(spans, truth, (0.5, 0.7))[..., 0]
  np.testing.assert_array_equal(right, [[1, 1, 1], [0, 1, 0]])
  row = moments.evaluate({'VCMR': lists}, truth)['VCMR']
  assert row['0.7-r1'] == pytest.approx(100 / 3)


def test_hull_of_points_and_backward_spans():
  a = np.array([[2, 2], [5, 3], [0, 1], [0, 4]], np.float32)
  b = np.array([[2, 2], [0, 9], [3, 4], [2, 8]], np.float32)
  got = moments.hull_iou(a, b)
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, np.float32([0, 0, 0, 0.25]))


def test_single_video_drops_other_videos_first():
  """And only after the first hundred rows were taken."""
  n = 102
  items = np.ones((2, n), int)
  items[0, 99], items[1, 101] = 0, 0
  spans = np.broadcast_to(np.float32([1, 2]), (2, n, 2))
  lists = moments.Lists(items, np.ones((2, n), bool), spans)
  truth = moments.Truth(np.zeros(2, int), np.float32([[[1, 2]]] * 2))
  table = moments.evaluate(
    {'SVMR': lists, 'VCMR': lists, 'VR': lists}, truth, cutoffs=(1, 100, 500)
  )
  assert list(table['SVMR'].values()) == [50.0] * 6
  assert list(table['VCMR'].values())[:3] == [0.0, 50.0, 50.0]
  assert table['VR'] == {'r1': 0.0, 'r100': 50.0, 'r500': 50.0}


def test_nothing_found_is_a_miss():
  truth = problem(q=3)[1]
  empty = moments.Lists(
    np.zeros((3, 0), int), np.zeros((3, 0), bool), np.zeros((3, 0, 2))
  )
  table = moments.evaluate(dict.fromkeys(moments.TASKS, empty), truth)
  assert {x for row in table.values() for x in row.values()} == {0.0}


def test_counted_queries_only():
  lists, truth = problem()
  keep = np.arange(len(truth.items)) < 7
  part = moments.Lists(*(x[:7] for x in lists[:3]))
  few = moments.Truth(*(x[:7] for x in truth))
  kinds = ['v'] * len(keep)
  got = moments.evaluate(
    {'VCMR': lists._replace(counted=keep)}, truth, kinds=kinds
  )
  assert str(got) == str(moments.evaluate({'VCMR': part}, few, kinds=kinds[:7]))


def test_names():
  lists, truth = problem()
  kinds = ['v'] * len(truth.items)
  table = moments.evaluate(
    {'VR': lists._replace(spans=None), 'VCMR': lists}, truth, kinds=kinds
  )
  row = table['VCMR_by_type']
  assert row['desc_type_ratio'] == 'v 100.0 t 0.0 vt 0.0'
  assert math.isnan(row['t-0.5-r1'])  # Upstream divides by none, too.
  flat = moments.summary(table)
  assert set(flat) == {
    *(f'VCMR_{t}-r{k}' for t in (0.5, 0.7) for k in (1, 10, 100)),
    *(f'VCMR_v-{t}-r{k}' for t in (0.5, 0.7) for k in (1, 10, 100)),
    *(f'VR_{p}r{k}' for p in ('', 'v-') for k in (1, 10, 100)),
    *('VCMR_stop', 'VR_stop'),
  }
  assert flat['VCMR_stop'] == flat['VCMR_0.5-r1'] + flat['VCMR_0.7-r1']
  assert flat['VR_stop'] == flat['VR_r1']
  some = moments.evaluate({'VCMR': lists}, truth, thresholds=(0.5,))
  assert 'VCMR_stop' not in moments.summary(some)


def test_rounds_as_numpy_does():
  table = {'VR': {'r1': 2.675, 'r10': 100 / 3}, 'VR_by_type': {'v-r1': 2.675}}
  rounded = moments.as_upstream(table)
  assert rounded['VR'] == {'r1': 2.68, 'r10': 33.33}
  assert round(2.675, 2) == 2.67
  assert type(rounded['VR']['r1']) is float


def test_bad_arguments():
  lists, truth = problem()
  good = {'VCMR': lists}
  for changes, message in (
    (dict(predictions={}), r'tasks are \[\]'),
    (dict(predictions={'XR': lists}), r"tasks are \['XR'\]"),
    (dict(thresholds=(0.0,)), r'in \(0, 1\]'),
    (dict(cutoffs=(0,)), 'whole numbers from 1'),
    (dict(kinds=['v']), '1 kinds of 23 queries'),
    (dict(truth=truth._replace(spans=None)), 'needs true spans'),
    (dict(predictions={'SVMR': lists._replace(spans=None)}), 'found None'),
    (
      dict(predictions={'VCMR': moments.Lists(*(x[1:] for x in lists[:3]))}),
      r'items \[22, 11\]',
    ),
    (
      dict(predictions={'VCMR': lists._replace(counted=np.zeros(23, bool))}),
      'no queries',
    ),
  ):
    given = dict(predictions=good, truth=truth) | changes
    with pytest.raises(ValueError, match=message):
      moments.evaluate(**given)
