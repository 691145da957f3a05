# SPDX-License-Identifier: Apache-2.0
"""The loop itself, in this process."""

import json
import os

import jax
import ml_collections as mlc
import pytest

from tests.train.tiny import command, evaluator
from vidret_jax import config_lib as cl
from vidret_jax.train import ckpt, defaults, loop, writers
from vidret_jax.train import run as run_lib
from vidret_jax.train import workdir as workdir_lib

CONFIG = str(command.ROOT / command.CONFIG)


def config(*overrides, arg='epochs=2'):
  return cl.load(f'{CONFIG}:{arg}', overrides, defaults.DEFAULTS)


def test_nothing_is_compiled_after_the_first_step_and_evaluation(
  tmp_path, monkeypatch, compilations
):
  counts = []
  real = evaluator.Evaluator.run

  def run(self, variables):
    results = real(self, variables)
    counts.append(len(compilations))
    return results

  monkeypatch.setattr(evaluator.Evaluator, 'run', run)
  c = config(
    'evals.val.log_epochs=0.2',
    'log_steps=1',
    'evals.test.report=0',
    arg='epochs=2,ckpt_steps=1',
  )
  loop.train(c, str(tmp_path))
  print('compilations at the end of each evaluation', counts)
  assert len(counts) == 11 and counts[0] > 2  # the listener does listen
  assert len(set(counts[:10])) == 1, counts


def test_every_key_of_a_config_is_read(tmp_path):
  tracked = cl.track(config())
  loop.train(tracked, str(tmp_path))
  assert tracked.unread() == []


def test_a_dead_key_shows_up():
  c = config()
  with c.unlocked():
    c.optim.unused = 3
  tracked = cl.track(c)
  tracked.optim['lr']
  assert 'optim.unused' in tracked.unread()


def test_select_last_uses_the_last_weights(tmp_path):
  best = loop.train(config('best=val/t2v_MnR'), str(tmp_path / 'best'))
  last = loop.train(config('select=last'), str(tmp_path / 'last'))
  results = json.loads((tmp_path / 'best' / 'results.json').read_text())
  # The mean rank falls as training goes on, so the "best" is the first epoch.
  assert results['weights'] == 'best weights, step 5 of 10'
  assert best['val/t2v_MnR'] > last['val/t2v_MnR']
  assert best['test/t2v_MnR'] != last['test/t2v_MnR']


def test_patience_ends_training_and_knows_so_when_started_again(tmp_path):
  # The mean rank falls, so the first of the epochs of five steps is the best.
  c = config('best=val/t2v_MnR', 'patience=1', arg='epochs=6')
  ended = loop.train(c, str(tmp_path))
  rows = command.rows(tmp_path)
  assert max(r['step'] for r in rows) == 15
  loop.train(c, str(tmp_path))
  again = command.rows(tmp_path)
  assert [r for r in again if c.best in r] == [r for r in rows if c.best in r]
  assert again[-1]['test/t2v_MnR'] == ended['test/t2v_MnR']


def test_frozen_parameters_do_not_move(tmp_path):
  c = config("schedule=[('video/.*', None), ('.*', {'decay': 'constant'})]")
  loop.train(c, str(tmp_path))
  run = run_lib.Run(c)
  target = run.shapes()
  fresh, _ = run.fresh(target)
  found, _ = ckpt.load_variables(str(tmp_path), target, 'last')
  same = jax.tree.map(
    lambda a, b: bool((a == b).all()), fresh['params'], found['params']
  )
  assert same['video'] == dict(bias=True, kernel=True)
  assert same['text'] == dict(bias=False, kernel=False)


def test_start_from_another_run_is_a_new_run(tmp_path):
  loop.train(config(), str(tmp_path / 'a'))
  c = config(f'init.run={tmp_path / "a"}', 'optim.lr=0.0', 'select=last')
  again = loop.train(c, str(tmp_path / 'b'))
  before = json.loads((tmp_path / 'a' / 'results.json').read_text())['metrics']
  assert again == pytest.approx(before)
  assert command.rows(tmp_path / 'b')[0]['step'] == 2


def test_not_finite_says_where(tmp_path):
  with pytest.raises(run_lib.NotFinite) as e:
    loop.train(config('input.data.nan_row=3'), str(tmp_path))
  text = str(e.value)
  assert 'loss nan' in text and 'text/kernel' in text
  assert 'in its batch text hold NaN' in text
  assert command.steps(tmp_path) == []


def test_explosion_names_no_input(tmp_path):
  with pytest.raises(run_lib.NotFinite, match='all inputs are finite'):
    loop.train(config('optim.lr=1e30', 'model.drop=0.0'), str(tmp_path))


@pytest.mark.parametrize(
  'change, words',
  [
    (dict(best='vall/t2v_R@1'), 'must name a metric of an evaluator'),
    (dict(best='test/t2v_R@1'), 'that runs while training: val'),
    (dict(best=None), 'needs best='),
    (dict(select='first'), "'best' or 'last'"),
    (dict(total_steps=3), 'only one of total_steps and total_epochs'),
    (dict(speed=3), "unknown key 'speed'"),
    (dict(sharding=[('x', 'replicate')]), 'no sharding rule covers'),
    (dict(mesh=[('data', 3)]), 'data=3'),
  ],
)
def test_configs_that_cannot_run(change, words, tmp_path):
  c = config()
  with c.unlocked(), c.ignore_type():
    c.update(change)
  with pytest.raises(ValueError, match=words):
    loop.train(c, str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_metric_that_no_evaluator_gives_is_named_at_the_first_evaluation(
  tmp_path,
):
  with pytest.raises(cl.ConfigError, match='there are: val/t2v_R@1, val/t2v_M'):
    loop.train(config('best=val/t2v_R@2'), str(tmp_path))


def test_options_of_evaluators_are_strict(tmp_path):
  c = config()
  with c.unlocked():
    c.evals.val.blok = 3
  with pytest.raises(cl.ConfigError, match='evals.val .*blok'):
    loop.train(c, str(tmp_path))


def test_required_keys():
  with pytest.raises(cl.ConfigError, match='lacks system, model'):
    defaults.resolve(mlc.ConfigDict(dict(input={}, optim={}, schedule=[])))


def test_compile_cache_is_filled(tmp_path, monkeypatch):
  old = jax.config.jax_compilation_cache_dir
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  try:
    defaults.use_compile_cache(False)
    assert jax.config.jax_compilation_cache_dir == old
    defaults.use_compile_cache(True)
    assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path))
    assert os.path.isdir(jax.config.jax_compilation_cache_dir)
    defaults.use_compile_cache(str(tmp_path / 'mine'))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'mine')
  finally:
    jax.config.update('jax_compilation_cache_dir', old)


def test_changed_versions_are_a_warning(tmp_path, caplog):
  workdir_lib.write(config(), str(tmp_path))
  path = tmp_path / 'versions.json'
  versions = json.loads(path.read_text())
  path.write_text(json.dumps(dict(versions, jax='0.0.1')))
  workdir_lib.write(config(), str(tmp_path))
  assert 'jax was 0.0.1 when this run began' in caplog.text


def test_rows_after_the_restored_step_are_dropped(tmp_path):
  writer = writers.Writer(str(tmp_path), 0)
  for step in (2, 4, 6):
    writer.write(step, {'a': step})
  writer.write(6, {'b': 1}, phase='final')
  writer.close()
  with open(tmp_path / 'metrics.jsonl', 'a') as f:
    f.write('{"step": 8, "a"')
  writer = writers.Writer(str(tmp_path), 4)
  writer.write(6, {'a': 7.0})
  writer.close()
  rows = command.rows(tmp_path)
  assert [(r['step'], r['a']) for r in rows] == [(2, 2.0), (4, 4.0), (6, 7.0)]
  assert writers.at_step(str(tmp_path / 'metrics.jsonl'), 6) == {'a': 7.0}


def test_an_inactive_writer_touches_nothing(tmp_path):
  writer = writers.Writer(str(tmp_path / 'x'), 0, active=False)
  writer.write(1, {'a': 1})
  writer.close()
  assert not (tmp_path / 'x').exists()
