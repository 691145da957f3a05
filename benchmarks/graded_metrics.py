# SPDX-License-Identifier: Apache-2.0
r"""Time and memory of nDCG and mAP in both directions.

  python -m benchmarks.graded_metrics

EPIC-Kitchens-100 test (3,842 sentences, 9,668 clips, in memory) and MSR-VTT
test (59,800 captions, 2,990 clips, mapped from files). Writes
benchmarks/results/graded_metrics.json.
"""

import argparse
import resource
import tempfile
import time

import numpy as np

from benchmarks import machine
from vidret_jax.metrics import graded

SIZES = dict(epic=(3842, 9668, False), msrvtt=(59800, 2990, True))
# Seconds of the original at EPIC size on a machine of this kind (2 cores).
ORIGINAL = dict(epic=12.3)
_VERBS, _NOUNS = 97, 300


def fill(sim, relevance, seed=0):
  """Random scores; relevance is the mean of two equalities of classes."""
  rng = np.random.default_rng(seed)
  q, v = sim.shape
  side = [
    [rng.integers(0, n, size) for n in (_VERBS, _NOUNS)] for size in (q, v)
  ]
  for first in range(0, q, 512):
    part = slice(first, min(first + 512, q))
    sim[part] = rng.standard_normal(sim[part].shape, np.float32)
    same = [a[part, None] == b for a, b in zip(*side)]
    relevance[part] = (same[0] + same[1].astype(np.float32)) / 2


def measure(name, repeats):
  """The figures of one size."""
  q, v, mapped = SIZES[name]
  with tempfile.TemporaryFile() as a, tempfile.TemporaryFile() as b:
    pair = [
      np.memmap(file, np.float32, 'w+', shape=(q, v))
      if mapped
      else np.empty((q, v), np.float32)
      for file in (a, b)
    ]
    fill(*pair)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    runs = []
    for _ in range(repeats):
      began, cpu = time.perf_counter(), time.process_time()
      graded.judge(*pair)
      half = time.perf_counter()
      graded.judge_columns(*pair)
      end = time.perf_counter()
      runs.append(
        dict(
          t2v=half - began,
          v2t=end - half,
          both=end - began,
          cpu=time.process_time() - cpu,
        )
      )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  best = min(runs, key=lambda x: x['both'])
  return dict(
    queries=q,
    items=v,
    mapped=mapped,
    matrices_mbytes=2 * 4 * q * v / 1e6,
    # Of a mapped file, pages that the system may drop count as well.
    extra_mbytes=(after - before) * 1024 / 1e6,
    seconds=best,
    all_seconds=[x['both'] for x in runs],
    original_seconds=ORIGINAL.get(name),
  )


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--only', choices=list(SIZES))
  args = parser.parse_args()
  results = {
    name: machine.apart(measure, name, args.repeats)
    for name in ([args.only] if args.only else SIZES)
  }
  machine.write('graded_metrics', results)


if __name__ == '__main__':
  main()
