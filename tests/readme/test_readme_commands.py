# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of README.md, in order, in an empty folder.

`tests/readme/markdown.py` explains the marks that decide what is run and how.
"""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.readme import markdown

BLOCKS = markdown.blocks(markdown.ROOT / 'README.md')
COUNTS = {'train': 40, 'val': 12, 'test': 12, 'copies': 4}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A checkout without data and runs, and a small corpus in its place."""
  path = tmp_path_factory.mktemp('checkout')
  for name in ('configs', 'launch', 'benchmarks', 'requirements', 'setup.cfg'):
    (path / name).symlink_to(markdown.ROOT / name)
  from vidret_jax.data import shapes

  shapes.prepare(path / 'data', counts=COUNTS, progress=False)
  return path


def run(command, folder):
  """Runs one command as a person would, with `python` the one of the tests."""
  own = folder / 'bin'
  if not own.exists():
    own.mkdir()
    for name in ('python', 'python3'):
      # Not a link: an environment's Python finds its packages by its path.
      program = own / name
      program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
      program.chmod(0o755)
  env = {
    **os.environ,
    'PATH': f'{own}{os.pathsep}{os.environ["PATH"]}',
    'PYTHON': sys.executable,
    'PYTHONPATH': str(markdown.ROOT),
    'JAX_PLATFORMS': 'cpu',
  }
  # Optimised, as on the machine of a person.
  for name in ('VIDRET_DATA_DIR', 'JAX_DISABLE_MOST_OPTIMIZATIONS'):
    env.pop(name, None)
  env['XLA_FLAGS'] = ''
  return subprocess.run(
    ['bash', '-c', command],
    cwd=folder,
    env=env,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    timeout=600,
  )


@pytest.mark.slow
def test_commands_run(folder):
  """One test for all: later commands use what earlier ones made."""
  ran = []
  for block in BLOCKS:
    if block.how.startswith('no, '):
      continue
    assert block.how in ('', 'small'), block
    for command in block.commands:
      if block.how == 'small':
        command = markdown.small(command)
      done = run(command, folder)
      assert done.returncode == 0, f'{command}\n{done.stdout}'
      ran.append(command)
      print(command)
  assert len(ran) >= 6
  for path in (
    'runs/ce_shapes/report/test/index.html',
    'runs/ce_shapes/results.json',
    'runs/ce_shapes/metrics.jsonl',
    'runs/ce_shapes/config.json',
    'runs/ce_shapes/checkpoints',
    'runs/ce_shapes/tb',
  ):
    assert (folder / path).exists(), path


@pytest.mark.parametrize(
  'block', [b for b in BLOCKS if b.how.startswith('no')], ids=lambda b: b.line
)
def test_commands_that_are_not_run_say_why(block):
  assert len(block.how.removeprefix('no, ').split()) > 2


def test_make_demo_runs_the_commands_of_the_readme():
  """`make demo` and `make test` do what the README shows, no more."""
  plain = {c for b in BLOCKS for c in b.commands}
  for target in ('demo', 'test'):
    done = subprocess.run(
      ['make', '-n', '-B', target, 'VENV=nowhere', 'PYTHON=python3.11'],
      cwd=markdown.ROOT,
      capture_output=True,
      text=True,
      check=True,
    )
    commands = [
      line.replace('nowhere/bin/', '').replace('nowhere', '.venv')
      for line in done.stdout.splitlines()
    ]
    commands = [
      c.replace('python -m pip', 'pip').replace(' --quiet', '')
      for c in commands
      if not c.startswith(('touch', 'python3.11 -c'))
    ]
    assert len(commands) >= 3
    assert not [c for c in commands if c not in plain]


@pytest.mark.parametrize(
  'command, expected',
  [
    ('x --config configs/a.py -w b', 'x --config configs/a.py:runlocal -w b'),
    ('configs/a.py:seed=1', 'configs/a.py:seed=1,runlocal'),
    ('configs/a.py:runlocal', 'configs/a.py:runlocal'),
    ('launch/sweep.py', 'launch/sweep.py'),
  ],
)
def test_small(command, expected):
  assert markdown.small(command) == expected


def test_the_folder_is_no_machine_of_ours():
  """The commands name no absolute path."""
  words = [w for b in BLOCKS for c in b.commands for w in c.split()]
  assert not [w for w in words if pathlib.PurePath(w).is_absolute()]
