# SPDX-License-Identifier: Apache-2.0
"""Sizes of a model that its config leaves to the data."""

import json

import pytest

from tests.train.tiny import command
from vidret_jax import config_lib as cl
from vidret_jax.tools import convert as convert_tool
from vidret_jax.train import defaults, loop
from vidret_jax.train import run as run_lib

CONFIG = str(command.ROOT / 'tests/train/tiny/sized.py')


def config(*overrides, arg=''):
  out = cl.load(f'{CONFIG}:{arg}', overrides, defaults.DEFAULTS)
  return defaults.resolve(out)


def test_what_is_open_is_filled_in():
  c = config()
  run = run_lib.Run(c)
  assert c.model.num_words == run.model.num_words == 9
  table = run.variables['params']['text']['embedding']
  assert table.shape == (9, 5)
  assert cl.to_dict(c)['model']['num_words'] == 9


def test_through_a_view_that_counts_reads():
  tracked = cl.track(config())
  assert run_lib.Run(tracked).model.num_words == tracked.model.num_words == 9


def test_a_given_size_stays():
  assert run_lib.Run(config('model.num_words=12')).model.num_words == 12


def test_a_given_size_that_is_too_small():
  with pytest.raises(cl.ConfigError, match='num_words=3, but .* has 9'):
    run_lib.Run(config('model.num_words=3'))


def test_nobody_knows():
  with pytest.raises(cl.ConfigError, match='num_words=None') as error:
    run_lib.Run(config(arg='tell=0'))
  assert "'tests.train.tiny.captions' knows no sizes" in str(error.value)


def test_options_that_the_model_has_not():
  c = config()
  run_lib.fill_sizes(c, dict(num_roads=3), 'the data')
  assert 'num_roads' not in c.model


@pytest.mark.usefixtures('quick_compiler')
def test_the_run_keeps_it(tmp_path, capsys):
  run = tmp_path / 'run'
  loop.train(config(), str(run))
  saved = json.loads((run / 'config.json').read_text())
  assert saved['model']['num_words'] == 9
  # The same command again: the run is the same, and finished.
  loop.train(config(), str(run))
  # The saved config gives the same model without a word of the data.
  again = cl.load_json(str(run / 'config.json'))
  loop.evaluate(again, str(run))
  loop.evaluate(config(), str(run))
  # Another vocabulary is another run.
  with pytest.raises(cl.ConfigError, match='model.num_words: 9 there, 8 now'):
    loop.train(config('input.data.vocabulary=8'), str(run))

  # Given to the original, without the data.
  argv = ['--config', f'{CONFIG}:tell=0', '--from', str(run), '--to']
  assert convert_tool.main([*argv, str(tmp_path / 'ours.th')]) == 0
  assert 'text_encoder.embedding.we.weight' in capsys.readouterr().out
  argv = ['--config', f'{CONFIG}:tell=0', '--from', str(tmp_path / 'ours.th')]
  assert convert_tool.main([*argv, '--to', str(tmp_path / 'back')]) == 0
  back = json.loads((tmp_path / 'back' / 'config.json').read_text())
  assert back['model'] == saved['model']
  loop.evaluate(config(), str(tmp_path / 'back'))
