# SPDX-License-Identifier: Apache-2.0
r"""Peak memory of evaluating 60,000 captions against 3,000 videos.

  python -m benchmarks.eval_memory [--captions 60000] [--videos 3000]

Nine experts of 768: the embeddings of the captions alone are 1.65 GB, the
matrix of all pairs 0.72 GB, and the original, which forms a weight per pair and
expert, peaks above 10 GB. Measured in a process of its own, for a system
without encoders and for CE at the sizes of configs/ce_msrvtt.py, whose weights
are 0.73 GB. Writes benchmarks/results/eval_memory.json.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import time

LIMIT = 1.5e9


def resident():
  """Bytes of this process in memory now."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize()


def evaluate(kind, captions, videos, query_block, item_block):
  """Evaluates in this process; returns figures."""
  import jax

  from benchmarks import collection
  from vidret_jax import config_lib, sharding
  from vidret_jax.evaluators import retrieval

  if kind == 'ce':
    config = config_lib.load('configs/ce_msrvtt.py')
    model, variables, queries, items = collection.network(
      config, videos, captions
    )
  else:
    model, variables, queries, items = collection.embedded(videos, captions)
  evaluator = retrieval.Evaluator(
    model,
    sharding.make_mesh(),
    queries=queries,
    items=items,
    query_block=query_block,
    item_block=item_block,
  )
  jax.block_until_ready(variables)
  ready_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  before = resident()
  began = time.perf_counter()
  metrics = evaluator.run(variables)
  seconds = time.perf_counter() - began
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return dict(
    kind=kind,
    captions=captions,
    videos=videos,
    query_block=query_block,
    item_block=item_block,
    start_bytes=before,
    start_peak_bytes=ready_peak,
    peak_bytes=peak,
    below_limit=peak < LIMIT,
    seconds=seconds,
    t2v_MnR=metrics['t2v_MnR'],
  )


def apart(kind, captions, videos, query_block=256, item_block=256):
  """`evaluate` in a process of its own, so that its peak is its own."""
  arguments = dict(
    kind=kind,
    captions=captions,
    videos=videos,
    query_block=query_block,
    item_block=item_block,
  )
  command = [
    *(sys.executable, '-m', 'benchmarks.eval_memory'),
    *('--child', json.dumps(arguments)),
  ]
  done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  return json.loads(done.stdout.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--captions', type=int, default=60_000)
  parser.add_argument('--videos', type=int, default=3_000)
  parser.add_argument('--kinds', default='embedded,ce')
  parser.add_argument('--child', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    print(json.dumps(evaluate(**json.loads(args.child))))
    return
  rows = [
    apart(kind, args.captions, args.videos) for kind in args.kinds.split(',')
  ]
  from benchmarks import machine

  machine.write('eval_memory', dict(limit_bytes=LIMIT, evaluations=rows))


if __name__ == '__main__':
  main()
