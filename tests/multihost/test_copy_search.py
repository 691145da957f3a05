# SPDX-License-Identifier: Apache-2.0
"""A copy search that is killed twice and goes on elsewhere: the same bytes.

It starts on one device, goes on on eight, and ends in two processes of four,
which then search once more without files.
"""

import subprocess
import sys
import time

import numpy as np
import pytest

from tests.search import toy_copies as toy
from tests.train.tiny import command

OPTIONS = ('visit=0.2', 'shard_frames=48')
# Reading is slow enough to be killed in between.
SLOW = (*OPTIONS, 'pause=0.05')


def start(folder, out, *changes, devices=1, processes=None):
  return subprocess.Popen(
    [
      *(sys.executable, '-m', 'tests.search.toy_copies'),
      *(str(folder), str(out), *changes),
    ],
    cwd=command.ROOT,
    env=command.environment(devices, processes),
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )


def shards(folder):
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for p in sorted(folder.glob('*/*'))
  }


def kill_after(process, folder, more):
  """Kills a search once it has written so many more files."""
  before, deadline = len(shards(folder)), time.monotonic() + 120
  while len(shards(folder)) < before + more:
    assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() < deadline
    time.sleep(0.01)
  process.kill()
  process.communicate(timeout=60)


@pytest.mark.slow
def test_an_error_in_one_process_ends_all(tmp_path):
  """Soon, and each says why; what the others had computed is kept."""
  folder, port = tmp_path / 'scores', command.free_port()
  running = [
    start(
      *(folder, tmp_path / 'out', *OPTIONS, 'visit=1.0', 'spoil=v3'),
      processes=(port, 2, i),
    )
    for i in range(2)
  ]
  # Alone, the one without an error would wait for five minutes.
  texts = [p.communicate(timeout=120)[0] for p in running]
  assert [p.returncode for p in running] == [1, 1], '\n'.join(texts)
  failed = [text.rstrip().splitlines()[-1] for text in texts]
  own, other = sorted(failed, key=lambda line: 'OthersFailed' in line)
  assert own.startswith('ValueError: ') and "with 'v3': nan" in own
  assert 'failed at the fine stage: ValueError: ' in other
  assert "with 'v3': nan" in other
  assert any(folder.glob('fine/*.npz'))


@pytest.mark.slow
def test_killed_twice_on_other_devices(tmp_path, quick_compiler):
  want = toy.find(folder=tmp_path / 'whole', visit=0.2, shard_frames=48)
  folder, out = tmp_path / 'scores', tmp_path / 'out'
  total = len(shards(tmp_path / 'whole'))
  assert total > 8
  kill_after(start(folder, out, *SLOW), folder, 2)
  kill_after(start(folder, out, *SLOW, devices=8), folder, 3)
  assert len(shards(folder)) < total
  port = command.free_port()
  running = [
    start(
      folder,
      f'{out}{i}.npz',
      *OPTIONS,
      devices=4,
      processes=(port, 2, i),
    )
    for i in range(2)
  ]
  texts = [p.communicate(timeout=120)[0] for p in running]
  assert [p.returncode for p in running] == [0, 0], '\n'.join(texts)
  assert all('devices 8 local 4' in text for text in texts)
  assert shards(folder) == shards(tmp_path / 'whole')
  for i in range(2):
    with np.load(f'{out}{i}.npz') as got:
      for name, value in vars(want).items():
        np.testing.assert_array_equal(got[name], value)
