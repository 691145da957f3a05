# SPDX-License-Identifier: Apache-2.0
"""`python -m vidret_jax.tools.convert`, in both directions."""

import json

import jax
import numpy as np
import pytest

from vidret_jax.convert import ce as convert
from vidret_jax.convert import torch_file
from vidret_jax.models import ce
from vidret_jax.tools import convert as tool

CONFIG = """
import ml_collections as mlc


def get_config(arg=None):
  c = mlc.ConfigDict()
  c.system = 'ce'
  c.model = dict(
      experts=(('audio', dict(dim=5, max_tokens=4, clusters=3)),
               ('face', dict(dim=7))),
      text=dict(dim=10, max_tokens=6, clusters=4, ghosts=1), dim=6)
  c.input = dict(data=dict(name='shapes'), batch_size=4)
  c.optim = dict(name='ranger', lr=0.1, wd=1e-3)
  c.schedule = [('.*', dict(decay='constant'))]
  c.total_epochs = 1
  return c
"""


@pytest.fixture
def setup(tmp_path):
  config = tmp_path / 'c.py'
  config.write_text(CONFIG)
  model = ce.make(
    (('audio', dict(dim=5, max_tokens=4, clusters=3)), ('face', dict(dim=7))),
    dict(dim=10, max_tokens=6, clusters=4, ghosts=1),
    dim=6,
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.integers(1, 9, x.shape).astype(x.dtype),
    convert.variable_shapes(model),
  )
  convert.save(tmp_path / 'a.pth', variables, model)
  return tmp_path, config


def test_to_a_run_and_back(setup, capsys):
  folder, config = setup
  args = ['--system', 'ce', '--config', str(config)]
  assert (
    tool.main(
      [*args, '--from', str(folder / 'a.pth'), '--to', str(folder / 'run')]
    )
    == 0
  )
  out = capsys.readouterr().out
  assert 'trainable parameters' in out and '--mode eval' in out
  assert 'ce.g_reason_1.weight' in out
  assert (
    json.loads((folder / 'run' / 'config.json').read_text())['system'] == 'ce'
  )
  assert (
    tool.main(
      [*args, '--from', str(folder / 'run'), '--to', str(folder / 'b.pth')]
    )
    == 0
  )
  assert 'wrote step 0' in capsys.readouterr().out
  a, b = (
    convert.state_dict(torch_file.read(folder / f'{n}.pth')) for n in 'ab'
  )
  assert list(a) == list(b)
  for key in a:
    np.testing.assert_array_equal(a[key], b[key], err_msg=key)

  # A run is never overwritten.
  assert (
    tool.main(
      [*args, '--from', str(folder / 'a.pth'), '--to', str(folder / 'run')]
    )
    == 1
  )
  assert 'already holds checkpoints' in capsys.readouterr().err


@pytest.mark.parametrize(
  'change, message',
  [
    (['--config.model.dim=7'], 'another architecture'),
    (['--system', 'ranp'], 'is of ce'),
    (['--from', 'absent.pth'], 'no such checkpoint'),
  ],
)
def test_errors(setup, capsys, change, message):
  folder, config = setup
  assert (
    tool.main(
      [
        '--config',
        str(config),
        '--from',
        str(folder / 'a.pth'),
        '--to',
        str(folder / 'run'),
        *change,
      ]
    )
    == 1
  )
  assert message in capsys.readouterr().err
  assert not (folder / 'run').exists()


def test_a_run_says_what_it_is(setup, capsys):
  folder, config = setup
  run, to = str(folder / 'run'), str(folder / 'b.pth')
  given = ['--config', str(config)]
  assert tool.main([*given, '--from', str(folder / 'a.pth'), '--to', run]) == 0
  # Its own config need not be named; one that differs is told.
  assert tool.main(['--from', run, '--to', to]) == 0
  assert 'the run has' not in capsys.readouterr().out
  config.write_text(CONFIG.replace('dim=6)', 'dim=6, margin=0.5)'))
  assert tool.main([*given, '--from', run, '--to', to]) == 0
  out = capsys.readouterr().out
  assert "model.margin: the run has '(absent)', this config 0.5" in out
  assert tool.main(['--from', str(folder / 'a.pth'), '--to', run]) == 1
  assert 'no config.json' in capsys.readouterr().err
