# SPDX-License-Identifier: Apache-2.0
"""A run that was killed, stopped or damaged ends with the same bits.

Real processes, killed with SIGKILL while they save, evaluate or step.
"""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import pytest

from tests.train.tiny import command

# Saves at every step: most of the time of the run is spent in saving.
CONFIG = command.CONFIG + ':epochs=5,ckpt_steps=1'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The workdir of a run that nobody disturbed."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  command.run(workdir, config=CONFIG, interpreter=True)
  assert command.steps(workdir)[-2:] == [24, 25]
  return workdir


def same(workdir, whole):
  """Asserts equal bits of state, and equal lines of metrics."""
  assert command.state(workdir) == command.state(whole)
  for name in ('metrics.jsonl', 'results.json', 'config.json'):
    ours, theirs = (pathlib.Path(w) / name for w in (workdir, whole))
    assert ours.read_text() == theirs.read_text(), name
  assert command.steps(workdir) == command.steps(whole)


def kill_when(workdir, condition, number=signal.SIGKILL):
  """Starts the run, waits for the condition, sends the signal.

  Returns:
    (exit status, output).
  """
  process = command.start(workdir, config=CONFIG)
  deadline = time.monotonic() + 120
  while not condition() and process.poll() is None:
    assert time.monotonic() < deadline
    time.sleep(0.002)
  process.send_signal(number)
  text, _ = process.communicate(timeout=120)
  return process.returncode, text


def newest(workdir):
  return (command.steps(workdir) or [0])[-1]


def saving(workdir):
  """Whether a checkpoint is being written right now."""
  folder = workdir / 'checkpoints'
  return folder.is_dir() and any(
    'checkpoint-tmp' in name for name in os.listdir(folder)
  )


def after_steps(workdir, steps, pause):
  """A condition: so many steps saved since now, and a pause."""
  goal, reached = newest(workdir) + steps, []

  def condition():
    if not reached and newest(workdir) >= goal:
      reached.append(time.monotonic())
    return bool(reached) and time.monotonic() - reached[0] > pause

  return condition


def in_a_save(workdir, goal):
  """A condition: a save is under way, and so many steps have been saved."""
  return lambda: saving(workdir) and newest(workdir) >= goal


@pytest.mark.slow
def test_sigkill_at_arbitrary_moments(tmp_path, whole):
  seed = random.randrange(10**6)
  print('pauses drawn with seed', seed)
  rng = random.Random(seed)
  workdir = tmp_path / 'run'
  in_save = 0
  for steps in (None, 4, None, 5):
    if steps is None:  # In a save: the first of all, then the second after.
      goal = newest(workdir) + (1 if newest(workdir) else 0)
      moment = in_a_save(workdir, goal)
    else:
      moment = after_steps(workdir, steps, rng.random() * 0.1)
    status, text = kill_when(workdir, moment)
    assert status == -signal.SIGKILL, text
    in_save += saving(workdir)
  assert in_save >= 1, 'no kill came during a save'
  assert 0 < newest(workdir) < 25
  command.run(workdir, config=CONFIG)
  same(workdir, whole)


@pytest.mark.slow
def test_sigterm_saves_and_leaves_with_status_0(tmp_path, whole):
  workdir = tmp_path / 'run'
  config = command.CONFIG + ':epochs=5'
  process = command.start(workdir, config=config)
  while not (command.steps(workdir) or process.poll() is not None):
    time.sleep(0.002)
  process.send_signal(signal.SIGTERM)
  text, _ = process.communicate(timeout=120)
  assert process.returncode == 0, text
  assert 'asked to stop: saved step' in text
  stopped = command.steps(workdir)[-1]
  assert stopped < 25
  text = command.run(workdir, config=config)
  assert f'step {stopped} of 25' in text
  assert command.state(workdir) == command.state(whole)


def test_damaged_newest_checkpoint_falls_back(tmp_path, whole):
  workdir = tmp_path / 'run'
  shutil.copytree(whole, workdir)
  newest = workdir / 'checkpoints' / '25'
  largest = max(newest.glob('variables/**/d/*'), key=lambda p: p.stat().st_size)
  largest.write_bytes(largest.read_bytes()[:-20])
  text = command.run(workdir, config=CONFIG)
  assert f'checkpoint {newest} is damaged' in text
  assert 'falling back to checkpoint 24' in text
  assert (workdir / 'damaged' / '25.0').is_dir()
  same(workdir, whole)


def test_workdir_of_another_config_is_left_alone(tmp_path, whole):
  workdir = tmp_path / 'run'
  shutil.copytree(whole, workdir)
  before = snapshot(workdir)
  text = command.run(workdir, '--config.optim.lr=0.5', config=CONFIG, expect=1)
  assert 'optim.lr: 0.01 there, 0.5 now' in text
  assert 'use another --workdir' in text
  assert snapshot(workdir) == before


def snapshot(folder):
  """{path: bytes} of every file."""
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for p in sorted(folder.rglob('*'))
    if p.is_file()
  }


@pytest.fixture
def small_disk(tmp_path):
  """A disk of 250 KB, and a function that enlarges it."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=250k', 'tmpfs', str(folder)]
  try:
    subprocess.run(mount, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('may not mount a small disk here')
  yield (
    folder,
    lambda: subprocess.run(
      ['mount', '-o', 'remount,size=20m', str(folder)], check=True
    ),
  )
  subprocess.run(['umount', str(folder)], check=True)


@pytest.mark.slow
def test_full_disk_leaves_earlier_state_whole(tmp_path, whole, small_disk):
  disk, enlarge = small_disk
  text = command.run(disk / 'run', config=CONFIG, expect=1)
  # Threads of the storage library may complain first; we have the last word.
  error = ' '.join(text.splitlines()[-2:])
  assert error.startswith('CheckpointError: saving step')
  assert '0.0 MiB are free on that disk' in error
  assert 'then start the same command again' in error
  saved = command.steps(disk / 'run')
  assert saved and saved[-1] < 25
  enlarge()
  text = command.run(disk / 'run', config=CONFIG)
  assert f'step {saved[-1]} of 25' in text
  same(disk / 'run', whole)


def test_failing_writes_leave_earlier_state_whole(tmp_path, whole):
  """The same where no disk can be mounted: no file may pass 2 KB."""
  workdir = tmp_path / 'run'
  shutil.copytree(whole, workdir)
  shutil.rmtree(workdir / 'checkpoints' / '25')
  before = snapshot(workdir / 'checkpoints' / '24')
  limited = 'ulimit -f 2; exec "$@"'
  done = subprocess.run(
    ['bash', '-c', limited, 'bash', *command.line(workdir, config=CONFIG)],
    cwd=command.ROOT,
    env=command.environment(),
    text=True,
    capture_output=True,
    timeout=120,
  )
  assert done.returncode == 1, done.stderr
  assert 'failed: ' in done.stderr and 'ree space' in done.stderr
  assert snapshot(workdir / 'checkpoints' / '24') == before
  command.run(workdir, config=CONFIG)
  same(workdir, whole)
