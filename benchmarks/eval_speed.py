# SPDX-License-Identifier: Apache-2.0
r"""Evaluation of CE at the paper's sizes, and ranks of a large matrix.

  python -m benchmarks.eval_speed [--config configs/ce_msrvtt.py]

1,000 captions against 1,000 videos, encoders included, and both directions of
54,270 captions against 670 videos from given similarities. Says how far each
part is from the machine's matmul rate or memory bandwidth. Writes
benchmarks/results/eval_speed.json.
"""

import argparse
import statistics
import time

import jax
import numpy as np

from benchmarks import collection, machine
from vidret_jax import config_lib, sharding
from vidret_jax.evaluators import retrieval
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.ops import ranking
from vidret_jax.search.programs import programs

# Seconds of the original on a machine of this kind (2 cores, PyTorch 2.13).
ORIGINAL = dict(evaluation=5.0, t2v=1.4, v2t=0.6)


def timed(call, repeats):
  """Seconds of each of some calls."""
  out = []
  for _ in range(repeats):
    began = time.perf_counter()
    call()
    out.append(time.perf_counter() - began)
  return out


def evaluation(config, size, block, repeats, facts):
  """Times a whole evaluation, and counts what its programs compute."""
  model, variables, queries, items = collection.network(config, size, size)
  mesh = sharding.make_mesh()
  variables = jax.device_put(variables, sharding.replicated(mesh))
  evaluator = retrieval.Evaluator(
    model,
    mesh,
    queries=queries,
    items=items,
    query_block=block,
    item_block=block,
  )
  first = timed(lambda: evaluator.run(variables), 1)[0]
  seconds = timed(lambda: evaluator.run(variables), repeats)
  best, blocks = min(seconds), -(-size // block)
  p, index = programs(model, mesh), np.arange(block)
  flops = {}
  batches = {
    'encode_query': sharding.put_batch(queries.gather(index, index), mesh),
    'encode_item': sharding.put_batch(items.gather(index, index), mesh),
  }
  embedded = {}
  for name, batch in batches.items():
    program = getattr(p, name)
    cost = program.lower(variables, batch).compile().cost_analysis()
    flops[name] = blocks * cost['flops']
    embedded[name] = program(variables, batch)
  cost = p.score.lower(variables, *embedded.values()).compile().cost_analysis()
  # Blocks on the diagonal are scored twice: once for own scores.
  flops['score'] = (blocks**2 + blocks) * cost['flops']
  gflop = sum(flops.values()) / 1e9
  return dict(
    queries=size,
    items=size,
    block=block,
    seconds=seconds,
    median=statistics.median(seconds),
    best=best,
    compile_seconds=first - best,
    gflop={k: v / 1e9 for k, v in flops.items()},
    gflops=gflop / best,
    fraction_of_matmul_peak=gflop / best / facts['matmul_gflops'],
    seconds_of_matmul_at_peak=gflop / facts['matmul_gflops'],
    original_seconds=ORIGINAL['evaluation'],
    speedup=ORIGINAL['evaluation'] / best,
  )


def matrix_ranks(captions, items, block, repeats, facts):
  """Times both directions from a matrix in host memory, on device and off."""
  rng = np.random.default_rng(0)
  sims = rng.standard_normal((captions, items), dtype=np.float32)
  item = np.arange(captions) * items // captions
  count = jax.jit(ranking.count)
  every = np.ones(items, bool)

  def on_device():
    own = sims[np.arange(captions), item]
    best = np.full(items, -np.inf, np.float32)
    np.maximum.at(best, item, own)
    counts = []
    for start in range(0, captions, block):
      part, column, mine = (x[start : start + block] for x in (sims, item, own))
      rest = block - len(part)
      if rest:
        part = np.pad(part, ((0, rest), (0, 0)))
        column, mine = np.pad(column, (0, rest)), np.pad(mine, (0, rest))
      counts.append(
        count(
          part,
          mine,
          column.astype(np.int32),
          best,
          np.arange(block) < captions - start,
          every,
          every,
        )
      )
    counts = jax.device_get(counts)
    rows = [np.concatenate([c[j] for c in counts])[:captions] for j in range(2)]
    cols = [sum(c[j] for c in counts) for j in (2, 3)]
    return (
      ranks_lib.summary(ranks_lib.from_counts(*rows)),
      ranks_lib.summary(ranks_lib.from_counts(*cols)),
    )

  def on_host():
    return (
      ranks_lib.summary(ranks_lib.text_to_video(sims, item)),
      ranks_lib.summary(ranks_lib.video_to_text(sims, item)),
    )

  assert on_device() == on_host()
  seconds = timed(on_device, repeats)
  original = ORIGINAL['t2v'] + ORIGINAL['v2t']
  return dict(
    queries=captions,
    items=items,
    block=block,
    seconds=seconds,
    best=min(seconds),
    numpy_best=min(timed(on_host, repeats)),
    seconds_of_one_read_at_bandwidth=(
      sims.nbytes / 1e9 / facts['memory_gbytes_per_second']
    ),
    original_seconds=original,
    speedup=original / min(seconds),
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--config', default='configs/ce_msrvtt.py')
  parser.add_argument('--size', type=int, default=1000)
  parser.add_argument('--block', type=int, default=500)
  parser.add_argument('--repeats', type=int, default=5)
  args = parser.parse_args()
  facts = machine.measure()
  config = config_lib.load(args.config)
  results = dict(
    config=args.config,
    evaluation=evaluation(config, args.size, args.block, args.repeats, facts),
    metrics=matrix_ranks(54_270, 670, 256, args.repeats, facts),
  )
  machine.write('eval_speed', results, facts)


if __name__ == '__main__':
  main()
