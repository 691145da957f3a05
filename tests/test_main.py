# SPDX-License-Identifier: Apache-2.0
"""The command line: modes, overrides, errors that fit one screen."""

import json

import pytest

from tests.train.tiny import command

CONFIG = command.CONFIG + ':epochs=2'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('trained') / 'run'
  text = command.run(
    workdir,
    '--config.log_steps=5',
    '--profile=2:4',
    config=CONFIG,
    interpreter=True,
  )
  return workdir, text


def test_train_writes_all_it_promises(trained):
  workdir, text = trained
  rows = command.rows(workdir)
  assert [r['step'] for r in rows] == [5, 5, 10, 10, 10]
  assert {'train/loss', 'train/grad_norm', 'lr'} <= set(rows[0])
  assert {'val/t2v_R@1', 'val/t2v_MnR'} <= set(rows[1])
  assert rows[-1]['phase'] == 'final' and 'test/t2v_R@1' in rows[-1]
  assert not any('second' in key for row in rows for key in row)
  with open(workdir / 'config.json') as f:
    config = json.load(f)
  assert config['log_steps'] == 5 and config['input']['prefetch'] == 2
  with open(workdir / 'versions.json') as f:
    assert json.load(f)['jax']
  with open(workdir / 'results.json') as f:
    results = json.load(f)
  assert set(results['metrics']) == {
    'val/t2v_R@1',
    'val/t2v_MnR',
    'test/t2v_R@1',
    'test/t2v_MnR',
  }
  assert list((workdir / 'tb').glob('events*'))
  assert list(workdir.glob('profile/**/*.xplane.pb'))
  assert (workdir / 'report' / 'test' / 'index.html').exists()


def test_what_is_printed(trained):
  workdir, text = trained
  for words in (
    'parameters:',
    'parameters.txt lists every tensor',
    '104 in all',
    'weights from seed',
    'R@1',
    'MnR',
    'ranked videos:',
    f'{workdir}/metrics.jsonl',
  ):
    assert words in text, words
  assert 'text/kernel' in (workdir / 'parameters.txt').read_text()
  # No terminal: no bar, no control characters, no chatter of libraries.
  assert '\r' not in text and '\x1b' not in text
  assert len(text.splitlines()) < 45, text
  assert 'oneDNN' not in text and 'orbax' not in text


def test_eval_mode_gives_the_numbers_of_the_run(trained):
  workdir, _ = trained
  with open(workdir / 'results.json') as f:
    before = json.load(f)['metrics']
  metrics = (workdir / 'metrics.jsonl').read_bytes()
  text = command.run(
    workdir, '--mode=eval', '--config.log_steps=7', config=CONFIG
  )
  with open(workdir / 'results.json') as f:
    assert json.load(f)['metrics'] == before
  assert (workdir / 'metrics.jsonl').read_bytes() == metrics
  assert 'best weights, step' in text


def test_weights_of_another_run(trained, tmp_path):
  workdir, _ = trained
  text = command.run(
    tmp_path / 'run',
    f'--config.init.run={workdir}',
    '--mode=eval',
    config=CONFIG,
  )
  assert 'weights from step' in text
  ours, theirs = (
    json.loads((w / 'results.json').read_text())['metrics']
    for w in (tmp_path / 'run', workdir)
  )
  assert ours == theirs


@pytest.mark.parametrize(
  'args, words',
  [
    (['--config.optim.rate=1'], ["'optim.rate'", 'optim has: lr, name']),
    (['--config.totl_epochs=1'], ["did you mean 'total_epochs'"]),
    (
      ['--config.input.batch_size=12', '--config.accum_steps=5'],
      ['batch_size 12', 'divisible', '=10 or 15'],
    ),
    (['--config.system=cee'], ["'cee'", "did you mean 'ce'"]),
    (['--config.init.run=/nowhere'], ['no checkpoint', '/nowhere']),
    (['--profile=4:2'], ['START:STOP']),
    (['--mode=eval'], ['no checkpoint', 'train first']),
  ],
)
def test_errors_before_anything_is_written(args, words, tmp_path):
  workdir = tmp_path / 'run'
  text = command.run(workdir, *args, config=CONFIG, expect=1)
  assert all(w in text for w in words), text
  assert 'Traceback' not in text and len(text.splitlines()) < 25
  assert not (workdir / 'config.json').exists() or 'init.run' in args[0]


def test_evaluator_and_data_errors_say_where(tmp_path):
  text = command.run(
    tmp_path / 'a', '--config.evals.val.fail=True', config=CONFIG, expect=1
  )
  assert "evaluator 'val' failed: no such thing" in text
  text = command.run(
    tmp_path / 'b', '--config.input.data.fail_row=3', config=CONFIG, expect=1
  )
  assert 'reading the training batch of step' in text
  assert 'record 3 cannot be read' in text
