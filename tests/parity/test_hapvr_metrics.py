# SPDX-License-Identifier: Apache-2.0
"""Metrics of copies from given scores, ties and missing videos included."""

import json

import numpy as np
import pytest

from vidret_jax.metrics import copies

_LABELS = ('ND', 'DS', 'CS', 'IS', 'DA')


@pytest.fixture(scope='module')
def expected(golden_root):
  """{protocol: {name of scores: {variant: values}}}."""
  file = golden_root / 'hap_vr' / 'metrics_expected.json'
  if not file.exists():
    pytest.skip(f'{file} is absent')
  out = {}
  for key, values in json.loads(file.read_text()).items():
    protocol, name, *variant = key.split('/')
    row = out.setdefault(protocol, {}).setdefault(name, {})
    row['/'.join(variant)] = values
  return out


def fivr_truth(data, ids):
  number = {name: i for i, name in enumerate(ids)}
  labels = np.stack([data[f'fivr_label_{label}'] for label in _LABELS]) > 0
  bits = np.array([copies.BITS[label] for label in _LABELS], np.uint8)
  mask = (labels * bits[:, None, None]).sum(0).astype(np.uint8)
  query, item = np.nonzero(mask)
  has = labels.any(2)
  return copies.Truth(
    query,
    item,
    mask[query, item],
    np.array([number.get(q, -1) for q in data['fivr_queries'].tolist()]),
    asked=(has * bits[:, None]).sum(0).astype(np.uint8),
    easy=np.isin(ids, data['fivr_easy']),
  )


def evve_truth(data, ids):
  number = {name: i for i, name in enumerate(ids)}
  event = data['evve_event_of_query'].tolist()
  rows = [np.unique(data[f'evve_pos_{name}']) for name in event]
  query = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
  label = np.full(len(query), copies.BITS['P'], np.uint8)
  own = [number.get(q, -1) for q in data['evve_queries'].tolist()]
  truth = copies.Truth(query, np.concatenate(rows), label, np.array(own))
  events = {n: np.flatnonzero(np.array(event) == n) for n in set(event)}
  return truth, events


def svd_truth(data, q, n):
  rows = {(i, j): (k, l) for k, (i, j, l) in enumerate(data['svd_gt'].tolist())}
  query, item = np.array(sorted(rows)).T
  order, right = np.array([rows[key] for key in sorted(rows)]).T
  label = np.where(right, copies.BITS['P'], copies.BITS['N']).astype(np.uint8)
  none = np.full(q, -1)
  free = np.arange(n) >= data['svd_first_unlabeled']
  return copies.Truth(query, item, label, none, unlabelled=free, order=order)


def dropped(scores, data, with_query):
  """The scores without the videos that the variant 'dropped' lacks."""
  out = scores.copy()
  out[:, np.isin(data['target_ids'], data['dropped_targets'])] = np.nan
  if with_query:
    out[data['dropped_query_index']] = np.nan
  return out


def compare(errors, name, got, want):
  """Every value of the file, at its key."""
  for key, value in want.items():
    mine = key if key in got else f'SVD_{key}'
    errors.close(f'{name}/{key}', got[mine] / 100, value, atol=1e-9)


def test_metrics(golden, expected, errors):
  data = golden('metrics.npz')
  ids = data['target_ids']
  fivr, (evve, events) = fivr_truth(data, ids), evve_truth(data, ids)
  judges = dict(
    fivr=lambda s: copies.fivr(s, fivr),
    fivr_audio=lambda s: copies.fivr(s, fivr, tasks=(copies.AUDIO,)),
    evve=lambda s: copies.evve(s, evve),
    svd=lambda s: copies.svd(s, svd_truth(data, *s.shape)),
  )
  assert set(expected) <= set(judges)
  for protocol, by_scores in expected.items():
    for name, variants in by_scores.items():
      scores = data[f'scores_{name}']
      variants = {**variants}
      variants.pop('default_argsort_this_cpu', None)  # Of one machine only.
      for variant, want in variants.items():
        where = f'{protocol}/{name}/{variant}'
        if variant == 'dropped':
          given = dropped(scores, data, with_query=protocol != 'svd')
        else:
          given = scores
        tasks = judges[protocol](given)
        if variant == 'per_event':
          got = copies.by_event(tasks['EVVE'], events)
          assert set(got) == set(want)
          for event, value in want.items():
            errors.close(f'{where}/{event}', got[event], value, atol=1e-9)
          continue
        assert len(copies.summary(tasks)) == len(want), where
        compare(errors, where, copies.summary(tasks), want)


def test_wide_scores_are_compared_as_they_are(golden, expected, errors):
  """float64 takes another way to the same numbers."""
  data = golden('metrics.npz')
  data.under('')  # Read by the test above.
  fivr = fivr_truth(data, data['target_ids'])
  for name, variants in expected['fivr'].items():
    scores = data[f'scores_{name}'].astype(np.float64)
    got = copies.summary(copies.fivr(scores, fivr))
    compare(errors, name, got, variants[''])
