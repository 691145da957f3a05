# SPDX-License-Identifier: Apache-2.0
r"""Train step of CE at the paper's MSR-VTT sizes, on random features.

  python -m benchmarks.train_step [--config configs/ce_msrvtt.py] [--steps 15]

Times the very program that the trainer compiles (loss, gradients, Ranger),
once warm, and puts it beside what the machine can do: its matmul rate and its
memory bandwidth. Writes benchmarks/results/train_step.json, or, when started as

  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.train_step

benchmarks/results/train_step_huge_pages.json: an update takes a gigabyte of
fresh memory, and Linux on CPUs spends much of its time on small pages of it.
"""

import argparse
import os
import resource
import statistics
import time

import jax
import numpy as np

from benchmarks import machine
from vidret_jax import config_lib, sharding
from vidret_jax.train import defaults, optim
from vidret_jax.train import state as state_lib
from vidret_jax.train import step as step_lib

# Seconds of the original on a machine of this kind (2 cores, PyTorch 2.13).
ORIGINAL = 1.6


def spec_of(config):
  """Shapes of a training batch, as the data source would state them."""
  f32, flag = np.dtype('float32'), np.dtype(bool)
  experts = [(name, dict(value)) for name, value in config.model.experts]
  text = config.model.text
  rows = {n: e['max_tokens'] for n, e in experts if e.get('max_tokens')}
  return dict(
    text=((text.max_tokens, text.dim), f32),
    text_mask=((text.max_tokens,), flag),
    experts={
      n: ((rows[n], e['dim']) if n in rows else (e['dim'],), f32)
      for n, e in experts
    },
    experts_mask={n: ((k,), flag) for n, k in rows.items()},
    available=((len(experts),), flag),
    _mask=((), flag),
  )


def random_batch(spec, rows, rng):
  """Features from a normal distribution, everything present and valid."""

  def build(node):
    if isinstance(node, dict):
      return {k: build(v) for k, v in node.items()}
    shape, dtype = node
    if np.issubdtype(dtype, np.bool_):
      return np.ones((rows, *shape), bool)
    return rng.standard_normal((rows, *shape), dtype=np.float32)

  return build(spec)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--config', default='configs/ce_msrvtt.py')
  parser.add_argument('--steps', type=int, default=15)
  args = parser.parse_args()

  config = defaults.resolve(config_lib.load(args.config))
  model = config_lib.find('models', config.system, 'make')(
    **config_lib.freeze(config.model)
  )
  mesh = sharding.make_mesh(config.mesh)
  spec, rows = spec_of(config), config.input.batch_size
  variables = jax.jit(state_lib.init_fn(model, spec, 0))()
  count = sum(x.size for x in jax.tree.leaves(variables['params']))
  tx, lr = optim.make(
    config.optim,
    config.schedule,
    params=variables['params'],
    steps_per_epoch=102,
    total_steps=10200,
  )
  state = jax.jit(lambda v: state_lib.start(v, tx))(variables)
  del variables
  batch = sharding.put_batch(
    random_batch(spec, rows, np.random.default_rng(0)), mesh
  )
  watch = step_lib.new_watch(state.params, sharding.replicated(mesh))
  began = time.perf_counter()
  program = (
    jax.jit(step_lib.make(model, tx, lr, 0), donate_argnums=0)
    .lower(state, watch, batch)
    .compile()
  )
  compiled = time.perf_counter() - began

  times = []
  for _ in range(args.steps + 3):
    began = time.perf_counter()
    state, watch, scalars = program(state, watch, batch)
    jax.block_until_ready(state)
    times.append(time.perf_counter() - began)
  times = times[3:]  # The first steps find their memory untouched.
  median = statistics.median(times)

  facts = machine.measure()
  cost = program.cost_analysis()
  # Parameters, both moments and the slow weights are read, the first three
  # and the gradient written, the gradient read: what no fusion can avoid.
  moved = 4 * count * 9
  rate = cost['flops'] / median / 1e9
  huge = 'hugetlb=1' in os.environ.get('GLIBC_TUNABLES', '')
  machine.write(
    'train_step' + '_huge_pages' * huge,
    dict(
      config=args.config,
      batch_size=rows,
      parameters=count,
      seconds=dict(median=median, min=min(times), max=max(times), all=times),
      examples_per_second=rows / median,
      compile_seconds=compiled,
      gflop=cost['flops'] / 1e9,
      gflops=rate,
      fraction_of_matmul_peak=rate / facts['matmul_gflops'],
      optimiser_bytes=moved,
      seconds_of_matmul_at_peak=cost['flops'] / 1e9 / facts['matmul_gflops'],
      seconds_of_optimiser_at_bandwidth=(
        moved / 1e9 / facts['memory_gbytes_per_second']
      ),
      peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
      original_seconds=ORIGINAL,
      speedup=ORIGINAL / median,
      loss=float(scalars['train/loss']),
    ),
    facts,
  )


if __name__ == '__main__':
  main()
