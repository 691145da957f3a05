# SPDX-License-Identifier: Apache-2.0
"""A released checkpoint through the main program: evaluate it, train on."""

import jax
import numpy as np
import pytest

from tests.configs import shipped
from tests.configs import test_ce_configs as configs
from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.convert import ce as convert
from vidret_jax.evaluators import retrieval
from vidret_jax.models import ce
from vidret_jax.train import ckpt, loop
from vidret_jax.train import run as run_lib


@pytest.fixture
def released(tmp_path, monkeypatch):
  """(small config, model, variables, file as upstream would publish it)."""
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  full = shipped.load('ce_lsmdc.py')
  configs.write_files(full, tmp_path / 'data')
  config = configs.few(full, configs.FEW)
  configs.prepare(config)
  model = ce.make(**cl.freeze(config.model))
  rng = np.random.default_rng(7)
  variables = jax.tree.map(
    lambda x: rng.uniform(0.1, 1, x.shape).astype(x.dtype),
    configs.variables(config),
  )
  path = tmp_path / 'trained_model.pth'
  convert.save(path, variables, model)
  return config, model, variables, path


def with_weights(config, path):
  out = config.copy_and_resolve_references()
  with out.unlocked(), out.init.ignore_type():
    out.init.torch = str(path)
  return out.lock()


@pytest.mark.usefixtures('quick_compiler')
def test_eval_mode_gives_the_metrics_of_the_checkpoint(released, tmp_path):
  config, model, variables, path = released
  got = loop.evaluate(with_weights(config, path), str(tmp_path / 'run'))
  for name, entry in config.evals.items():
    direct = retrieval.Evaluator(
      model, sharding.make_mesh(), data=cl.freeze(entry.data)
    ).run(jax.tree.map(jax.numpy.asarray, variables))
    assert {k: got[f'{name}/{k}'] for k in direct} == direct


@pytest.mark.usefixtures('quick_compiler')
def test_training_starts_from_the_checkpoint(released, tmp_path):
  config, _, variables, path = released
  frozen = with_weights(config, path)
  with frozen.unlocked(), frozen.optim.ignore_type():
    frozen.optim.lr = 0.0  # Nothing moves but the batch statistics.
  loop.train(frozen.lock(), str(tmp_path / 'run'))
  target = run_lib.Run(frozen).shapes()
  found, _ = ckpt.load_variables(str(tmp_path / 'run'), target, 'last')
  jax.tree.map(
    np.testing.assert_array_equal, found['params'], variables['params']
  )


def test_a_checkpoint_of_another_architecture_is_refused(released, tmp_path):
  config, _, _, path = released
  other = with_weights(config, path)
  with other.unlocked():
    other.model.dim = 9
  with pytest.raises(ValueError, match='trained_model.pth'):
    loop.train(other.lock(), str(tmp_path / 'run'))
  assert not (tmp_path / 'run' / 'checkpoints').exists() or not list(
    (tmp_path / 'run' / 'checkpoints').glob('[0-9]*')
  )
