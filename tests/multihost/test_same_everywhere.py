# SPDX-License-Identifier: Apache-2.0
"""One run on 1 device, on 8, and on 2 processes x 4: the same numbers."""

import signal
import time

import numpy as np
import pytest

from tests.train.tiny import command

# 38 rows: the last batch of an epoch is padded, and so is the last block of
# an evaluation.
CONFIG = command.CONFIG + ':rows=38,batch=16,ckpt_steps=2'


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('alone') / 'run'
  command.run(workdir, config=CONFIG)
  return command.rows(workdir)


def close(rows, want, tolerance=2e-5):
  assert [set(r) for r in rows] == [set(r) for r in want]
  worst = 0.0
  for row, other in zip(rows, want):
    for key, value in other.items():
      if not isinstance(value, str):
        np.testing.assert_allclose(row[key], value, rtol=tolerance, err_msg=key)
        worst = max(worst, abs(row[key] - value) / max(abs(value), 1e-9))
  print('largest relative difference', worst)


def test_eight_devices(tmp_path, alone):
  command.run(tmp_path, config=CONFIG, devices=8)
  close(command.rows(tmp_path), alone)


@pytest.mark.slow
def test_split_parameters(tmp_path, alone):
  """Parameters split over a second mesh axis change no number either."""
  command.run(
    tmp_path,
    "--config.mesh=[('data', 4), ('model', 2)]",
    "--config.sharding=[('.*/kernel', (None, 'model')), ('.*', 'replicate')]",
    config=CONFIG,
    devices=8,
  )
  close(command.rows(tmp_path), alone)


@pytest.mark.slow
def test_two_processes_of_four_devices(tmp_path, alone):
  texts = command.run_processes(tmp_path, 2, config=CONFIG, devices=4)
  assert 'step 3:' in texts[0] and 'step 3:' not in texts[1]
  close(command.rows(tmp_path), alone)
  assert (tmp_path / 'report' / 'test' / 'index.html').exists()


def started(workdir, config):
  """Two processes of one run, with at least one checkpoint on disk."""
  port = command.free_port()
  processes = [
    command.start(workdir, config=config, devices=4, processes=(port, 2, i))
    for i in range(2)
  ]
  deadline = time.monotonic() + 120
  while not command.steps(workdir):
    assert time.monotonic() < deadline
    assert all(p.poll() is None for p in processes)
    time.sleep(0.005)
  return processes


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_at_one_step(tmp_path):
  processes = started(tmp_path, CONFIG + ',epochs=400')
  processes[1].send_signal(signal.SIGTERM)
  texts = [p.communicate(timeout=120)[0] for p in processes]
  assert [p.returncode for p in processes] == [0, 0], '\n'.join(texts)
  assert f'saved step {command.steps(tmp_path)[-1]} in' in texts[0]


@pytest.mark.slow
def test_killed_on_two_processes_goes_on_in_one(tmp_path, alone):
  for process in started(tmp_path, CONFIG):
    process.kill()
    process.communicate(timeout=60)
  assert command.steps(tmp_path)[-1] < 12
  command.run(tmp_path, config=CONFIG, devices=2)
  close(command.rows(tmp_path), alone)
