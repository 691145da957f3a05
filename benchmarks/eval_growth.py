# SPDX-License-Identifier: Apache-2.0
r"""How time and memory of an evaluation grow with the collection.

  python -m benchmarks.eval_growth [--videos 1000] [--captions 2000]

The same captions against 1x, 2x, 4x and 8x videos, embeddings of nine experts
of 768 given. Time is linear in the number of pairs; memory stops growing where
the embeddings no longer fit their budget and go to disk. Each point is a
process of its own. Writes benchmarks/results/eval_growth.json.
"""

import argparse

from benchmarks import machine
from benchmarks.eval_memory import apart


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--videos', type=int, default=1000)
  parser.add_argument('--captions', type=int, default=2000)
  parser.add_argument('--factors', default='1,2,4,8')
  args = parser.parse_args()
  points = []
  for factor in map(int, args.factors.split(',')):
    point = apart('embedded', args.captions, args.videos * factor)
    point['pairs_per_second'] = (
      point['captions'] * point['videos'] / point['seconds']
    )
    points.append(dict(factor=factor, **point))
  machine.write('eval_growth', dict(points=points))


if __name__ == '__main__':
  main()
