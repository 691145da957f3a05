# SPDX-License-Identifier: Apache-2.0
"""Every config key that the trainer reads, and what it means when absent."""

import os

import jax

from vidret_jax import config_lib as cl

# Keys without which there is nothing to run.
REQUIRED = ('system', 'model', 'input', 'optim', 'schedule')

DEFAULTS = dict(
  seed=0,  # of the weights, the data order and every random draw
  accum_steps=1,  # microbatches per update; see `step.py` for what it means
  mesh=[('data', -1)],
  sharding=[('.*', 'replicate')],  # of the whole state; see `sharding.py`
  evals={},  # name -> dict(type, when, log_*, report, the evaluator's own)
  best=None,  # metric that ranks checkpoints, e.g. 'val/t2v_geom'; maximised
  # Evaluations of `best` without a better one, after which training ends; None:
  # never. Looked at between epochs; schedules know nothing of it.
  patience=None,
  select='last',  # weights of the final evaluations: 'best' or 'last'
  init=dict(
    run=None,  # workdir of another run, to start from its selected weights
    torch=None,  # file of the original authors, to convert
    # Files of single parts, e.g. of frozen networks: {part: file}; None: has to
    # be named, '': the part is drawn. The converter of the system names its
    # parts. They go before run and torch.
    parts={},
    # Parts that are fitted to training data: {part: number of batches or None};
    # one that any of the above gives stays as it is.
    fit={},
  ),
  compile_cache=True,  # False: off; a string: the folder
)
INPUT = dict(epoch_end='drop', prefetch=2)
INPUT_KEYS = ('data', 'batch_size', *INPUT)
# Keys of one entry of `evals` that are the trainer's; the rest goes to the
# evaluator. 'train': while training, as `log_*` says, and at the end. 'final':
# only on the selected weights.
EVAL_KEYS = ('type', 'when', 'report', *cl.duration_keys('log'))


def resolve(config):
  """Checks the keys of a config and fills in the defaults, in place.

  Raises:
    ConfigError: for an unknown, missing or contradictory key.
  """
  absent = [k for k in REQUIRED if k not in config]
  if absent:
    raise cl.ConfigError(f'the config lacks {", ".join(absent)}')
  cl.with_defaults(config, dict(DEFAULTS, input=INPUT))
  durations = [k for p in ('total', 'log', 'ckpt') for k in cl.duration_keys(p)]
  cl.check_keys(config, (*REQUIRED, *DEFAULTS, *durations), 'the config')
  cl.check_keys(config.input, INPUT_KEYS, 'input')
  cl.check_keys(config.init, DEFAULTS['init'], 'init')
  for name, entry in config.evals.items():
    if 'type' not in entry or entry.get('when', 'train') not in (
      'train',
      'final',
    ):
      raise cl.ConfigError(
        f"evals.{name} needs a type, and when='train' or 'final'"
      )
  if config.select not in ('best', 'last'):
    raise cl.ConfigError(
      f"select must be 'best' or 'last', not {config.select!r}"
    )
  if config.select == 'best' and not config.best:
    raise cl.ConfigError("select='best' needs best='<evaluator>/<metric>'")
  if config.patience is not None and not config.best:
    raise cl.ConfigError("patience needs best='<evaluator>/<metric>'")
  if config.best:
    name = config.best.split('/')[0]
    training = [
      k for k, e in config.evals.items() if e.get('when', 'train') == 'train'
    ]
    if name not in training:
      raise cl.ConfigError(
        f'best={config.best!r} must name a metric of an evaluator that runs '
        f'while training: {", ".join(training) or "there is none"}'
      )
  return config


def use_compile_cache(where):
  """Keeps compiled programs on disk, so that a restart compiles nothing.

  Args:
    where: True for the user's cache folder, a path, or False.
  """
  if not where:
    return
  if where is True:
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    where = os.path.join(home, 'vidret_jax', 'xla')
  os.makedirs(where, exist_ok=True)
  jax.config.update('jax_compilation_cache_dir', where)
