# SPDX-License-Identifier: Apache-2.0
r"""ReLoCLNet on the embedded corpus: what the contrastive objectives do.

  python -m benchmarks.reloclnet_shapes --workdir runs/reloclnet_shapes

Trains ReLoCLNet, and the same without VideoCL and FrameCL, with three seeds
each through the command that users type. Runs that are finished are not
repeated. Writes benchmarks/results/reloclnet_shapes.json.
"""

import argparse
import pathlib

import numpy as np

from benchmarks import machine, shapes_ce

CONFIG = 'configs/reloclnet_shapes.py'
MODELS = {
  'ReLoCLNet': '',
  'without VideoCL and FrameCL': 'contrast=False',
}
KS = (1, 10, 100)


def metrics():
  """Names of the stored numbers."""
  moments = [
    f'{task}_{overlap}-r{k}'
    for task in ('VCMR', 'SVMR')
    for overlap in (0.5, 0.7)
    for k in KS
  ]
  kinds = [f'VCMR_{kind}-0.5-r1' for kind in ('v', 't', 'vt')]
  return [*moments, *(f'VR_r{k}' for k in KS), *kinds]


def chance(data, search, draws=20):
  """Recall at 1 of videos and spans drawn at random."""
  from vidret_jax.evaluators import base
  from vidret_jax.metrics import moments

  queries, items = (base.make_source(data, v) for v in ('queries', 'items'))
  truth = queries.ground_truth(items)
  rng = np.random.default_rng(0)
  clips = np.floor(np.asarray(items.durations) / items.clip_seconds)
  hits = dict.fromkeys(('VR_r1', 'SVMR_0.5-r1', 'VCMR_0.5-r1'), 0.0)
  for _ in range(draws):
    length = rng.integers(
      search['min_length'], search['max_length'], len(queries)
    )
    drawn = rng.integers(len(items), size=len(queries))
    for task, video in (('SVMR', truth.item_of_query), ('VCMR', drawn)):
      room = np.maximum(clips[video] - length, 0)
      start = np.floor(rng.random(len(queries)) * (room + 1))
      span = np.stack([start, np.minimum(start + length, clips[video])], 1)
      overlap = moments.hull_iou(span * items.clip_seconds, truth.spans)
      right = (video == truth.item_of_query) & (overlap >= 0.5)
      hits[f'{task}_0.5-r1'] += 100 * right.mean() / draws
    hits['VR_r1'] += 100 * (drawn == truth.item_of_query).mean() / draws
  return dict(queries=len(queries), videos=len(items), **hits)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  args = parser.parse_args()

  from vidret_jax import config_lib

  found = shapes_ce.compare(MODELS, metrics(), args.workdir, CONFIG)
  test = config_lib.freeze(config_lib.load(CONFIG).evals.test)
  machine.write(
    'reloclnet_shapes',
    dict(found, chance=chance(test['data'], test['search'])),
  )
  print('put them on the page: python -m benchmarks.tables')


if __name__ == '__main__':
  main()
