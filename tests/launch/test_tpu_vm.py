# SPDX-License-Identifier: Apache-2.0
"""launch/tpu_vm.sh, run whole.

No TPU is at hand: `gcloud` is a small program that keeps the state of a queued
resource. What the script does with it is real.
"""

import os
import shutil
import subprocess

import pytest

from tests.launch.shell import LAUNCH, program, run

# Keeps the state of the resource in a file. Training ends after `runs` times;
# before that the connection breaks, and so does the TPU if `preempt` says so.
GCLOUD = """
echo "$*" | head -n 1 >> calls
state() { cat state 2>/dev/null || echo NONE; }
case "$*" in
  *queued-resources\\ describe*)
    [ "$(state)" != NONE ] || exit 1
    state
    # What was asked for is there at the next look.
    [ "$(state)" != PROVISIONING ] || echo ACTIVE > state ;;
  *queued-resources\\ create*) echo PROVISIONING > state ;;
  *queued-resources\\ delete*) rm state ;;
  *storage\\ ls*) [ -e results ] ;;
  *tpu-vm\\ ssh*)
    echo run >> runs
    if [ "$(wc -l < runs)" -ge "${RUNS}" ]; then touch results; exit 0; fi
    [ "${PREEMPT}" = no ] || echo SUSPENDED > state
    exit 255 ;;
esac
"""


def tpu(folder, *args, runs='1', preempt='yes'):
  """Runs a copy of the launcher in a repository of its own."""
  (folder / 'launch').mkdir()
  shutil.copy(LAUNCH / 'tpu_vm.sh', folder / 'launch')
  for words in (
    ('init', '-q'),
    ('add', 'launch'),
    ('-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'a'),
  ):
    subprocess.run(['git', *words], cwd=folder, check=True)
  bin_folder = folder / 'bin'
  bin_folder.mkdir()
  path = program(bin_folder, 'gcloud', GCLOUD)
  done = subprocess.run(
    ['bash', 'launch/tpu_vm.sh', *args],
    cwd=folder,
    env={
      **os.environ,
      **{'PATH': path, 'WAIT': '0', 'RUNS': runs, 'PREEMPT': preempt},
    },
    capture_output=True,
    text=True,
    timeout=60,
  )
  calls = folder / 'calls'
  return done, calls.read_text().splitlines() if calls.exists() else []


ASK = ('ce', 'zone-a', 'v4-32', 'gs://bucket', '--', '--config', 'c.py')


def _count(calls, part):
  return sum(part in call for call in calls)


def test_tpu_vm_trains_and_gives_back(tmp_path):
  done, calls = tpu(tmp_path, *ASK)
  assert done.returncode == 0, done.stderr
  assert _count(calls, 'queued-resources create ce') == 1
  assert _count(calls, 'tpu-vm scp build/ce.tgz ce:') == 1
  assert _count(calls, 'tpu-vm ssh ce --zone=zone-a --worker=all') == 1
  assert _count(calls, 'queued-resources delete ce') == 1
  assert _count(calls, 'gs://bucket/runs/ce/results.json') >= 2
  create = next(c for c in calls if ' create ' in c)
  assert '--spot' in create and '--accelerator-type=v4-32' in create


def test_tpu_vm_asks_again_after_preemption(tmp_path):
  done, calls = tpu(tmp_path, *ASK, runs='3')
  assert done.returncode == 0, done.stderr
  assert _count(calls, 'tpu-vm ssh') == 3
  assert _count(calls, 'queued-resources create') == 3
  assert _count(calls, 'queued-resources delete') == 3


def test_tpu_vm_stops_at_a_failure_that_is_no_preemption(tmp_path):
  done, calls = tpu(tmp_path, *ASK, runs='3', preempt='no')
  assert done.returncode == 255
  assert _count(calls, 'tpu-vm ssh') == 1
  assert _count(calls, 'queued-resources delete') == 0
  assert 'not a preemption' in done.stderr
  assert 'gcloud compute tpus queued-resources delete ce' in done.stderr


def test_tpu_vm_dry_run(tmp_path):
  done, calls = tpu(tmp_path, '--dry_run', *ASK)
  assert done.returncode == 0, done.stderr
  assert not calls and not (tmp_path / 'build').exists()
  # The part for the hosts, as printed, is a program that bash accepts.
  script = done.stdout.partition("--command='")[2].partition("'\n# at")[0]
  subprocess.run(['bash', '-n', '-c', script], check=True)
  assert 'vidret_jax.main --workdir "/gcs/runs/${name}"' in script
  assert script.rstrip().endswith('on_host bucket ce true --config c.py')


@pytest.mark.parametrize(
  'args, told',
  [
    (ASK[:3], 'four names'),
    ((*ASK, '--workdir', 'w'), 'no --workdir: it is gs://bucket/runs/ce'),
  ],
)
def test_tpu_vm_usage(args, told):
  done = run('tpu_vm.sh', *args)
  assert done.returncode == 2
  assert told in done.stderr
