# SPDX-License-Identifier: Apache-2.0
"""Ranks, tables and challenge predictions, exactly as upstream's."""

import csv

import numpy as np
import pytest

from tests.parity import goldens
from vidret_jax import sharding
from vidret_jax.evaluators import matrix, retrieval
from vidret_jax.metrics import ranks as ranks_lib

DIRECTIONS = {'t2v_metrics': 't2v', 'v2t_metrics': 'v2t'}


def equal(errors, name, got, want):
  """Exact, infinite ranks included."""
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  np.testing.assert_array_equal(got, want, err_msg=name)
  finite = np.isfinite(want)
  errors.close(name, got[finite], want[finite], atol=0)


def valid_rows(sims, masks):
  """Rows that are captions, and their items: upstream's rows include others."""
  items = sims.shape[1]
  masks = np.ones((items, len(sims) // items)) if masks is None else masks
  valid = masks.reshape(-1) > 0
  item = np.repeat(np.arange(items), masks.shape[1])
  return sims[valid], item[valid]


def on_host(sims, item):
  return {
    't2v': ranks_lib.text_to_video(sims, item),
    'v2t': ranks_lib.video_to_text(sims, item),
  }


def evaluator(sims, item, **options):
  model, variables = matrix.retriever(sims)
  queries, items = matrix.sources(item, [f'v{i}' for i in range(sims.shape[1])])
  return retrieval.Evaluator(
    model, sharding.make_mesh(), queries=queries, items=items, **options
  ), variables


def in_blocks(sims, item):
  judge, variables = evaluator(
    sims, item, query_block=7, item_block=5, bank_bytes=64
  )
  judge.run(variables)
  return {'t2v': judge.ranks.text, 'v2t': judge.ranks.video}


@pytest.mark.parametrize('ranker', [on_host, in_blocks])
def test_metrics(golden, errors, ranker):
  arrays = golden('metrics/metrics.npz')
  for case in arrays.groups():
    found = arrays.under(f'{case}/')
    kinds = {k.split('/')[0] for k in found if '/' in k}
    if kinds == {'retrieval_as_classification'}:
      ranks = {
        'retrieval_as_classification': ranks_lib.as_classification(
          found['sims'], found['query_masks']
        )
      }
    else:
      ranks = ranker(*valid_rows(found['sims'], found.get('query_masks')))
      ranks = {k: ranks[DIRECTIONS[k]] for k in kinds}
    for kind, values in ranks.items():
      equal(errors, f'{case}/{kind}/ranks', values, found[f'{kind}/ranks'])
      table = ranks_lib.summary(values)
      for theirs in {k.split('/')[1] for k in found if k.startswith(kind)}:
        if theirs != 'ranks':
          equal(
            errors,
            f'{case}/{kind}/{theirs}',
            table[goldens.METRICS[theirs]],
            found[f'{kind}/{theirs}'],
          )


def test_metrics_of_whole_evaluations(golden_root, errors):
  files = sorted(golden_root.glob('ce/e2e/*/expected.npz'))
  if not files:
    pytest.skip(f'no e2e/*/expected.npz in {golden_root}/ce')
  for file in files:
    with np.load(file, allow_pickle=False) as arrays:
      judge, variables = evaluator(
        *valid_rows(arrays['sims'], arrays['query_masks'])
      )
      got = judge.run(variables)
      for key in arrays.files:
        kind, _, theirs = key.partition('/')
        if kind in DIRECTIONS:
          equal(
            errors,
            f'{file.parent.name}/{key}',
            got[f'{DIRECTIONS[kind]}_{goldens.METRICS[theirs]}'],
            arrays[key],
          )


def test_challenge_predictions(golden, errors, tmp_path):
  arrays = golden('metrics/challenge_topk.npz')
  sims, item = valid_rows(arrays['sims'], arrays['query_masks'])
  want = arrays['topk']
  judge, variables = evaluator(sims, item, query_block=8, item_block=5)
  judge.predict(variables, tmp_path / 'top.csv', want.shape[1])
  rows = list(csv.reader(open(tmp_path / 'top.csv', newline='')))
  equal(errors, 'topk', np.array(rows, int), want)
