# SPDX-License-Identifier: Apache-2.0
"""Command line: trains or evaluates the system that a config describes.

python -m vidret_jax.main --config configs/ce_shapes.py --workdir runs/ce
python -m vidret_jax.main --config configs/ce_shapes.py:runlocal ...
python -m vidret_jax.main --config ... --config.optim.lr=0.01 ...
"""

import os
import sys
import traceback

from absl import app, flags

from vidret_jax import config_lib, sharding

_CONFIG = flags.DEFINE_string(
  'config', None, 'FILE.py[:key=value,...]; then --config.key=value changes it'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_MODE = flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'What to do.')
_PROFILE = flags.DEFINE_string('profile', None, 'START:STOP: trace steps.')
_TRACEBACK = flags.DEFINE_bool('traceback', False, 'Show where errors arise.')
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv, overrides=()):
  """Runs the mode; returns the exit code (0 also when asked to stop)."""
  if argv[1:]:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  try:
    sharding.start_processes()
    # Slow imports (TensorFlow) come after the flags have been checked.
    from vidret_jax.train import defaults, loop, profile, summary, writers

    summary.set_up_logging()
    config = config_lib.load(_CONFIG.value, overrides, defaults.DEFAULTS)
    steps = profile.parse(_PROFILE.value)
    writers.hide_accelerators()
    if _MODE.value == 'train':
      loop.train(config, _WORKDIR.value, steps)
    else:
      loop.evaluate(config, _WORKDIR.value)
    return 0
  except (ValueError, OSError, ArithmeticError, RuntimeError) as e:
    if _TRACEBACK.value:
      traceback.print_exc()
    print(f'\n{type(e).__name__}: {e}', file=sys.stderr, flush=True)
    return 1


def run():
  """Entry point; takes `--config.key=value` out of what absl parses."""
  change = [
    a[len('--config.') :] for a in sys.argv[1:] if a.startswith('--config.')
  ]
  rest = [a for a in sys.argv if not a.startswith('--config.')]

  def run_and_leave(argv):
    status = main(argv, change)
    if status:
      # At once: other processes may wait for a handshake that this one would
      # start, and threads of a failed save have more to say.
      sys.stdout.flush()
      os._exit(status)

  app.run(run_and_leave, argv=rest)


if __name__ == '__main__':
  run()
