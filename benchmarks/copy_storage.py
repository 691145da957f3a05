# SPDX-License-Identifier: Apache-2.0
r"""What features in 16 bits change: scores and mAP of a made-up collection.

  python -m benchmarks.copy_storage

Regions at the published sizes (nine of 512). Each query has relatives in the
collection: parts of it under noise, from hardly any to nearly all, so that some
are found and some are not. Other videos show other things in the same world.
Scores are those of the Chamfer similarity alone, which lie between -1 and 1: a
network that is not trained has scores too much alike to tell. Writes
benchmarks/results/copy_storage.json.
"""

import argparse

import numpy as np

from benchmarks import machine
from vidret_jax import sharding
from vidret_jax.models import hap_vr
from vidret_jax.search import copies, copy_plan

REGIONS, DIM = 9, 512


class Videos:
  """Videos in memory; see `copy_reading.View`."""

  regions, dim = REGIONS, DIM

  def __init__(self, prefix, videos):
    self.ids = tuple(f'{prefix}{i}' for i in range(len(videos)))
    self.lengths = np.array([len(x) for x in videos], np.int64)
    self._videos = videos

  def read(self, i):
    return self._videos[i]


def unit(x):
  x = x / np.linalg.norm(x, axis=-1, keepdims=True)
  return x.astype(np.float32)


def collection(rng, queries, relatives, others):
  """(queries, items, labels [q, v])."""
  world = rng.normal(size=(1, REGIONS, DIM))

  def video():
    scene = world + rng.normal(size=(1, REGIONS, DIM))
    frames = rng.normal(size=(rng.integers(16, 49), REGIONS, DIM))
    return scene + 0.5 * frames

  asked = [video() for _ in range(queries)]
  items, labels = [], np.zeros((queries, queries * relatives + others), bool)
  for q, frames in enumerate(asked):
    for noise in np.geomspace(0.3, 30, relatives):
      part = frames[rng.integers(0, len(frames) - 8) :]
      labels[q, len(items)] = True
      items.append(part + noise * rng.normal(size=part.shape))
  items += [video() for _ in range(others)]
  return (
    Videos('q', [unit(x) for x in asked]),
    Videos('v', [unit(x) for x in items]),
    labels,
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--queries', type=int, default=12)
  parser.add_argument('--relatives', type=int, default=12, help='of a query')
  parser.add_argument('--others', type=int, default=160)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  rng = np.random.default_rng(args.seed)
  queries, items, labels = collection(
    rng, args.queries, args.relatives, args.others
  )
  model, mesh = hap_vr.make(features_only=True), sharding.make_mesh()
  scores, points = {}, {}
  for storage in copy_plan.STORAGE:
    options = copies.Options(
      storage=storage, edges=(16, 32, 48), query_buckets=2, batch_frames=4096
    )
    found = copies.find(model, mesh, {}, queries, items, options)
    scores[storage] = found.scores
    points[storage] = mean_precision(found.scores, labels)
  full = scores.pop('float32')
  machine.write(
    'copy_storage',
    dict(
      **vars(args),
      pairs=full.size,
      lowest_score=float(full.min()),
      largest_score=float(full.max()),
      map=points,
      largest_change={
        name: float(np.abs(x - full).max()) for name, x in scores.items()
      },
      map_change={name: points[name] - points['float32'] for name in scores},
    ),
  )


def mean_precision(scores, labels):
  """mAP in percent."""
  order = np.argsort(-scores, 1, 'stable')
  right = np.take_along_axis(labels, order, 1)
  precision = right.cumsum(1) / np.arange(1, right.shape[1] + 1)
  return 100 * float(((precision * right).sum(1) / right.sum(1)).mean())


if __name__ == '__main__':
  main()
