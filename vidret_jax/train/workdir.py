# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: whose it is, and what made it.

config.json      the resolved config; another config is refused
versions.json    packages at the start
parameters.txt   name, shape, type and place of every tensor
checkpoints/     see `ckpt.py`
metrics.jsonl    see `writers.py`; tb/ has the same for TensorBoard
results.json     the final metrics, and of which step
report/<eval>/   pages with ranked videos
profile/         XLA traces
"""

import importlib.metadata
import json
import os
import platform

from absl import logging

from vidret_jax import config_lib as cl


def check(config, workdir):
  """Raises if the workdir belongs to a run with another config."""
  path = os.path.join(workdir, 'config.json')
  if not os.path.exists(path):
    return
  try:
    with open(path) as f:
      old = json.load(f)
  except ValueError as e:
    raise cl.ConfigError(f'{path} is not readable JSON: {e}') from e
  changed = cl.diff(old, cl.to_dict(config))
  # Where compiled programs are kept changes no number.
  changed = [c for c in changed if c[0] != 'compile_cache']
  # Only the data tell how long an epoch is; `tools.convert` leaves it open.
  changed = [c for c in changed if c[:2] != ('model.steps_per_epoch', None)]
  if changed:
    lines = [
      f'  {k}: {_short(a)} there, {_short(b)} now' for k, a, b in changed[:12]
    ]
    more = [f'  ... {len(changed) - 12} more'] if len(changed) > 12 else []
    raise cl.ConfigError(
      f'{workdir} belongs to a run with another config:\n'
      + '\n'.join(lines + more)
      + '\nuse another --workdir, or the config of that run'
    )


def _short(value):
  text = json.dumps(value)
  return text if len(text) < 60 else text[:57] + '...'


def write(config, workdir):
  """Writes config.json and versions.json; process 0 calls it."""
  os.makedirs(workdir, exist_ok=True)
  path = os.path.join(workdir, 'versions.json')
  now = versions()
  if os.path.exists(path):
    with open(path) as f:
      changed = cl.diff(json.load(f), now)
    for name, old, new in changed:
      logging.warning(
        '%s was %s when this run began, now %s: results may '
        'differ in the last bits',
        name,
        old,
        new,
      )
  else:
    with open(path, 'w') as f:
      json.dump(now, f, indent=2)
  cl.save(config, os.path.join(workdir, 'config.json'))


def versions():
  """Versions of what takes part in the arithmetic."""
  out = {'python': platform.python_version(), 'machine': platform.machine()}
  for name in (
    'vidret_jax',
    'jax',
    'jaxlib',
    'flax',
    'optax',
    'numpy',
    'orbax-checkpoint',
    'tensorflow',
  ):
    try:
      out[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      out[name] = None
  return out
