# SPDX-License-Identifier: Apache-2.0
"""Optimiser steps and short trainings of the originals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parity import goldens
from vidret_jax.convert import ce as convert
from vidret_jax.train import optim, schedules

STEPS = dict(atol=2e-6)
RATES = dict(atol=0, rtol=2e-7)  # A float32 of the rate.
LOSS = dict(atol=5e-6)
FINAL = dict(atol=5e-5)
# As the README of the golden files has them; rates are in the arrays.
CONFIGS = {
  'ranger': dict(name='ranger', wd=1e-3),
  'radam': dict(name='radam', wd=1e-3),
  'adam': dict(name='adam', amsgrad=True),
}


def rule_of(lrs):
  """(schedule, steps per epoch) of a rate that falls after every epoch."""
  falls = np.flatnonzero(np.diff(lrs)) + 1
  epoch = int(falls[0]) if len(falls) else len(lrs)
  gamma = float(lrs[epoch] / lrs[0]) if len(falls) else 1.0
  return [('.*', dict(decay='step', every_epochs=1, gamma=gamma))], epoch


def make(config, lrs, params):
  schedule, epoch = rule_of(lrs)
  return optim.make(
    dict(config, lr=float(lrs[0])),
    schedule,
    params=params,
    steps_per_epoch=epoch,
    total_steps=len(lrs),
  )


@pytest.mark.parametrize('name', CONFIGS)
def test_trajectory_of_given_gradients(golden, errors, name):
  data = golden('optim/optim.npz')
  tensors = sorted(data.under('init/'))
  params = {j: jnp.asarray(data[f'init/{j}']) for j in tensors}
  lrs = data[f'{name}/lr']
  tx, lr_fn = make(CONFIGS[name], lrs, params)

  @jax.jit
  def update(params, state, grads):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  state, got = tx.init(params), {j: [] for j in tensors}
  for i in range(len(lrs)):
    grads = {j: jnp.asarray(data[f'grads/{j}'][i]) for j in tensors}
    params, state = update(params, state, grads)
    for j in tensors:
      got[j].append(params[j])
  errors.close('lr', [lr_fn(i)[''] for i in range(len(lrs))], lrs, **RATES)
  for j in tensors:
    want = data[f'{name}/params/{j}']
    errors.close(f'{name}/params/{j}', np.stack(got[j]), want, **STEPS)
  for other in (*CONFIGS, 'cosine_restarts'):  # Of the tests beside this one.
    data.under(f'{other}/')


def test_cosine_with_restarts(golden, errors):
  data = golden('optim/optim.npz')
  want = data['cosine_restarts/lr']
  # The first period ends where the rate first rises; the rates within it fix
  # the final one: lr(i) = final + (lr - final) * (1 + cos(pi * i / n)) / 2.
  rises = np.flatnonzero(np.diff(want) > 0) + 1
  period = int(rises[0])
  growth = int(rises[1] - rises[0]) // period if len(rises) > 1 else 1
  part = (1 + np.cos(np.pi / period)) / 2
  final = (want[1] - part * want[0]) / (1 - part) / want[0]
  spec = dict(
    decay='cosine_restarts',
    period_epochs=period,
    growth=growth,
    final=float(final),
  )
  schedule = schedules.make(
    spec, float(want[0]), steps_per_epoch=3, total_steps=3 * len(want)
  )
  got = np.array([schedule(3 * i + 2) for i in range(len(want))])
  errors.close('cosine_restarts/lr', got, want, atol=1e-7)
  for other in ('init', 'grads', *CONFIGS):  # Of the test above.
    data.under(f'{other}/')


def test_trajectory_of_a_network(golden_root, golden, errors):
  """The original's training, from its checkpoint to its final weights."""
  root = golden_root / 'ce'
  paths = sorted(root.glob('models/*/trajectory.npz'))
  if not paths:
    pytest.skip(f'{root}/models has no trajectory.npz')
  for path in paths:
    follow(root, path.parent, golden(path.relative_to(root)), errors)


def follow(root, folder, io, errors):
  config, model, variables = goldens.load_model(root, folder / 'checkpoint.pth')
  assert config['optimizer']['type'] == 'Ranger'
  wd = config['optimizer']['args']['weight_decay']
  numbers = [g for g in io.groups() if g.startswith('batch')]
  batches = [
    {
      **goldens.item_batch(
        io, model.expert_names, f'{n}/experts/', f'{n}/ind/'
      ),
      'text': io[f'{n}/text'],
    }
    for n in numbers
  ]
  params = variables['params']
  rest = {k: v for k, v in variables.items() if k != 'params'}
  tx, lr_fn = make(dict(name='ranger', wd=wd), io['lr'], params)

  @jax.jit
  def step(params, rest, state, batch):
    def loss_fn(params):
      (loss, _), new = model.apply(
        {'params': params, **rest},
        batch,
        step=0,
        train=True,
        method='loss',
        mutable=list(rest),
      )
      return loss, new

    (loss, rest), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), rest, state, loss

  state, losses = tx.init(params), []
  for i in range(len(io['loss'])):
    batch = batches[i % len(batches)]
    params, rest, state, loss = step(params, rest, state, batch)
    losses.append(loss)
  name = folder.name
  rates = [lr_fn(i)[''] for i in range(len(losses))]
  errors.close(f'{name} lr', rates, io['lr'], **RATES)
  errors.close(f'{name} loss', np.stack(losses), io['loss'], **LOSS)
  ours = convert.to_torch(dict(params=params, **rest), model)
  for key, want in io.under('final/').items():
    errors.close(f'{name} final/{key}', ours[key], want, **FINAL)
