# SPDX-License-Identifier: Apache-2.0
"""What holds for every shipped config, whatever its system."""

import os

import pytest

from tests.configs import shipped
from tests.configs.shipped import load
from vidret_jax import config_lib as cl

# A misspelt key of the model, and the key that was meant.
MISSPELT = {
  'ce': ('margn', 'margin'),
  'eercf': ('max_frame', 'max_frames'),
  'ranp': ('sigm', 'sigma'),
  'reloclnet': ('margn', 'margin'),
  'hap_vr': ('max_frame', 'max_frames'),
}


def system(name):
  """The system that a file's name promises."""
  return next((s for s in MISSPELT if name.startswith(f'{s}_')), 'ce')


def trains(name):
  return load(name).input.data.name != 'evaluation_only'


def test_every_file_is_tested():
  assert shipped.files(shipped.SPECS) == shipped.files()


@pytest.mark.parametrize('spec', shipped.SPECS)
def test_loads_locked_and_saves(spec, tmp_path):
  config = load(spec)
  assert config.is_locked
  cl.save(config, str(tmp_path / 'config.json'))
  again = cl.load_json(str(tmp_path / 'config.json'))
  assert cl.diff(cl.to_dict(config), cl.to_dict(again)) == []
  cl.freeze(config)


@pytest.mark.parametrize('name', shipped.files())
def test_sweep_is_three_seeds_of_what_is_trained(name):
  changes = list(cl.load_module(str(shipped.CONFIGS / name)).sweep())
  if trains(name):
    assert changes == [dict(seed=s) for s in range(3)]
  else:
    assert changes == [dict()]
  assert load(f'{name}:seed=2').seed == 2


@pytest.mark.parametrize('name', shipped.files())
def test_works_from_any_folder(name, tmp_path, monkeypatch):
  path = os.path.relpath(shipped.CONFIGS / name, tmp_path)
  monkeypatch.chdir(tmp_path)
  assert cl.load(path).system == system(name)


@pytest.mark.parametrize('name', shipped.files())
@pytest.mark.parametrize(
  'change, word',
  [
    ('inputs.batch_size=4', 'input'),
    ('optim.lrr=1', 'lr'),
    ('input.batch_size=4.5', 'int'),
  ],
)
def test_misspelt_keys_are_named(name, change, word):
  with pytest.raises(cl.ConfigError, match=word):
    load(name, change)


@pytest.mark.parametrize('name', shipped.files())
def test_misspelt_keys_of_the_model_are_named(name):
  wrong, right = MISSPELT[system(name)]
  with pytest.raises(cl.ConfigError, match=f'did you mean {right!r}'):
    load(name, f'model.{wrong}=3')


@pytest.mark.parametrize('name', shipped.files())
def test_runlocal_is_two_steps(name):
  config = load(f'{name}:runlocal')
  assert config.total_steps == 2 and 'total_epochs' not in config
  assert config.input.batch_size <= 16
