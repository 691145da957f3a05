# SPDX-License-Identifier: Apache-2.0
"""nDCG, mAP and recall on the matrices of the golden files, ties included.

Upstream's rows are clips and its columns captions; ours are transposed.
"""

import json

import numpy as np
import pytest

from vidret_jax.metrics import graded

EXACT = 1e-9


def sides(sim, relevance):
  """(upstream's name, our numbers, scores, relevance) by query."""
  return (
    ('tv', graded.judge(sim, relevance), sim, relevance),
    ('vt', graded.judge_columns(sim, relevance), sim.T, relevance.T),
  )


def test_ndcg_and_map(golden, errors):
  data = golden('metrics.npz')
  cases = [
    n for n in data.groups() if f'{n}/sim' in data and f'{n}/rel' in data
  ]
  for name in cases:
    sim, relevance = data[f'{name}/sim'].T, data[f'{name}/rel'].T
    if f'{name}/map' in data:  # A single query, by hand.
      judged = graded.judge_columns(sim, relevance)
      errors.close(name, judged.ap.mean(), data[f'{name}/map'], EXACT)
      continue
    for side, judged, _, r in sides(sim, relevance):
      want = data.under(f'{name}/{side}/')
      k = (r > 0).sum(1)
      np.testing.assert_array_equal(
        np.arange(r.shape[1]) < k[:, None], want.pop('k_counts') > 0
      )
      ideal = want.pop('idcg')
      best = np.sort(r, axis=1)[:, ::-1].astype(np.float64)
      discount = 1 / np.log2(np.arange(2, r.shape[1] + 2))
      got = dict(
        ndcg_per_query=judged.ndcg,
        ndcg=judged.ndcg.mean(),
        map=judged.ap.mean(),
        dcg=judged.ndcg * ideal,
      )
      errors.close(f'{name}/{side}/idcg', best @ discount, ideal, EXACT)
      assert set(want) == set(got)
      for key, value in want.items():
        errors.close(f'{name}/{side}/{key}', got[key], value, EXACT)
  for key, value in data.under('jpose/').items():
    name, metric = key.split('/')
    judged = {
      side: found
      for side, found, _, _ in sides(
        data[f'{name}/sim'].T, data[f'{name}/rel'].T
      )
    }
    metric, side = metric.split('_')
    found = dict(ndcg=judged[side].ndcg, map=judged[side].ap)[metric]
    if np.isnan(value):  # Theirs, of a query without relevant items.
      r = data[f'{name}/rel']
      assert ((r == 1).sum(1 if side == 'vt' else 0) == 0).any()
    else:
      errors.close(f'jpose/{key}', found.mean(), value, EXACT)


def test_recall(golden_root, errors):
  file = golden_root / 'ranp' / 'metrics.json'
  if not file.exists():
    pytest.skip(f'{file} is absent')
  with np.load(file.with_suffix('.npz')) as data:
    for case in json.loads(file.read_text()):
      sim = data[f'{case["tag"]}/sim'].T
      known = {int(k): x for k, x in case['t2i_gts'].items()}
      answers = [np.array(known.get(i, []), np.int64) for i in range(len(sim))]
      ranks = dict(zip(('t2v', 'v2t'), graded.recall_ranks(sim, answers)))
      for direction, values in ranks.items():
        want = case.get(f'{direction}_r1_r5_r10_medr_meanr')
        if want is None:  # Upstream cannot rank a caption without a clip.
          assert direction == 't2v' and len(known) < len(sim)
          continue
        got = list(graded.recalls(values).values())
        errors.close(f'{case["tag"]}/{direction}', got, want, EXACT)
