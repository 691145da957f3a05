# SPDX-License-Identifier: Apache-2.0
"""launch/slurm.sbatch, run whole.

SLURM is not at hand: `srun` and `scontrol` are small programs that write down
how they were called.
"""

import pytest

from tests.launch.shell import program, run


def slurm(folder, *args, finish=True):
  """Runs the batch script as node 0 of a job of two nodes."""
  (folder / '.venv').mkdir()
  (folder / '.venv' / 'slurm.installed').touch()
  end = 'mkdir -p w; touch w/results.json' if finish else 'true'
  program(
    folder,
    'srun',
    'env | grep -E "VIDRET|JAX_LOCAL" | sort > environment\n'
    f'printf "%s\\n" "$@" > arguments\n{end}\n',
  )
  path = program(
    folder,
    'scontrol',
    'if [ "$1" = show ]; then printf "node7\\nnode8\\n"; else echo "$@" '
    '> requeued; fi\n',
  )
  return run(
    'slurm.sbatch',
    *args,
    cwd=folder,
    env={
      'PATH': path,
      'SLURM_JOB_ID': '41',
      'SLURM_JOB_NUM_NODES': '2',
      'SLURM_JOB_NODELIST': 'node[7-8]',
      'SLURM_GPUS_ON_NODE': '4',
      'SLURM_SUBMIT_DIR': str(folder),
    },
  )


def test_slurm_starts_one_process_per_node(tmp_path):
  done = slurm(tmp_path, '--config', 'c.py', '--workdir', 'w')
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'environment').read_text().split() == [
    'JAX_LOCAL_DEVICE_IDS=0,1,2,3',
    'VIDRET_COORDINATOR=node7:20041',
    'VIDRET_NUM_PROCESSES=2',
  ]
  arguments = (tmp_path / 'arguments').read_text()
  assert '--ntasks=2\n--ntasks-per-node=1' in arguments
  assert 'VIDRET_PROCESS_ID="${SLURM_PROCID}" exec' in arguments
  assert arguments.endswith('--config\nc.py\n--workdir\nw\n')
  assert not (tmp_path / 'requeued').exists()


def test_slurm_goes_back_to_the_queue(tmp_path):
  done = slurm(tmp_path, '--workdir=w', finish=False)
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'requeued').read_text() == 'requeue 41\n'


def test_slurm_dry_run(tmp_path):
  done = run('slurm.sbatch', '--dry_run', '--workdir', 'w', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert 'VIDRET_NUM_PROCESSES=1' in done.stdout
  assert 'vidret_jax.main' in done.stdout
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'args, told',
  [
    (('--config', 'c.py'), 'expected --workdir DIR'),
    (('--workdir', 'w'), 'Not inside a SLURM job'),
  ],
)
def test_slurm_usage(args, told, monkeypatch):
  monkeypatch.delenv('SLURM_JOB_ID', raising=False)
  done = run('slurm.sbatch', *args)
  assert done.returncode == 2
  assert told in done.stderr
