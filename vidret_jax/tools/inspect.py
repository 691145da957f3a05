# SPDX-License-Identifier: Apache-2.0
"""Shows what a config makes, or what a workdir or a file holds.

  python -m vidret_jax.tools.inspect --config configs/ce_shapes.py
  python -m vidret_jax.tools.inspect --config configs/ce_msrvtt.py --no_programs
  python -m vidret_jax.tools.inspect --workdir runs/ce_shapes
  python -m vidret_jax.tools.inspect model.ckpt

Of a config: its values, the parameters of the model, and the cost of the
compiled programs (training step, encoders, scores) as XLA counts it. Nothing
is trained, and expert datasets need not be on this machine: their widths are
in the config. Of a workdir: its results and what its checkpoints contain. Of
a file of the original authors: its arrays and plain values, without running
what is in it.
"""

import argparse
import json
import math
import os
import sys
import time

import jax
import jax.numpy as jnp
from rich import box
from rich.console import Console
from rich.table import Table

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.data import batch_layout
from vidret_jax.search import programs as programs_lib
from vidret_jax.tools import file_content
from vidret_jax.train import ckpt, defaults, optim
from vidret_jax.train import run as run_lib
from vidret_jax.train import state as state_lib
from vidret_jax.train import step as step_lib


def batch_spec(data):
  """The spec of training batches; without the files if need be.

  Args:
    data: frozen `input.data` of a config.

  Returns:
    (spec, whether the dataset is on this machine, sizes that the data tell).

  Raises:
    FileNotFoundError: it is not, and only its files know the shapes.
  """
  kwargs = dict(data)
  make = cl.find('data', kwargs.pop('name'), 'make')
  try:
    source = make(view='pairs', **kwargs)
    return source.spec, True, getattr(source, 'sizes', {})
  except FileNotFoundError:
    if 'experts' not in kwargs or 'text' not in kwargs:
      raise
  layout = batch_layout.BatchLayout(
    kwargs['experts'], kwargs['text'], kwargs.get('drop', ())
  )
  return {**layout.text_spec(), **layout.video_spec()}, False, {}


def costs(config, model, spec):
  """Compiles the programs of a run and yields what each costs.

  Args:
    config: resolved config.
    model: its Retriever.
    spec: of training batches.

  Yields:
    (name, rows, compiled program, seconds it took to compile).
  """
  mesh = sharding.make_mesh(config.mesh)
  rows = config.input.batch_size
  variables = state_lib.abstract(model, spec, config.seed)
  # Durations only decide when rates change, not what a step computes.
  tx, rate = optim.make(
    config.optim,
    config.schedule,
    params=variables['params'],
    steps_per_epoch=1000,
    total_steps=100_000,
  )
  target = state_lib.with_sharding(
    jax.eval_shape(lambda v: state_lib.start(v, tx), variables),
    config.sharding,
    mesh,
  )
  place = sharding.batch_sharding(mesh)
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    jax.eval_shape(lambda: state_lib.zero_batch(spec, rows)),
  )
  n = len(jax.tree.leaves(variables['params']))
  watch = step_lib.Watch(
    jax.ShapeDtypeStruct((), jnp.int32),
    jax.ShapeDtypeStruct((), jnp.float32),
    jax.ShapeDtypeStruct((n,), jnp.float32),
  )
  update = jax.jit(
    step_lib.make(
      model,
      tx,
      rate,
      config.seed,
      config.accum_steps,
      optim.trained(config.schedule, variables['params']),
    ),
    donate_argnums=0,
  )
  programs = programs_lib.programs(model, mesh)
  weights = target.variables
  queries = jax.eval_shape(programs.encode_query, weights, batch)
  items = jax.eval_shape(programs.encode_item, weights, batch)
  for name, function, args in (
    ('training step', update, (target, watch, batch)),
    ('encode_query', programs.encode_query, (weights, batch)),
    ('encode_item', programs.encode_item, (weights, batch)),
    ('score', programs.score, (weights, queries, items)),
  ):
    began = time.monotonic()
    yield name, rows, function.lower(*args).compile(), time.monotonic() - began


def show_config(config, console):
  """Prints every key with its value."""
  console.rule('config')
  for key, value in _flat(cl.to_dict(config)):
    console.print(f'{key} = {value!r}', markup=False, highlight=False)


def _flat(node, prefix=''):
  for key, value in node.items():
    name = f'{prefix}{key}'
    if isinstance(value, dict) and value:
      yield from _flat(value, name + '.')
    else:
      yield name, value


def show_leaves(title, leaves, console):
  """Prints a table of {name: (shape, dtype)} and the totals."""
  console.rule(title)
  table = Table(box=box.SIMPLE)
  table.add_column('name', overflow='fold')
  for name in ('shape', 'type', 'size'):
    table.add_column(name, justify='right' if name == 'size' else 'left')
  size = nbytes = 0
  for name, (shape, dtype) in leaves.items():
    count = math.prod(shape)
    size += count
    nbytes += count * jnp.dtype(dtype).itemsize
    table.add_row(name, str(tuple(shape)), str(dtype), f'{count:,}')
  console.print(table)
  console.print(f'{len(leaves)} arrays, {size:,} values, {_bytes(nbytes)}')


def show_costs(rows, console):
  """Prints what `costs` yields."""
  console.rule('programs, on one device of this machine')
  table = Table(box=box.SIMPLE)
  table.add_column('program')
  for name in ('rows', 'GFLOP', 'read+written', 'peak', 'compiled in'):
    table.add_column(name, justify='right')
  for name, batch, program, seconds in rows:
    cost, memory = program.cost_analysis() or {}, program.memory_analysis()
    table.add_row(
      *(name, str(batch), f'{cost.get("flops", math.nan) / 1e9:,.3f}'),
      *(_bytes(cost.get('bytes accessed', math.nan)), _peak(memory)),
      f'{seconds:.1f} s',
    )
  console.print(table)
  console.print('score: all pairs of that many queries and items')


def _peak(memory):
  """Arguments, results and workspace, arrays that share memory once."""
  return _bytes(
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    + memory.temp_size_in_bytes
    - memory.alias_size_in_bytes
  )


def _bytes(n):
  if math.isnan(n):
    return '?'
  for unit in ('B', 'KiB', 'MiB', 'GiB'):
    if n < 1024 or unit == 'GiB':
      return f'{n:,.0f} {unit}' if unit == 'B' else f'{n:,.1f} {unit}'
    n /= 1024


def inspect_config(spec, overrides, programs, console):
  """Prints values, parameters and, if asked, the cost of a config."""
  config = cl.load(spec, overrides, defaults.DEFAULTS)
  defaults.resolve(config)
  show_config(config, console)
  data, here, sizes = batch_spec(cl.freeze(config.input.data))
  if not here:
    console.print('The dataset is not on this machine; shapes: the config.')
  run_lib.fill_sizes(config, sizes, config.input.data.name)
  model = run_lib.model_of(config)
  variables = state_lib.abstract(model, data, config.seed)
  show_leaves('variables', state_lib.describe(variables), console)
  if programs:
    show_costs(list(costs(config, model, data)), console)


def inspect_workdir(workdir, console):
  """Prints results and checkpoints of a run.

  Raises:
    FileNotFoundError: it is not the workdir of a run.
  """
  path = os.path.join(workdir, 'config.json')
  if not os.path.isfile(path):
    raise FileNotFoundError(
      f'{workdir} has no config.json: it is not the workdir of a run'
    )
  with open(path) as f:
    config = json.load(f)
  console.print(f'system {config["system"]}, seed {config["seed"]}')
  results = os.path.join(workdir, 'results.json')
  if os.path.isfile(results):
    with open(results) as f:
      content = json.load(f)
    console.rule(f'results of {content["weights"]}')
    for key, value in content['metrics'].items():
      console.print(f'{key} = {value:.4g}', markup=False, highlight=False)
    for caveat in content['caveats']:
      console.print(caveat, markup=False)
  else:
    console.print('no results.json: the run has not come to its end')
  folder = os.path.join(workdir, ckpt.FOLDER)
  steps = ckpt.finished_steps(folder)
  if not steps:
    console.print(f'no checkpoint in {folder}')
  leaves = None
  for step in steps:
    with open(os.path.join(folder, str(step), 'meta', 'metadata')) as f:
      meta = json.load(f)
    ranked = ', '.join(f'{k} {v:.4g}' for k, v in meta['metrics'].items())
    console.print(f'checkpoint {step}  {ranked}', markup=False, highlight=False)
    leaves = meta['leaves']
  if leaves:
    show_leaves(f'checkpoint {steps[-1]}', leaves, console)


def inspect_file(path, console):
  """Prints what a file of PyTorch holds.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
  """
  found = file_content.read(path)
  show_leaves(path, found.arrays, console)
  for name, value in found.values.items():
    text = f'{name} = {value!r}'[:200]
    console.print(text, markup=False, highlight=False)
  if found.system:
    console.rule(f'{found.system}: what tools.convert takes from it')
  for name, value in _flat(found.told):
    console.print(f'{name} = {value!r}', markup=False, highlight=False)
  if found.note:
    console.print(found.note, markup=False, highlight=False)


def main(argv=None):
  """Returns the exit status."""
  argv = sys.argv[1:] if argv is None else list(argv)
  overrides = [a.removeprefix('--config.') for a in argv if _changes(a)]
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument('--config', help='FILE.py[:arg]; also --config.key=value')
  what.add_argument('--workdir', help='folder of a run')
  what.add_argument('file', nargs='?', help='of the original authors')
  parser.add_argument(
    '--no_programs', action='store_true', help='compile nothing'
  )
  args = parser.parse_args([a for a in argv if not _changes(a)])
  console = Console(width=None if sys.stdout.isatty() else 100)
  try:
    if args.config:
      inspect_config(args.config, overrides, not args.no_programs, console)
    elif args.file:
      inspect_file(args.file, console)
    else:
      inspect_workdir(args.workdir, console)
  except (ValueError, KeyError, FileNotFoundError) as error:
    print(f'inspect: {error}', file=sys.stderr)
    return 1
  return 0


def _changes(argument):
  return argument.startswith('--config.')


def run():
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
