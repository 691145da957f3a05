# SPDX-License-Identifier: Apache-2.0
"""Virtual devices for processes that tests start."""

import os
import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def flags(count):
  """The value of XLA_FLAGS for so many CPU devices, else as here."""
  more = f'--xla_force_host_platform_device_count={count}'
  return f'{os.environ.get("XLA_FLAGS", "")} {more}'


def run(count, *command):
  """Runs Python with so many CPU devices; returns what it printed."""
  done = subprocess.run(
    [sys.executable, *command],
    cwd=_ROOT,
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(_ROOT),
      'XLA_FLAGS': flags(count),
    },
    text=True,
    capture_output=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout
