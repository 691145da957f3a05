# SPDX-License-Identifier: Apache-2.0
"""Turns checkpoints of the original authors into runs, and back.

  python -m vidret_jax.tools.convert --system ce \\
      --config configs/ce_msrvtt.py --from trained_model.pth --to runs/released
  python -m vidret_jax.tools.convert --system ce \\
      --config configs/ce_msrvtt.py --from runs/ce --to ours.pth

The first writes a run at step 0: `vidret_jax.main --mode eval` evaluates it,
`--mode train` goes on from it, `--config.init.run=DIR` starts others from it.
The second writes what the original code loads. Both print how every array was
converted, and stop when one is missing, left over or of another shape.
PyTorch is not needed, and nothing in a file is executed.
"""

import argparse
import os
import sys

import jax

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.train import ckpt, defaults, optim, workdir
from vidret_jax.train import state as state_lib


def to_run(config, source, folder):
  """Converts a `.pth` file into a run at step 0; returns the report.

  Args:
    config: resolved config.
    source: the file.
    folder: workdir to write; must not hold checkpoints.

  Raises:
    ValueError: the file does not fit the config, or the folder is taken.
  """
  if ckpt.finished_steps(os.path.join(folder, ckpt.FOLDER)):
    raise cl.ConfigError(
      f'{folder} already holds checkpoints; name another folder with --to'
    )
  workdir.check(config, folder)
  model = _model(config)
  variables, report = cl.find('convert', config.system, 'load')(source, model)
  # The step counts decide when rates change, not what the state holds.
  tx, _ = optim.make(
    config.optim,
    config.schedule,
    params=variables['params'],
    steps_per_epoch=1000,
    total_steps=100_000,
  )
  mesh = sharding.make_mesh()
  target = state_lib.with_sharding(
    jax.eval_shape(lambda v: state_lib.start(v, tx), variables),
    [('.*', 'replicate')],
    mesh,
  )
  state = jax.jit(
    lambda v: state_lib.start(v, tx), out_shardings=state_lib.shardings(target)
  )(variables)
  workdir.write(config, folder)
  checkpoints = ckpt.Checkpoints(folder, target, None)
  try:
    checkpoints.save(0, state, {})
    checkpoints.wait()
  finally:
    checkpoints.close()
  return report


def to_file(config, folder, path, select):
  """Writes the weights of a run as a `.pth` file; returns (step, shapes)."""
  model = _model(config)
  shapes = cl.find('convert', config.system, 'variable_shapes')(model)
  mesh = sharding.make_mesh()
  target = state_lib.with_sharding(shapes, [('.*', 'replicate')], mesh)
  variables, step = ckpt.load_variables(folder, target, select)
  variables = jax.device_get(variables)
  report = cl.find('convert', config.system, 'save')(path, variables, model)
  return step, report


def _model(config):
  make = cl.find('models', config.system, 'make')
  return make(**cl.freeze(config.model))


def main(argv=None):
  """Returns the exit status."""
  argv = sys.argv[1:] if argv is None else list(argv)
  overrides = [a.removeprefix('--config.') for a in argv if _changes(a)]
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--system', help='must be that of the config')
  parser.add_argument(
    '--config', required=True, help='FILE.py[:arg]; also --config.key=value'
  )
  parser.add_argument(
    '--from', dest='source', required=True, help='FILE.pth, or a workdir'
  )
  parser.add_argument('--to', required=True, help='a workdir, or FILE.pth')
  parser.add_argument(
    '--select',
    choices=('best', 'last'),
    help='which weights of a workdir (default: as its config says)',
  )
  args = parser.parse_args([a for a in argv if not _changes(a)])
  try:
    config = cl.load(args.config, overrides, defaults.DEFAULTS)
    defaults.resolve(config)
    if args.system not in (None, config.system):
      raise cl.ConfigError(
        f'--system {args.system}, but {args.config} is of {config.system}'
      )
    if os.path.isdir(args.source):
      step, report = to_file(config, args.source, args.to, args.select)
      done = f'wrote step {step} of {args.source} to {args.to}'
    else:
      report = to_run(config, args.source, args.to)
      done = (
        f'wrote {args.to}; evaluate it with\n  python -m '
        f'vidret_jax.main --config {args.config} --workdir {args.to} '
        '--mode eval'
      )
  except (ValueError, KeyError, OSError) as error:
    print(f'convert: {error}', file=sys.stderr)
    return 1
  print(report.table())
  print(done)
  return 0


def _changes(argument):
  return argument.startswith('--config.')


def run():
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
