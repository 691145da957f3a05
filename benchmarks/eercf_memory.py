# SPDX-License-Identifier: Apache-2.0
r"""Peak memory of evaluating ever larger collections in two stages.

  python -m benchmarks.eercf_memory

1,000 queries against 1,000, 10,000 and 100,000 items, candidates k=50, each in
a process of its own. There are no encoders: vectors of 512 dimensions are drawn
as they are read, as many per item as ViT-B/32 makes of 12 frames (12 x 49
patches), and in the largest collection 4 patches per frame, because its full
size would need 63 GB of disk. Kept as float16, in a temporary file where 1 GiB
does not hold them (the evaluator's default). Writes
benchmarks/results/eercf_memory.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

from benchmarks.eval_memory import resident

# (items, patches of a frame, items encoded at a time); 6.3 GB of disk for the
# second, 7.6 GB for the third.
POINTS = ((1_000, 49, 64), (10_000, 49, 64), (100_000, 4, 512))


def peak_bytes():
  """The most memory that this process has had."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def evaluate(items, patches, queries, k, item_block, query_block):
  """Evaluates in this process; returns figures."""
  import jax

  from benchmarks import collection
  from vidret_jax import sharding
  from vidret_jax.evaluators import two_stage

  model, variables, asked, found = collection.parts(items, queries, patches)
  evaluator = two_stage.Evaluator(
    model,
    sharding.make_mesh(),
    queries=asked,
    items=found,
    k=k,
    fine_dtype='float16',
    item_block=item_block,
    query_block=query_block,
    count_costs=False,
  )
  jax.block_until_ready(variables)
  before = resident()
  began = time.perf_counter()
  metrics = evaluator.run(variables)
  seconds = time.perf_counter() - began
  f, d = model.max_frames, model.sizes.dim
  return dict(
    queries=queries,
    items=items,
    k=k,
    item_block=item_block,
    query_block=query_block,
    frames=f,
    patches=patches,
    fine_bytes=items * ((2 + patches) * f * d * 2 + 4 * d + f),
    start_bytes=before,
    peak_bytes=peak_bytes(),
    seconds=seconds,
    t2v_MnR=metrics['t2v_MnR'],
  )


def apart(module, **arguments):
  """What `--child` of a benchmark prints, from a process of its own."""
  command = [sys.executable, '-m', module, '--child', json.dumps(arguments)]
  done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  return json.loads(done.stdout.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--queries', type=int, default=1000)
  parser.add_argument('--query_block', type=int, default=1000)
  parser.add_argument('--k', type=int, default=50)
  parser.add_argument('--divide', type=int, default=1, help='items, for a try')
  parser.add_argument('--child', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    print(json.dumps(evaluate(**json.loads(args.child))))
    return
  rows = [
    apart(
      'benchmarks.eercf_memory',
      items=items // args.divide,
      patches=patches,
      queries=args.queries // args.divide,
      k=args.k,
      item_block=block,
      query_block=args.query_block,
    )
    for items, patches, block in POINTS
  ]
  from benchmarks import machine

  machine.write('eercf_memory', dict(evaluations=rows))


if __name__ == '__main__':
  main()
