# SPDX-License-Identifier: Apache-2.0
"""The update: accumulation, padding, the watch, random keys."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.tiny import data
from tests.train.tiny import model as tiny
from vidret_jax import sharding
from vidret_jax.models import base
from vidret_jax.train import optim
from vidret_jax.train import state as state_lib
from vidret_jax.train import step as step_lib


def setup(accum_steps=1, contrast='none', drop=0.0, seed=0):
  model = tiny.make(contrast=contrast, drop=drop)
  source = data.make('pairs')
  tx = optax.sgd(0.1)
  variables = state_lib.init_fn(model, source.spec, 0)()
  state = state_lib.start(variables, tx)
  update = jax.jit(
    step_lib.make(model, tx, lambda step: {'': 0.1 + step}, seed, accum_steps)
  )
  watch = step_lib.new_watch(
    state.params, sharding.replicated(sharding.make_mesh())
  )
  return source, state, watch, update


def batch_of(source, rows, valid=None):
  index = np.arange(rows)
  if valid is not None:
    index = np.where(index < valid, index, -1)
  return source.gather(index, np.arange(rows))


@pytest.mark.parametrize('valid', [12, 7, 2])
def test_accumulated_gradient_is_that_of_the_batch(valid):
  """For a loss that is a mean over rows, and whatever rows are padding."""
  source, state, watch, whole = setup()
  _, _, _, parts = setup(accum_steps=3)
  batch = batch_of(source, 12, valid)
  one, _, scalars = whole(state, watch, batch)
  many, _, other = parts(state, watch, batch)
  worst = max(
    float(jnp.abs(a - b).max())
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(many.params))
  )
  print('largest difference', worst)
  assert worst < 2e-6
  assert scalars['train/loss'] == pytest.approx(float(other['train/loss']))
  # The statistics have seen every row once.
  assert float(many.model_state['batch_stats']['seen']) == valid
  assert int(many.step) == 1


def test_a_loss_within_the_batch_sees_one_microbatch():
  source, state, watch, parts = setup(accum_steps=2, contrast='rows')
  batch = batch_of(source, 8)
  _, _, scalars = parts(state, watch, batch)
  _, _, _, whole = setup(contrast='rows')
  micro = [{k: v[i::2] for k, v in batch.items()} for i in range(2)]
  halves = [float(whole(state, watch, m)[2]['train/loss']) for m in micro]
  assert float(scalars['train/loss']) == pytest.approx(np.mean(halves))
  assert float(whole(state, watch, batch)[2]['train/loss']) > np.mean(halves)


def test_watch_keeps_the_first_bad_step():
  source, state, watch, update = setup()
  good, bad = batch_of(source, 8), batch_of(source, 8)
  bad['text'][3, 0] = np.inf
  state, watch, _ = update(state, watch, good)
  assert int(watch.step) == -1
  for batch in (bad, good, bad):
    state, watch, _ = update(state, watch, batch)
  assert int(watch.step) == 2
  assert not np.isfinite(watch.loss)
  assert not np.isfinite(watch.squares).all()


def test_a_bad_row_that_is_padding_harms_nothing():
  source, state, watch, update = setup(accum_steps=2)
  batch = batch_of(source, 8, valid=7)
  batch['text'][7] = 1e30
  state, watch, scalars = update(state, watch, batch)
  assert int(watch.step) == -1 and np.isfinite(scalars['train/grad_norm'])


def test_scalars_have_the_rate_of_this_step():
  source, state, watch, update = setup()
  batch = batch_of(source, 8)
  state, watch, scalars = update(state, watch, batch)
  assert float(scalars['lr']) == pytest.approx(0.1)
  _, _, scalars = update(state, watch, batch)
  assert float(scalars['lr']) == pytest.approx(1.1)


def test_keys_depend_on_seed_purpose_step_and_microbatch():
  keys = {
    tuple(jax.random.key_data(state_lib.rng(seed, name, step)).tolist())
    for seed in (0, 1)
    for name in ('dropout', 'init')
    for step in (0, 1, 2)
  }
  assert len(keys) == 12
  source, state, watch, update = setup(drop=0.5)
  batch = batch_of(source, 8)
  one = update(state, watch, batch)[2]['train/loss']
  same = update(state, watch, batch)[2]['train/loss']
  later = update(state.replace(step=jnp.int32(5)), watch, batch)[2]
  assert one == same != later['train/loss']
  _, _, _, seeded = setup(drop=0.5, seed=1)
  assert seeded(state, watch, batch)[2]['train/loss'] != one


class Deep(base.Retriever):
  """Dense layers in a row; the video is drawn towards its text's image."""

  layers: int = 8
  width: int = 128

  @nn.compact
  def loss(self, batch, *, step, train):
    del step, train
    x = batch['video']
    for i in range(self.layers):
      x = nn.tanh(nn.Dense(self.width, name=f'layer_{i}')(x))
    loss = jnp.mean(jnp.square(x - batch['text']))
    return loss, {'size': jnp.mean(jnp.abs(x))}


def deep(schedule, leave_out, accum_steps=1):
  """(state, compiled update, batch, names) of a Deep under this schedule."""
  model, rows = Deep(), 64
  rng = np.random.default_rng(0)
  batch = {
    'video': rng.normal(size=(rows, model.width)).astype(np.float32),
    'text': rng.normal(size=(rows, model.width)).astype(np.float32),
    '_mask': np.ones(rows, bool),
  }
  variables = model.init(
    jax.random.key(0), batch, step=0, train=False, method='loss'
  )
  tx, lr = optim.make(
    dict(name='bert_adam', lr=0.01, clip_norm=0.1),
    schedule,
    params=variables['params'],
    steps_per_epoch=1,
    total_steps=9,
  )
  trained = optim.trained(schedule, variables['params'])
  state = state_lib.start(variables, tx)
  watch = step_lib.new_watch(
    state.params, sharding.replicated(sharding.make_mesh())
  )
  update = step_lib.make(
    model, tx, lr, 0, accum_steps, trained if leave_out else None
  )
  compiled = jax.jit(update).lower(state, watch, batch).compile()
  return state, watch, batch, compiled


HALF_FROZEN = [('layer_[0-3]/.*', None), ('.*', dict(decay='constant'))]


def test_frozen_layers_have_no_backward_pass():
  flops = {
    name: deep(schedule, True)[-1].cost_analysis()['flops']
    for name, schedule in dict(half=HALF_FROZEN, none=HALF_FROZEN[1:]).items()
  }
  print(flops)
  # Of 2 + 4 parts forward and backward, half of the latter is gone; what the
  # first layer saves (it has no input gradient) and the optimiser blur it.
  assert flops['half'] < 0.71 * flops['none']


@pytest.mark.parametrize('accum_steps', [1, 2])
def test_frozen_layers_change_nothing_else(accum_steps):
  """Beside an update that computes all gradients and ignores the frozen."""
  runs = [deep(HALF_FROZEN, flag, accum_steps) for flag in (True, False)]
  found = []
  for state, watch, batch, update in runs:
    for _ in range(3):
      state, watch, scalars = update(state, watch, batch)
    found.append((state, scalars))
  (lean, scalars), (full, others) = found
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    lean,
    full,
  )
  start = runs[0][0].params
  for name in start:
    same = (start[name]['kernel'] == lean.params[name]['kernel']).all()
    assert same == (name < 'layer_4')
  # The logged norm is that of the trained tensors only.
  norm = scalars.pop('train/grad_norm')
  assert 0 < norm < others.pop('train/grad_norm')
  assert set(scalars) == set(others) >= {'lr', 'train/loss', 'train/size'}
  for name, value in scalars.items():
    assert float(value) == pytest.approx(float(others[name]), rel=1e-5)


def test_the_watch_names_trained_tensors_only():
  state, watch, batch, update = deep(HALF_FROZEN, True)
  batch['text'][0, 0] = np.inf
  _, watch, _ = update(state, watch, batch)
  names = list(state_lib.describe(state.params))
  bad = {n for n, s in zip(names, watch.squares) if not np.isfinite(s)}
  assert len(watch.squares) == len(names) and int(watch.step) == 1
  assert bad and all(n >= 'layer_4' for n in bad)


def test_the_plan_of_a_batch_decides_how_it_is_computed():
  """Of two ways with the same loss, the one that the model asks for runs."""

  class Planned(base.Retriever):
    plans = 2

    @nn.nowrap
    def plan(self, batch):
      return (batch['x'].sum() > 0).astype(jnp.int32)

    @nn.compact
    def loss(self, batch, *, step, train, plan=0):
      w = self.param('w', nn.initializers.ones, ())
      way = (w, 0.5 * (w + w))[plan]
      return jnp.sum(way * batch['x']), {'way': jnp.float32(plan)}

  model, tx = Planned(), optax.sgd(0.1)
  batch = {'x': jnp.array([1.0, 2.0])}
  variables = model.init(
    jax.random.key(0), batch, step=0, train=False, method='loss'
  )
  state = state_lib.start(variables, tx)
  update = jax.jit(step_lib.make(model, tx, lambda step: {'': 0.1}, 0))
  watch = step_lib.new_watch(
    state.params, sharding.replicated(sharding.make_mesh())
  )
  for sign, way in ((1, 1), (-1, 0)):
    new, _, scalars = update(state, watch, {'x': sign * batch['x']})
    assert int(scalars['train/way']) == way
    assert float(new.params['w']) == pytest.approx(1 - sign * 0.3)
