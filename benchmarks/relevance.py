# SPDX-License-Identifier: Apache-2.0
r"""Time and memory of relevance matrices, beside loops over sets.

  python -m benchmarks.relevance [--divide 10]

EPIC-Kitchens-100's test split (9,668 x 3,842, one verb class, in memory) and
MSR-VTT's (2,990 x 59,800, pooled classes of twenty captions, written to HDF5 as
it is computed), each in a process of its own. Classes are drawn with
frequencies like those of words (the n-th class is 1/n as frequent as the
first). The loops are what upstream does for a batch, set arithmetic pair by
pair; they are timed on some pairs and scaled to all. Writes
benchmarks/results/relevance.json.
"""

import argparse
import json
import pathlib
import tempfile
import time

import numpy as np

from benchmarks.eercf_memory import apart, peak_bytes
from benchmarks.eval_memory import resident
from vidret_jax.data.graphs import classes, relevance, relevance_files

# Clips, captions, captions of a clip, verb classes, noun classes.
SIZES = {
  'epic_test': (9_668, 3_842, 1, 97, 300),
  'msrvtt_test': (2_990, 59_800, 20, 2_000, 6_000),
}
_LOOP_PAIRS = 300_000


def draw(rng, rows, mean, num_classes):
  """Lists of 1 and more classes, `mean` on the average."""
  frequency = 1 / np.arange(1, num_classes + 1)
  counts = 1 + rng.poisson(mean - 1, rows)
  flat = rng.choice(
    num_classes, counts.sum(), p=frequency / frequency.sum()
  ).tolist()
  ends = np.cumsum(counts).tolist()
  return [flat[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def problem(name, divide):
  """Clips' verbs and nouns, captions' verbs and nouns."""
  clips, captions, each, num_verbs, num_nouns = SIZES[name]
  clips, captions = clips // divide, captions // divide
  rng = np.random.default_rng(0)
  if each == 1:
    single = [
      [one[0] for one in draw(rng, n, 1.0, num_verbs)]
      for n in (clips, captions)
    ]
    nouns = [draw(rng, n, 1.3, num_nouns) for n in (clips, captions)]
    return single[0], nouns[0], single[1], nouns[1]
  verbs = draw(rng, captions, 1.7, num_verbs)
  nouns = draw(rng, captions, 3.3, num_nouns)
  own = captions // clips
  pooled = [
    [classes.pooled(x[i * own : (i + 1) * own]) for i in range(clips)]
    for x in (verbs, nouns)
  ]
  return *pooled, verbs, nouns


def loops(video_verbs, video_nouns, verbs, nouns, rows, columns):
  """Some rows and columns, pair by pair."""

  def overlap(a, b):
    if isinstance(a, int):
      return float(a == b)
    a, b = set(a), set(b)
    return len(a & b) / max(1, len(a | b))

  out = np.empty((rows, columns))
  for i in range(rows):
    for j in range(columns):
      noun = overlap(video_nouns[i], nouns[j])
      out[i, j] = (overlap(video_verbs[i], verbs[j]) + noun) / 2
  return out


def measure(name, divide):
  """Figures of one size, in this process."""
  sides = problem(name, divide)
  shape = len(sides[0]), len(sides[2])
  before = resident()
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'rel.hdf5'
    began = time.perf_counter()
    if SIZES[name][2] == 1:
      found = relevance.matrix(*sides)
    else:
      with relevance_files.create(path, shape) as out:
        relevance.matrix(*sides, out=out)
    seconds = time.perf_counter() - began
    peak = peak_bytes()
    if SIZES[name][2] > 1:
      found = relevance_files.read(path, shape)
    columns = min(shape[1], 3000)
    rows = max(1, min(shape[0], _LOOP_PAIRS // columns))
    began = time.perf_counter()
    slow = loops(*sides, rows, columns)
    loop_seconds = time.perf_counter() - began
    np.testing.assert_array_equal(found[:rows, :columns], slow)
  pairs = shape[0] * shape[1]
  return dict(
    name=name,
    clips=shape[0],
    captions=shape[1],
    matrix_bytes=8 * pairs,
    seconds=seconds,
    nanoseconds_per_pair=seconds / pairs * 1e9,
    start_bytes=before,
    peak_bytes=peak,
    loop_pairs=rows * columns,
    loop_seconds=loop_seconds,
    loop_seconds_scaled=loop_seconds * pairs / (rows * columns),
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--divide', type=int, default=1, help='sizes, for a try')
  parser.add_argument('--child', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    print(json.dumps(measure(**json.loads(args.child))))
    return
  rows = [
    apart('benchmarks.relevance', name=name, divide=args.divide)
    for name in SIZES
  ]
  from benchmarks import machine

  machine.write('relevance', dict(matrices=rows))


if __name__ == '__main__':
  main()
