# SPDX-License-Identifier: Apache-2.0
"""The update: accumulation, padding, the watch, random keys."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.tiny import data
from tests.train.tiny import model as tiny
from vidret_jax import sharding
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
