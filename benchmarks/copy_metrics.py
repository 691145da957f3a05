# SPDX-License-Identifier: Apache-2.0
r"""Time and memory of the metrics of copies at the size of FIVR-200K.

  python -m benchmarks.copy_metrics

100 queries among 225,960 videos, as many labels and easy duplicates as the data
set has; all visual tasks and the audio task, mAP and uAP, with and without the
easy ones. EVVE and SVD beside it. Random scores, one thread. Writes
benchmarks/results/copy_metrics.json.
"""

import argparse
import resource
import time

import numpy as np

from benchmarks import machine
from vidret_jax.metrics import copies

# Queries, videos, labelled pairs by kind, easy duplicates, unlabelled videos.
FIVR = dict(ND=1325, DS=6133, CS=1887, IS=3523, DA=3397)
SIZES = dict(
  fivr_200k=(100, 225_960, FIVR, 4873, 0),
  evve=(620, 2373, dict(P=117_000), 0, 0),
  svd=(206, 532_738, dict(P=1759, N=4596), 0, 526_787),
)
# Seconds of the original on one core of a machine of this kind, without the
# audio task.
ORIGINAL = dict(fivr_200k=53.0)


def problem(name, seed=0):
  """(scores float32 [q, n], truth)."""
  q, n, labels, easy, unlabelled = SIZES[name]
  rng = np.random.default_rng(seed)
  pairs = {}
  for label, count in labels.items():
    for key in rng.choice(q * (n - unlabelled), count, replace=False).tolist():
      pairs[key] = pairs.get(key, 0) | copies.BITS[label]
  key = np.array(sorted(pairs))
  query, item = np.divmod(key, n - unlabelled)
  truth = copies.Truth(
    query,
    item,
    np.array([pairs[k] for k in key.tolist()], np.uint8),
    np.arange(q) if name == 'fivr_200k' else np.full(q, -1),
    easy=np.arange(n) >= n - easy if easy else None,
    unlabelled=np.arange(n) >= n - unlabelled,
  )
  scores = rng.standard_normal((q, n), np.float32)
  scores[query, item] += 2
  return scores, truth


def judge(name, scores, truth):
  if name == 'evve':
    return copies.evve(scores, truth)
  if name == 'svd':
    return copies.svd(scores, truth)
  return copies.fivr(scores, truth, tasks=tuple(copies.TASKS))


def measure(name, repeats):
  """The figures of one size."""
  scores, truth = problem(name)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  seconds = []
  for _ in range(repeats):
    began = time.perf_counter()
    results = copies.summary(judge(name, scores, truth))
    seconds.append(time.perf_counter() - began)
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  best, original = min(seconds), ORIGINAL.get(name)
  return dict(
    queries=scores.shape[0],
    videos=scores.shape[1],
    labelled_pairs=len(truth.query),
    numbers=len(results),
    scores_mbytes=scores.nbytes / 1e6,
    extra_mbytes=(after - before) * 1024 / 1e6,
    seconds=best,
    all_seconds=seconds,
    original_seconds=original,
    times_faster=original and original / best,
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
  machine.write('copy_metrics', results)


if __name__ == '__main__':
  main()
