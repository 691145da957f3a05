# SPDX-License-Identifier: Apache-2.0
r"""What HGR's evaluation costs: encoders, and scores of pairs.

  python -m benchmarks.ranp_scoring [--config configs/ranp_msrvtt.py]

Drawn features at the published sizes, every caption encoded once. The whole
evaluation is timed on a part of MSR-VTT's test split and its cost for the whole
split is computed from the cost of a pair. Writes
benchmarks/results/ranp_scoring.json.
"""

import argparse
import resource
import time

import jax
import numpy as np

from benchmarks import collection, graph_captions, machine
from vidret_jax import config_lib, sharding
from vidret_jax.evaluators import graded
from vidret_jax.search.programs import programs
from vidret_jax.train import defaults
from vidret_jax.train import state as state_lib

# Seconds of the original on a machine of this kind (2 cores, PyTorch 2.13).
ORIGINAL = dict(pair=34e-6, video=2.5e-3, caption=1.7e-3)
FULL = (2990, 59800)  # MSR-VTT's test split


def best(call, repeats=3):
  """Fewest seconds of a call: the machine may be busy with other things."""
  seconds = []
  for _ in range(repeats + 1):
    began = time.perf_counter()
    jax.block_until_ready(call())
    seconds.append(time.perf_counter() - began)
  return min(seconds[1:])


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--config', default='configs/ranp_msrvtt.py')
  parser.add_argument('--words', type=int, default=10_000, help='vocabulary')
  parser.add_argument('--videos', type=int, default=512)
  parser.add_argument('--captions', type=int, default=4096)
  args = parser.parse_args()
  config = config_lib.load(args.config, [f'model.num_words={args.words}'])
  config = defaults.resolve(config)
  model, spec = collection.model_and_spec(config)
  mesh = sharding.make_mesh()
  variables = jax.jit(
    state_lib.init_fn(model, spec, 0), out_shardings=sharding.replicated(mesh)
  )()
  block = config.evals.val.query_block
  items = graph_captions.Graphs(
    (f'v{i}' for i in range(args.videos)), spec, seed=1
  )
  queries = graph_captions.Captions(args.videos, args.captions, spec)
  index = np.arange(block)
  batches = [
    sharding.put_batch(x.gather(index, index), mesh) for x in (queries, items)
  ]
  p = programs(model, mesh)
  q, v = (
    p.encode_query(variables, batches[0]),
    p.encode_item(variables, batches[1]),
  )
  seconds = dict(
    caption=best(lambda: p.encode_query(variables, batches[0])) / block,
    video=best(lambda: p.encode_item(variables, batches[1])) / block,
    pair=best(lambda: p.score(variables, q, v)) / block**2,
  )
  evaluator = graded.Evaluator(model, mesh, queries=queries, items=items)
  evaluator.run(variables)
  began = time.perf_counter()
  evaluator.run(variables)
  whole = time.perf_counter() - began
  pairs = args.videos * args.captions
  expected = (
    FULL[0] * seconds['video']
    + FULL[1] * seconds['caption']
    + FULL[0] * FULL[1] * seconds['pair']
  )
  machine.write(
    'ranp_scoring',
    dict(
      config=args.config,
      block=block,
      seconds=seconds,
      original_seconds=ORIGINAL,
      speedup={k: ORIGINAL[k] / s for k, s in seconds.items()},
      evaluation=dict(
        videos=args.videos,
        captions=args.captions,
        seconds=whole,
        seconds_per_pair=whole / pairs,
      ),
      whole_test_split=dict(
        videos=FULL[0],
        captions=FULL[1],
        expected_seconds=expected,
        original_expected_seconds=FULL[0] * FULL[1] * ORIGINAL['pair'],
      ),
      peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    ),
  )


if __name__ == '__main__':
  main()
