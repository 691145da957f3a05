# SPDX-License-Identifier: Apache-2.0
"""The same numbers on 1 device, on 8, and on 2 processes with 4 each."""

import json
import os
import socket

import pytest

from tests.devices import flags
from tests.train.tiny import forks


def start(folder, devices, **extra):
  env = dict(os.environ, JAX_PLATFORMS='cpu', **extra, XLA_FLAGS=flags(devices))
  return forks.Process(['tests.evaluators.toy', str(folder)], env)


def finish(folder, processes):
  """What the first process wrote."""
  for process in processes:
    text, _ = process.communicate(timeout=400)
    assert process.returncode == 0, text[-3000:]
  return json.loads((folder / 'numbers.json').read_text())


@pytest.mark.slow
def test_devices_and_processes_agree(tmp_path):
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  names = ('one', 'eight', 'two')
  folders = [tmp_path / name for name in names]
  one = [start(folders[0], 1)]
  eight = [start(folders[1], 8)]
  two = [
    start(
      folders[2],
      4,
      VIDRET_COORDINATOR=f'127.0.0.1:{port}',
      VIDRET_NUM_PROCESSES='2',
      VIDRET_PROCESS_ID=str(i),
    )
    for i in range(2)
  ]
  one, eight, two = map(finish, folders, (one, eight, two))
  assert [r.pop('devices') for r in (one, eight, two)] == [1, 8, 8]
  for other in (eight, two):
    loss = other.pop('loss')
    for name, value in one['loss'].items():
      assert loss[name] == pytest.approx(value, abs=1e-5), name
  assert eight == two
  assert {k: v for k, v in one.items() if k != 'loss'} == eight
  tables = [(f / 'retrieval-predictions.csv').read_text() for f in folders]
  assert tables[0] == tables[1] == tables[2]
  assert tables[0].count('\n') == len(one['best_caption_ranks'][0])
