# SPDX-License-Identifier: Apache-2.0
r"""RANP on the embedded corpus: what mining by relevance does to rankings.

  python -m benchmarks.ranp_shapes --workdir runs/ranp_shapes

Trains the baseline, RAN and RANP with three seeds each through the command that
users type. Runs that are finished are not repeated. Writes
benchmarks/results/ranp_shapes.json.
"""

import argparse
import pathlib

import numpy as np

from benchmarks import machine, shapes_ce

CONFIG = 'configs/ranp_shapes.py'
MODELS = {
  'baseline': 'loss=triplet',
  '+ RAN': 'loss=ran',
  '+ RANP': 'loss=ranp',
}
METRICS = (
  *('nDCG_avg', 't2v_nDCG', 'v2t_nDCG', 'mAP_avg', 'rsum'),
  *(f'{d}_{m}' for d in ('t2v', 'v2t') for m in ('R@1', 'R@5', 'R@10')),
)


def chance(data):
  """nDCG and mAP of random scores, and how much is relevant."""
  from vidret_jax.evaluators import base
  from vidret_jax.metrics import graded

  queries, items = (base.make_source(data, v) for v in ('queries', 'items'))
  truth = queries.ground_truth(items)
  relevance = np.asarray(truth.graded)
  sim = np.random.default_rng(0).standard_normal(relevance.shape, np.float32)
  both = graded.judge(sim, relevance), graded.judge_columns(sim, relevance)
  return dict(
    queries=len(queries),
    videos=len(items),
    nDCG_avg=50 * sum(x.ndcg.mean() for x in both),
    mAP_avg=50 * sum(x.ap.mean() for x in both),
    relevant_pairs=float((relevance > 0).mean()),
    fully_relevant_pairs=float((relevance == 1).mean()),
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  args = parser.parse_args()

  from vidret_jax import config_lib

  found = shapes_ce.compare(MODELS, METRICS, args.workdir, CONFIG)
  config = config_lib.load(CONFIG)
  machine.write(
    'ranp_shapes',
    dict(
      found,
      threshold=config.model.mining.threshold,
      chance=chance(config_lib.freeze(config.evals.test.data)),
    ),
  )
  print('put them on the page: python -m benchmarks.tables')


if __name__ == '__main__':
  main()
