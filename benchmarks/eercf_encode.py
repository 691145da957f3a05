# SPDX-License-Identifier: Apache-2.0
r"""Encoding of clips and sentences by EERCF at full size.

  python -m benchmarks.eercf_encode [--config configs/eercf_msrvtt.py]

Times the programs that evaluation and search use, with drawn weights, for
blocks of clips of 12 frames and blocks of sentences, in float32 and bfloat16,
and says how far they are from the machine's matmul rate. Writes
benchmarks/results/eercf_encode.json.
"""

import argparse
import time

import jax
import numpy as np

from benchmarks import collection, machine
from vidret_jax import config_lib, sharding
from vidret_jax.search.programs import programs
from vidret_jax.train import state as state_lib

# Seconds of the original for one clip and for one sentence, in float32, on a
# machine of this kind (2 cores, PyTorch 2.13).
ORIGINAL = dict(encode_item=0.95, encode_query=0.023)


def measure(program, variables, batch, rows, repeats, facts):
  """Times one compiled program."""
  began = time.perf_counter()
  compiled = program.lower(variables, batch).compile()
  compile_seconds = time.perf_counter() - began
  emb = jax.block_until_ready(compiled(variables, batch))
  seconds = []
  for _ in range(repeats):
    began = time.perf_counter()
    jax.block_until_ready(compiled(variables, batch))
    seconds.append(time.perf_counter() - began)
  gflop = compiled.cost_analysis()['flops'] / 1e9
  best = min(seconds)
  return emb, dict(
    rows=rows,
    seconds=seconds,
    seconds_per_row=best / rows,
    compile_seconds=compile_seconds,
    gflop_per_row=gflop / rows,
    gflops=gflop / best,
    fraction_of_matmul_peak=gflop / best / facts['matmul_gflops'],
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--config', default='configs/eercf_msrvtt.py')
  parser.add_argument('--clips', type=int, default=8)
  parser.add_argument('--sentences', type=int, default=64)
  parser.add_argument('--repeats', type=int, default=5)
  args = parser.parse_args()
  facts, mesh = machine.measure(), sharding.make_mesh()
  types, first = {}, {}
  for dtype in ('float32', 'bfloat16'):
    config = config_lib.load(args.config, [f'model.dtype={dtype}'])
    model, spec = collection.model_and_spec(config)
    variables = jax.jit(state_lib.init_fn(model, spec, 0))()
    p, types[dtype] = programs(model, mesh), {}
    for name, rows, keys in (
      ('encode_item', args.clips, ('frames', 'frame_mask')),
      ('encode_query', args.sentences, ('text',)),
    ):
      index = np.arange(rows)
      part = {key: spec[key] for key in (*keys, '_mask')}
      batch = collection.Drawn(map(str, index), part).gather(index, index)
      emb, found = measure(
        getattr(p, name),
        variables,
        sharding.put_batch(batch, mesh),
        rows,
        args.repeats,
        facts,
      )
      found['original_seconds'] = ORIGINAL[name]
      found['speedup'] = ORIGINAL[name] / found['seconds_per_row']
      # Vectors are unit: the product is the cosine with those of float32.
      key = 'video' if name == 'encode_item' else 'sentence'
      vectors = np.asarray(emb[key], np.float32)
      cosines = (vectors * first.setdefault(name, vectors)).sum(-1)
      found['lowest_cosine_with_float32'] = float(cosines.min())
      types[dtype][name] = found
  machine.write('eercf_encode', dict(config=args.config, types=types), facts)


if __name__ == '__main__':
  main()
