# SPDX-License-Identifier: Apache-2.0
"""launch/local_hosts.sh, run: real processes, real JAX, real signals."""

import json
import os
import shlex
import subprocess
import sys
import time

import pytest

from tests.launch.shell import LAUNCH, run
from tests.train.tiny import command


def test_local_hosts_dry_run():
  done = run('local_hosts.sh', '--dry_run', '2', '4', '--', '--config', 'a b')
  lines = [shlex.split(line) for line in done.stdout.splitlines()]
  assert done.returncode == 0 and len(lines) == 2
  for i, line in enumerate(lines):
    assert f'VIDRET_PROCESS_ID={i}' in line
    assert 'VIDRET_NUM_PROCESSES=2' in line
    assert line[-5:] == [
      *(sys.executable, '-m', 'vidret_jax.main', '--config', 'a b')
    ]
    assert any(w.endswith('device_count=4') for w in line)
  coordinators = {w for l in lines for w in l if 'VIDRET_COORDINATOR' in w}
  assert len(coordinators) == 1


@pytest.mark.parametrize(
  'args, told',
  [
    ((), "PROCESSES, a positive integer, found ''"),
    (('0', '4', '--'), "PROCESSES, a positive integer, found '0'"),
    (('2', 'x', '--'), "DEVICES_EACH, a positive integer, found 'x'"),
    (('2', '4', '--config'), "'--' after DEVICES_EACH, found '--config'"),
  ],
)
def test_local_hosts_usage(args, told):
  done = run('local_hosts.sh', *args)
  assert done.returncode == 2
  assert told in done.stderr


def _package(folder, code):
  """A package of our name whose main is `code`, for the launcher alone."""
  package = folder / 'vidret_jax'
  package.mkdir()
  (package / '__init__.py').write_text('')
  (package / 'main.py').write_text(
    'import os, signal, sys, time\n'
    'i = int(os.environ["VIDRET_PROCESS_ID"])\n' + code
  )
  return folder


def test_local_hosts_makes_one_world(tmp_path):
  """Two real JAX processes with three devices each see six."""
  folder = _package(
    tmp_path,
    'import jax\n'
    'jax.distributed.initialize(os.environ["VIDRET_COORDINATOR"],\n'
    '  int(os.environ["VIDRET_NUM_PROCESSES"]), i)\n'
    'print(jax.process_index(), jax.device_count(), flush=True)\n',
  )
  done = run('local_hosts.sh', '2', '3', '--', cwd=folder, timeout=120)
  assert done.returncode == 0, done.stderr
  assert set(done.stdout.splitlines()) == {'0 6', '[1] 1 6'}


@pytest.mark.slow
def test_local_hosts_trains_as_one_process_does(tmp_path):
  """Two processes with four devices each: the metrics of one process."""
  config = ('--config', command.CONFIG)
  done = run(
    'local_hosts.sh',
    *('2', '4', '--', *config, '--workdir', str(tmp_path / 'hosts')),
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  command.run(tmp_path / 'alone')
  hosts, alone = (
    json.loads((tmp_path / name / 'results.json').read_text())['metrics']
    for name in ('hosts', 'alone')
  )
  assert hosts == pytest.approx(alone, abs=1e-3)


def test_local_hosts_ends_all_when_one_fails(tmp_path):
  folder = _package(
    tmp_path,
    'if i == 1: sys.exit(3)\n'
    'signal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
    'time.sleep(300)\n',
  )
  began = time.monotonic()
  done = run('local_hosts.sh', '3', '1', '--', cwd=folder, env={'GRACE': '1'})
  assert done.returncode == 3
  assert time.monotonic() - began < 30


def test_local_hosts_hands_sigterm_on(tmp_path):
  folder = _package(
    tmp_path,
    'def end(*_):\n'
    '  open(f"ended{i}", "w").close()\n'
    '  sys.exit(0)\n'
    'signal.signal(signal.SIGTERM, end)\n'
    'open(f"ready{i}", "w").close()\n'
    'time.sleep(300)\n',
  )
  with subprocess.Popen(
    ['bash', str(LAUNCH / 'local_hosts.sh'), '2', '1', '--'],
    env={**os.environ, 'PYTHON': sys.executable},
    cwd=folder,
  ) as process:
    deadline = time.monotonic() + 60
    while not all((folder / f'ready{i}').exists() for i in range(2)):
      assert time.monotonic() < deadline, 'the processes did not start'
      time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 0
  assert all((folder / f'ended{i}').exists() for i in range(2))
