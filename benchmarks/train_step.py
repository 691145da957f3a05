# SPDX-License-Identifier: Apache-2.0
r"""Train step at the paper's MSR-VTT sizes, on random features or frames.

  python -m benchmarks.train_step
  python -m benchmarks.train_step --config configs/eercf_msrvtt.py \
      --config.input.batch_size=2 --config.model.dtype=float32
  python -m benchmarks.train_step --config configs/reloclnet_tvr.py \
      --config.model.steps_per_epoch=682

Times the very program that the trainer compiles (loss, gradients, optimiser),
once warm, and puts it beside what the machine can do: its matmul rate and its
memory bandwidth. Weights are drawn. Writes benchmarks/results/train_step.json
for CE, <system>_train_step.json for others, or, when started as

  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.train_step

..._huge_pages.json: an update takes a gigabyte of fresh memory, and Linux on
CPUs spends much of its time on small pages of it.
"""

import argparse
import os
import resource
import statistics
import sys
import time

import jax
import numpy as np

from benchmarks import clips, collection, graph_captions, machine
from vidret_jax import config_lib, sharding
from vidret_jax.train import defaults, optim
from vidret_jax.train import state as state_lib
from vidret_jax.train import step as step_lib

# Batch size and seconds of the original on a machine of this kind (2 cores,
# PyTorch 2.13).
ORIGINAL = dict(
  ce=(64, 1.6),
  eercf=(2, 6.2),
  hgr_msrvtt_graphs=(64, 1.85),
  hgr_epic_kitchens_graphs=(64, 1.59),
  eao_msrvtt_graphs=(8, 3.1),
  reloclnet=(128, 6.8),
)

# Where sentences or videos must be as long as published ones.
SOURCES = dict(ranp=graph_captions.Graphs, reloclnet=clips.Clips)


def size_of(tree):
  """Bytes of all arrays."""
  return sum(x.nbytes for x in jax.tree.leaves(tree))


def main(argv=None):
  argv = sys.argv[1:] if argv is None else list(argv)
  changes = [a for a in argv if a.startswith('--config.')]
  parser = argparse.ArgumentParser(
    description=__doc__.split('\n')[0],
    epilog='--config.key=value changes a value of the config',
  )
  parser.add_argument('--config', default='configs/ce_msrvtt.py')
  parser.add_argument('--steps', type=int, default=15)
  parser.add_argument('--name', help='of the result; default: by the system')
  args = parser.parse_args([a for a in argv if a not in changes])

  config = defaults.resolve(
    config_lib.load(args.config, [a.removeprefix('--config.') for a in changes])
  )
  mesh = sharding.make_mesh(config.mesh)
  model, spec = collection.model_and_spec(config)
  rows = config.input.batch_size
  variables = jax.jit(state_lib.init_fn(model, spec, 0))()
  count = sum(x.size for x in jax.tree.leaves(variables['params']))
  trained = optim.trained(config.schedule, variables['params'])
  tx, lr = optim.make(
    config.optim,
    config.schedule,
    params=variables['params'],
    steps_per_epoch=102,
    total_steps=10200,
  )
  state = jax.jit(lambda v: state_lib.start(v, tx))(variables)
  del variables
  index = np.arange(rows)
  drawn = SOURCES.get(config.system, collection.Drawn)(map(str, index), spec)
  batch = sharding.put_batch(drawn.gather(index, index), mesh)
  watch = step_lib.new_watch(state.params, sharding.replicated(mesh))
  began = time.perf_counter()
  program = (
    jax.jit(
      step_lib.make(model, tx, lr, 0, config.accum_steps, trained),
      donate_argnums=0,
    )
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
  # Parameters and the optimiser's state are read and written, and so is the
  # gradient: what no fusion can avoid. Ranger writes its slow weights rarely.
  moved = 2 * (size_of(state.params) + size_of(state.opt_state) + 4 * count)
  moved -= 4 * count * (config.optim.name == 'ranger')
  rate = cost['flops'] / median / 1e9
  huge = 'hugetlb=1' in os.environ.get('GLIBC_TUNABLES', '')
  # One system may have several networks, at sizes of the dataset.
  system = config.system
  if 'backbone' in config.model:
    system = f'{config.model.backbone}_{config.input.data.name}'
  original = ORIGINAL[system]
  name = args.name or f'{system}_train_step'.removeprefix('ce_')
  # Another batch cannot be compared.
  original = original[1] if original[0] == rows else None
  machine.write(
    name + '_huge_pages' * huge,
    dict(
      config=args.config,
      changes=changes,
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
      original_seconds=original,
      speedup=original and original / median,
      loss=float(scalars['train/loss']),
    ),
    facts,
  )


if __name__ == '__main__':
  main()
