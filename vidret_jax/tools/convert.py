# SPDX-License-Identifier: Apache-2.0
"""Turns checkpoints of the original authors into runs, and back.

  python -m vidret_jax.tools.convert --system ce \\
      --config configs/ce_msrvtt.py --from trained_model.pth --to runs/released
  python -m vidret_jax.tools.convert --from runs/ce --to ours.pth

The first writes a run at step 0: `vidret_jax.main --mode eval` evaluates it,
`--mode train` goes on from it, `--config.init.run=DIR` starts others from it.
The second writes what the original code loads. Both print how every array was
converted, and stop when one is missing, left over or of another shape.
PyTorch is not needed, and nothing in a file is executed.

Of the system ranp, --from may be the folder of a run of the original: its
model.json replaces `model` of the config, and its logs tell the checkpoint.
Of hap_vr, what a checkpoint tells of the model replaces that of the config;
frozen networks are taken from --config.init.parts.NAME=FILE.
Of reloclnet, what model.ckpt and the opt.json beside it tell of model, data
and evaluation replaces that of the config, but for --config.key=value given.
"""

import argparse
import dataclasses
import os
import shlex
import sys

import flax
import jax

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.convert import ranp_config, ranp_runs
from vidret_jax.losses.mining import Mining
from vidret_jax.models import ranp
from vidret_jax.train import ckpt, defaults, initial, optim, workdir
from vidret_jax.train import run as run_lib
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
  # Sizes that the config leaves to the data; not every system has such.
  sizes = _optional(config, 'sizes', lambda _: {})
  run_lib.fill_sizes(config, sizes(source), source)
  workdir.check(config, folder)
  # With frozen parts that the file has not, from `init.parts`.
  flat, report = initial.convert(config, run_lib.model_of(config), source)
  report.check_whole(source)
  variables = flax.traverse_util.unflatten_dict(flat, sep='/')
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


def open_config(spec, source, overrides):
  """The config that was named, or that of a run; resolved."""
  if spec:
    config = cl.load(spec, overrides, defaults.DEFAULTS)
    defaults.resolve(config)
    return config
  path = os.path.join(source, 'config.json')
  if not os.path.isfile(path):
    raise cl.ConfigError(
      f'{source} has no config.json, so it is no run of ours: name a config '
      'with --config FILE.py[:arg]'
    )
  config = cl.load_json(path)
  for text in overrides:
    cl.override(config, *text.split('=', 1))
  return config


def unlike_run(config, folder):
  """[(key, value of the run, value here)] of models that differ."""
  run = cl.to_dict(cl.load_json(os.path.join(folder, 'config.json')))['model']
  here = cl.to_dict(config)['model']
  # What a config leaves open, the run's data have decided.
  return [x for x in cl.diff(run, here) if x[2] is not None]


def to_file(config, folder, path, select):
  """Writes the weights of a run as a `.pth` file; returns (step, shapes)."""
  left_open = [k for k, v in config.model.items() if v is None]
  if left_open:
    made = cl.load_json(os.path.join(folder, 'config.json')).model
    sizes = {k: made[k] for k in left_open if type(made.get(k)) is int}
    run_lib.fill_sizes(config, sizes, folder)
  model = run_lib.model_of(config)
  mesh = sharding.make_mesh()
  target = state_lib.with_sharding(
    ckpt.abstract(folder, select), [('.*', 'replicate')], mesh
  )
  variables, step = ckpt.load_variables(folder, target, select)
  variables = jax.device_get(variables)
  # What a file says of its data, where upstream's do.
  facts = _optional(config, 'facts', lambda _: {})(config)
  save = cl.find('convert', config.system, 'save')
  return step, save(path, variables, model, **facts)


def take_run(config, folder, metric):
  """Makes a config describe a run of the original; picks its checkpoint.

  Args:
    config: resolved config of the system ranp, changed in place.
    folder: of upstream's run, with model.json, log/ and model/.
    metric: that chooses the checkpoint.

  Returns:
    (file, [(option, old value, new value)]).
  """
  if config.system != 'ranp':
    raise cl.ConfigError(
      f'{folder} is a run of the original RANP, the config is of '
      f'{config.system}'
    )
  options = ranp_config.model_config(
    ranp_runs.read_json(os.path.join(folder, 'model.json'))
  )
  before = cl.to_dict(config)['model']
  if options['backbone'] != before.get('backbone'):
    raise cl.ConfigError(
      f'{folder} is a run of {options["backbone"]}, the config is of '
      f'{before.get("backbone")}; take FILE.py:backbone={options["backbone"]}'
    )
  path = str(ranp_runs.selected(folder, metric))
  usual = ranp.make(backbone=options['backbone'], num_words=1)
  given = before.get('mining') or {}
  mining = dataclasses.asdict(Mining(**options['mining']))
  options['mining'] = _told(mining, given, Mining())
  options = _told(options, before, usual)
  with config.unlocked(), config.ignore_type():
    config.model = {**before, **options}
  changes = cl.diff(before, cl.to_dict(config)['model'])
  return path, [(f'model.{key}', old, new) for key, old, new in changes]


def take_described(config, source, overrides):
  """Makes a config that of a checkpoint which describes itself, in place.

  Args:
    config: resolved config of a system whose converter has `describe`.
    source: a file, or the folder of a run of the original.
    overrides: 'key=value' that stay as they are.

  Returns:
    (file, [(option, old value, new value)], options told that the config does
    not name).
  """
  path, values = _optional(config, 'describe', None)(source)
  before = cl.to_dict(config)
  _optional(config, 'check_config', lambda *_: None)(before, values)
  entries = list(config.evals.values())
  nodes = dict(
    model=[config.model],
    data=[config.input.data, *(e.data for e in entries if 'data' in e)],
    search=[e.search for e in entries if 'search' in e],
  )
  unnamed = []
  for part, told in values.items():
    for node in nodes[part]:
      _fill(node, told)
    unnamed += [
      f'{part}.{key}={value!r}'
      for key, value in told.items()
      if not any(key in node for node in nodes[part])
    ]
  for text in overrides:
    cl.override(config, *text.split('=', 1))
  return path, cl.diff(before, cl.to_dict(config)), unnamed


def _fill(node, values):
  """Sets the keys that a part of a config has."""
  with node.unlocked(), node.ignore_type():
    for key, value in values.items():
      if key not in node:
        continue
      if isinstance(value, dict) and node[key] is not None:
        _fill(node[key], value)
      elif type(node[key]) is int and type(value) is float:
        # The command line, too, takes a whole number for what is one.
        node[key] = int(value) if value.is_integer() else value
      else:
        node[key] = value


def _optional(config, name, default):
  """What only some converters have."""
  load = cl.find('convert', config.system, 'load')
  return getattr(sys.modules[load.__module__], name, default)


def _describes_itself(config, source):
  """Whether to `take_described`: not of workdirs of our own."""
  if _optional(config, 'describe', None) is None:
    return False
  own = os.path.isfile(os.path.join(source, 'config.json'))
  return not own


def _told(options, config, usual):
  """Options that a config has, or that are not what goes without saying."""
  return {
    k: v
    for k, v in options.items()
    if k in config or v != getattr(usual, k, None)
  }


def main(argv=None):
  """Returns the exit status."""
  argv = sys.argv[1:] if argv is None else list(argv)
  overrides = [a.removeprefix('--config.') for a in argv if _changes(a)]
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--system', help='must be that of the config')
  parser.add_argument(
    '--config',
    help='FILE.py[:arg]; also --config.key=value (default: that of the run)',
  )
  parser.add_argument(
    '--from',
    dest='source',
    required=True,
    help='FILE.pth, a workdir, or a run folder of an original',
  )
  parser.add_argument(
    '--to',
    required=True,
    help='a workdir, or FILE.pth (or what the original calls it)',
  )
  parser.add_argument(
    '--select',
    choices=('best', 'last'),
    help='which weights of a workdir (default: as its config says)',
  )
  parser.add_argument(
    '--metric',
    default=ranp_runs.METRIC,
    help="by which a run of the original is read (default: upstream's)",
  )
  args = parser.parse_args([a for a in argv if not _changes(a)])
  try:
    config = open_config(args.config, args.source, overrides)
    if args.system not in (None, config.system):
      raise cl.ConfigError(
        f'--system {args.system}, but {args.config} is of {config.system}'
      )
    source, changes, unnamed, unlike = args.source, [], [], []
    if ranp_runs.is_one(source):
      source, changes = take_run(config, source, args.metric)
    elif _describes_itself(config, source):
      source, changes, unnamed = take_described(config, source, overrides)
    if os.path.isdir(source):
      unlike = unlike_run(config, source)
      step, report = to_file(config, source, args.to, args.select)
      done = f'wrote step {step} of {source} to {args.to}'
    else:
      report = to_run(config, source, args.to)
      flags = [f'{k}={v}' for k, _, v in changes] + overrides
      flags = [shlex.quote(f'--config.{flag}') for flag in flags]
      done = (
        f'wrote {args.to} from {source}; evaluate it with\n  python -m '
        f'vidret_jax.main --config {args.config} --workdir {args.to} '
        + ' '.join(['--mode eval', *flags])
      )
  except (ValueError, KeyError, OSError) as error:
    print(f'convert: {error}', file=sys.stderr)
    return 1
  print(report.table())
  for key, run, here in unlike:
    print(f'model.{key}: the run has {run!r}, this config {here!r}')
  if unnamed:
    print('told by the original, not named in the config:', ', '.join(unnamed))
  print(done)
  return 0


def _changes(argument):
  return argument.startswith('--config.')


def run():
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
