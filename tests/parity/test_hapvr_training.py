# SPDX-License-Identifier: Apache-2.0
"""HAP-VR's whole loss, its gradients, its learning rate and real updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parity import hapvr_goldens as hg
from vidret_jax.convert import torch_file
from vidret_jax.train import optim, schedules

pytestmark = pytest.mark.usefixtures('quick_compiler')

# What torch.optim.AdamW and upstream's `train.py` call what we name so.
_MOMENTS = dict(mu='exp_avg', nu='exp_avg_sq')


def started(state, updates):
  """An optimiser's state whose learning rate has done so many updates."""
  kind = optax.ScaleByScheduleState
  return jax.tree.map(
    lambda x: kind(jnp.asarray(updates)) if isinstance(x, kind) else x,
    state,
    is_leaf=lambda x: isinstance(x, kind),
  )


def moments(state):
  """{name: tree of the parameters} of AdamW; and the updates it has done."""
  kind = optax.ScaleByAdamState
  leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kind))
  found = next(x for x in leaves if isinstance(x, kind))
  return {name: getattr(found, name) for name in _MOMENTS}, int(found.count)


def padded(x, features, labels):
  """A group of clips in which each view has one row that a mask excludes."""
  pairs = len(x) // 2
  order = [*range(pairs), 0, *range(pairs, 2 * pairs), 0]
  where = np.ones(len(order), bool)
  where[[pairs, -1]] = False
  bad = ~where[:, None, None]
  clips = (
    np.where(bad[..., None], np.nan, x[order]),
    np.where(bad, np.nan, features[order]),
    np.where(where[:, None] & where, labels[np.ix_(order, order)], 1),
    where,
  )
  return [a[None] for a in clips]


def test_three_updates(golden, errors, golden_root):
  """In a batch that is not full: what else it holds changes nothing."""
  io = golden('train_step.npz')
  path = hg.present(hg.folder(golden_root) / 'ckpt_train.pth')
  cfg, trained = hg.config(io['cfg_json']), torch_file.read(path)
  options = hg.training_options(cfg)
  model, variables = hg.make(io.under('param0/'), **options)
  params, lr = variables['params'], cfg['base_lr_used']
  tx, lr_fn = optim.make(
    dict(name='adamw', lr=lr, wd=cfg['weight_decay']),
    [('.*', hg.schedule(cfg))],
    params=params,
    steps_per_epoch=1,
    total_steps=cfg['iter_epochs'],
  )
  clips = padded(*(io[k] for k in ('x', 'dino_feat', 'labels')))
  names = [*hg.TERMS.values()]

  def objective(params):
    loss, terms = model.apply(
      {'params': params}, *clips, train=True, method='objective'
    )
    return jnp.stack([loss, *(terms[n] for n in names)])

  @jax.jit
  def update(params, state):
    # One program for the gradients of all parts and of their sum.
    values, pull = jax.vjp(objective, params)
    (grads,) = jax.vmap(pull)(jnp.eye(len(values)))
    whole = jax.tree.map(lambda g: g[0], grads)
    updates, state = tx.update(whole, state, params)
    return values, grads, optax.apply_updates(params, updates), state

  steps = [k for k in io.groups() if k.endswith('_global_step')]
  state = started(tx.init(params), int(io['step0_global_step']))
  for i in range(len(steps)):
    at = int(io[f'step{i}_global_step'])
    rate = np.asarray(lr_fn(at)[''])
    errors.close(f'rate {i}', rate, io[f'step{i}_lr'], atol=0, rtol=1e-6)
    values, grads, params, state = update(params, state)
    for name, value in zip(('loss', *hg.TERMS), values):
      errors.close(f'{name} {i}', value, io[f'step{i}_{name}'], **hg.FORWARD)
    if i == 0:
      check_gradients(errors, io, grads)
  check_trained(errors, params, state, trained)
  assert at + 1 == trained['global_step']

  def similarity(model, clips):
    return model.clip_similarity(model.encode_item(clips)['regions'][None])[0]

  sim = jax.jit(lambda v, c: model.apply(v, c, method=similarity))(
    variables, hg.videos(list(io['x']), io['x'].shape[1])
  )
  errors.close('sim', sim[0], io['sim0'], **hg.FORWARD)


def check_gradients(errors, io, grads):
  """Compares those of the loss, and of its parts what is stored."""
  found = [
    hg.to_torch(jax.tree.map(lambda g, i=i: np.asarray(g[i]), grads))
    for i in range(1 + len(hg.TERMS))
  ]
  stored = {'loss': io.under('grad0/')}
  assert set(stored['loss']) == set(found[0])
  for name in hg.TERMS:
    stored[name] = io.under(f'termgrad0/{name}/')
  for got, (name, wanted) in zip(found, stored.items()):
    for key, want in wanted.items():
      errors.close(f'{name} {key}', got[key], want, **hg.gradient(want))


def check_trained(errors, params, state, trained):
  """Compares parameters and AdamW's state with a checkpoint."""
  got, want = hg.to_torch(params), trained['model']
  assert set(got) == set(want)
  for key, value in want.items():
    errors.close(f'trained {key}', got[key], value, **hg.PARAMETER)
  found, updates = moments(state)
  theirs = trained['optimizer']['state']
  assert {int(x['step']) for x in theirs.values()} == {updates}
  for name, upstreams in _MOMENTS.items():
    tree = hg.to_torch(found[name])
    # Upstream numbers parameters in the order of its state dict.
    for key, moment in zip(want, theirs.values()):
      value = moment[upstreams]
      errors.close(f'{name} {key}', tree[key], value, **hg.gradient(value))


def test_learning_rates(golden, errors):
  io = golden('lr_schedule.npz')
  names = [k.removesuffix('_cfg') for k in io.groups() if k.endswith('_cfg')]
  assert names
  keys = ('iter_epochs', 'warmup_iters', 'final_lr', 'warmup_lr_init')
  for name in names:
    lr, *rest = io[f'{name}_cfg'].tolist()
    cfg = dict(zip(keys, rest), iter_epochs=int(rest[0]))
    rate = schedules.make(
      # Upstream runs on beyond its `iter_epochs`.
      hg.schedule(cfg),
      lr,
      steps_per_epoch=100,
      total_steps=cfg['iter_epochs'] + 500,
    )
    got = [rate(int(step)) for step in io[f'{name}_steps']]
    errors.close(name, got, io[f'{name}_lr'], atol=0, rtol=1e-6)
