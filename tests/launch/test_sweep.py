# SPDX-License-Identifier: Apache-2.0
"""launch/sweep.py: commands, runs and tables."""

import json
import shlex
import subprocess
import sys

import pytest

from launch import sweep
from vidret_jax.train import writers

CONFIG = """
from vidret_jax import config_lib as cl

def get_config(arg=None):
  return dict(cl.parse_arg(arg, seed=0, missing='keep', split='a').__dict__)

def sweep():
  for missing in ('keep', 'renormalise'):
    for seed in range(3):
      yield dict(missing=missing, seed=seed)
"""
# Stands for the training program: writes what it was told as its result.
PROGRAM = """
import json, os, sys
config, workdir = sys.argv[2], sys.argv[4]
if 'seed=2' in config and 'fail' in sys.argv:
  sys.exit(7)
os.makedirs(workdir)
args = dict(a.split('=') for a in config.split(':')[1].split(','))
json.dump({'seed': args.pop('seed'), 'model': args},
          open(os.path.join(workdir, 'config.json'), 'w'))
score = len(args['missing']) + int(os.path.basename(workdir)[-1])
metrics = {'test/t2v_R@1': score, 'test/t2v_MdR': 2.0, 'test/v2t_R@1': 1.0}
json.dump({'weights': 'best', 'metrics': metrics, 'caveats': []},
          open(os.path.join(workdir, 'results.json'), 'w'))
"""


@pytest.fixture
def config(tmp_path):
  path = tmp_path / 'some.py'
  path.write_text(CONFIG)
  return str(path)


def finished(folder, seed=0, results=None, caveats=(), **model):
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(
    json.dumps({'seed': seed, 'model': model})
  )
  writers.write_results(str(folder), 'last weights', results, list(caveats))
  return str(folder)


def test_dry_run_prints_the_plain_commands(config, capsys, tmp_path):
  options = ['--config', config + ':split=b', '--workdir', 'w', '--dry_run']
  assert sweep.main([*options, '--', '--config.optim.lr=0.1']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 6
  assert shlex.split(lines[4]) == [
    *(sys.executable, '-m', 'vidret_jax.main'),
    *('--config', f'{config}:split=b,missing=renormalise,seed=1'),
    *('--workdir', 'w/missing=renormalise,seed=1', '--config.optim.lr=0.1'),
  ]


def test_runs_and_tabulates(config, capfd, tmp_path):
  program = tmp_path / 'program.py'
  program.write_text(PROGRAM)
  options = ['--config', config, '--workdir', str(tmp_path / 'w')]
  options += ['--launcher', shlex.join([sys.executable, str(program)])]
  assert sweep.main([*options, '--', 'fail']) == 1
  captured = capfd.readouterr()
  assert captured.err.count('failed: ') == 2
  assert 'missing=keep: 2 runs' in captured.out

  # The second time only the two that failed are run.
  assert sweep.main(options) == 0
  captured = capfd.readouterr()
  assert captured.out.count('# finished before') == 4
  assert 'missing=keep: 3 runs' in captured.out
  # 4, 5, 6: mean 5, sample deviation 1. 11, 12, 13 for renormalise.
  assert '| test/t2v | 5.0 (1.0) | 2.0 (0.0) |' in captured.out
  assert '| test/t2v | 12.0 (1.0) | 2.0 (0.0) |' in captured.out


def test_deviation_is_that_of_a_sample(tmp_path):
  # 10, 11, 13: mean 11.333, sum of squares 4.667, over n - 1 = 2: 1.528.
  # Over n it would print 1.2.
  runs = [
    finished(tmp_path / str(i), i, {'val/v2t_R@10': value})
    for i, value in enumerate((10.0, 11.0, 13.0))
  ]
  assert '| val/v2t | 11.3 (1.5) |' in sweep.summary('', runs)


def test_metrics_come_in_the_order_of_the_papers(tmp_path):
  names = ('geom', 'MnR', 'R@50', 'R@1', 'MdR', 'R@10', 'R@5')
  run = finished(tmp_path / 'a', results={f'test/t2v_{n}': 1 for n in names})
  head = sweep.summary('', [run]).splitlines()[2]
  assert head == '|  | R@1 | R@5 | R@10 | R@50 | MdR | MnR | geom |'


def test_runs_of_two_configs_make_no_table(tmp_path, capsys):
  a = finished(tmp_path / 'a', 0, {'t/t2v_R@1': 1}, margin=0.1)
  b = finished(tmp_path / 'b', 1, {'t/t2v_R@1': 2}, margin=0.2)
  assert sweep.main(['--summary_only', a, b]) == 1
  assert 'differ in more than the seed: model.margin' in capsys.readouterr().err


def test_different_metrics_make_no_table(tmp_path):
  a = finished(tmp_path / 'a', 0, {'t/t2v_R@1': 1})
  b = finished(tmp_path / 'b', 1, {'t/t2v_R@5': 2})
  with pytest.raises(ValueError, match='different metrics'):
    sweep.summary('', [a, b])


def test_a_caveat_stands_above_its_numbers(tmp_path):
  run = finished(
    tmp_path / 'a', 0, {'t/t2v_R@1_leaky2019': 1}, ['the rule of 2019 leaks']
  )
  lines = sweep.summary('', [run]).splitlines()
  assert lines[1] == 'the rule of 2019 leaks'
  assert lines[-1] == '| t/t2v leaky2019 | 1.0 |'


def test_unfinished_runs_are_named(tmp_path, capsys):
  a = finished(tmp_path / 'a', 0, {'t/t2v_R@1': 1})
  missing = str(tmp_path / 'gone')
  assert sweep.main(['--summary_only', a, missing]) == 0
  captured = capsys.readouterr()
  assert f'not finished: {missing}' in captured.err
  assert '1 run\n' in captured.out
  assert sweep.main(['--summary_only', missing]) == 1


def test_a_config_without_a_sweep_is_an_error(tmp_path, capsys):
  path = tmp_path / 'none.py'
  path.write_text('def get_config(arg=None):\n  return {}\n')
  assert sweep.main(['--config', str(path), '--workdir', 'w']) == 1
  assert 'has no sweep()' in capsys.readouterr().err


def test_what_the_sweep_sets_cannot_be_given(config, capsys):
  assert sweep.main(['--config', config + ':seed=5', '--workdir', 'w']) == 1
  assert 'seed is set by sweep()' in capsys.readouterr().err


def test_runs_as_a_script(config):
  done = subprocess.run(
    [sys.executable, sweep.__file__, '--config', config]
    + ['--workdir', 'w', '--dry_run'],
    capture_output=True,
    text=True,
    check=True,
  )
  assert len(done.stdout.splitlines()) == 6
