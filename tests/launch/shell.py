# SPDX-License-Identifier: Apache-2.0
"""Runs the shell launchers; stands in for programs that are not at hand."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / 'launch'


def run(script, *args, env=None, cwd=ROOT, timeout=60):
  return subprocess.run(
    ['bash', str(LAUNCH / script), *args],
    env={**os.environ, 'PYTHON': sys.executable, **(env or {})},
    cwd=cwd,
    capture_output=True,
    text=True,
    timeout=timeout,
  )


def program(folder, name, text):
  """Writes an executable and returns the PATH that finds it first."""
  path = folder / name
  path.write_text('#!/usr/bin/env bash\n' + text)
  path.chmod(0o755)
  return f'{folder}{os.pathsep}{os.environ["PATH"]}'
