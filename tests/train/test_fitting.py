# SPDX-License-Identifier: Apache-2.0
"""Tests of train/fitting.py, and of the part of HAP-VR that is fitted."""

import logging

import jax
import ml_collections as mlc
import numpy as np
import pytest

from vidret_jax import config_lib as cl
from vidret_jax.models import hap_vr
from vidret_jax.train import fitting, state

pytestmark = pytest.mark.usefixtures('quick_compiler')

DIM = 6
BACKBONE = dict(stages=(1,) * 4, width=4, dims=DIM, kernels=(4, 2, 1, 1))
SHAPE = (4, 32, 32, 3)


class Films:
  """Noise, drawn from number and seed of a row; the last row is padding."""

  ids = tuple(f'v{i}' for i in range(7))
  spec = {
    'weak': (SHAPE, np.dtype(np.uint8)),
    'strong': (SHAPE, np.dtype(np.uint8)),
    'mix': ((5,), np.dtype(np.float32)),
    '_mask': ((), np.dtype(bool)),
  }

  def __init__(self):
    self.asked = []

  def __len__(self):
    return len(self.ids)

  def gather(self, index, seeds):
    self.asked.append((index.tolist(), seeds.tolist()))
    rows = [
      np.random.default_rng(i).integers(0, 256, SHAPE, np.uint8) for i in index
    ]
    mask = index != len(self) - 1
    rows = np.stack(rows) * mask[:, None, None, None, None]
    return {'weak': rows.astype(np.uint8), 'strong': rows, '_mask': mask}


def config(fit, **changes):
  return mlc.ConfigDict(
    dict(
      dict(system='hap_vr', seed=3, init=dict(fit=fit)),
      input=dict(batch_size=3),
      **changes,
    )
  )


@pytest.fixture(scope='module')
def model():
  return hap_vr.make(dim=DIM, backbone=BACKBONE, loss={'frame': 0.0})


@pytest.fixture(scope='module')
def variables(model):
  """Of an initialisation, but for what is to be fitted."""
  shapes = state.abstract(model, Films.spec, 0)
  rng = np.random.default_rng(0)

  def draw(path, x):
    x = rng.normal(size=x.shape) / max(x.size, 4) ** 0.4
    return np.asarray(abs(x) if 'var' in str(path[-1]) else x, np.float32)

  drawn = jax.tree_util.tree_map_with_path(draw, shapes)
  return jax.device_put(drawn, jax.devices()[0])


def test_whitens_the_training_frames_and_leaves_the_rest(model, variables):
  films = Films()
  fitted = fitting.fitted(config({'pca': 5}), model, variables, films)
  # All rows once, in batches, with seeds that no epoch has.
  assert [index for index, _ in films.asked] == [[0, 1, 2], [3, 4, 5], [6]]
  seeds = {s for _, some in films.asked for s in some}
  assert len(seeds) == 7
  before, after = (
    dict(jax.tree_util.tree_leaves_with_path(v)) for v in (variables, fitted)
  )
  changed = {
    jax.tree_util.keystr(k, simple=True, separator='/')
    for k in before
    if not np.array_equal(before[k], after[k])
  }
  pca = 'params/backbone/pca'
  assert changed == {f'{pca}/mean', f'{pca}/kernel'}
  frames = films.gather(np.arange(6), np.arange(6))['weak']
  frames = frames.reshape(-1, *SHAPE[1:])
  raw = model.backbone.clone(dims=None, parent=None)
  resnet = {'params': {'resnet': fitted['params']['backbone']['resnet']}}
  x = np.asarray(jax.jit(raw.apply)(resnet, frames), np.float64)
  x = x.reshape(-1, x.shape[-1])
  whole = fitted['params']['backbone']['pca']
  np.testing.assert_allclose(whole['mean'], x.mean(0), atol=1e-6)
  white = (x - x.mean(0)) @ np.asarray(whole['kernel'], np.float64)
  np.testing.assert_allclose(np.cov(white.T), np.eye(DIM), atol=1e-2)


def test_a_share_of_a_large_set_is_spread_over_it(model, variables):
  films = Films()
  rows = fitting._batches(films, 1, 3, 0)
  assert len(list(rows)) == 1
  assert films.asked[0][0] == [0, 2, 4]
  films = Films()
  assert fitting.fitted(config({}), model, variables, films) is variables
  assert films.asked == []


def test_a_part_that_is_given_stays(model, variables, caplog):
  caplog.set_level(logging.INFO, logger='absl')
  mean, kernel = (f'params/backbone/pca/{name}' for name in ('mean', 'kernel'))
  given = {mean, kernel, 'params/attention/transform/kernel'}
  films, wanted = Films(), config({'pca': 1})
  kept = fitting.fitted(wanted, model, variables, films, given)
  assert kept is variables and films.asked == []
  assert 'init.fit.pca: not fitted' in caplog.text
  # Half of it is no whitening.
  half = fitting.fitted(wanted, model, variables, films, given - {mean})
  assert half is not variables and films.asked


def test_no_batches_are_no_fit(model, variables):
  for none in (None, 0):
    films = Films()
    fit = config({'pca': none})
    assert fitting.fitted(fit, model, variables, films) is variables
    assert films.asked == []
  with pytest.raises(cl.ConfigError, match=r'init\.fit\.pca=-1: expected'):
    fitting.fitted(config({'pca': -1}), model, variables, Films())


def test_what_cannot_be_fitted_is_named(model, variables):
  def fitted(fit=None, model=model, **changes):
    return fitting.fitted(
      config(fit or {'pca': 1}, **changes), model, variables, Films()
    )

  with pytest.raises(ValueError, match="'ica' cannot be fitted, only 'pca'"):
    fitted({'ica': 1})
  with pytest.raises(ValueError, match='whitens nothing.*model.backbone.dims'):
    fitted(model=hap_vr.make(dim=DIM, loss={'frame': 0.0}))
  wide = dict(BACKBONE, dims=60)
  with pytest.raises(ValueError, match='differ in 11 directions.*dims=60'):
    fitted(model=hap_vr.make(backbone=wide, loss={'frame': 0.0}))
  other = config({'pca': 1})
  other.system = 'ce'
  with pytest.raises(cl.ConfigError, match="no 'fit_part'"):
    fitting.fitted(other, model, variables, Films())
