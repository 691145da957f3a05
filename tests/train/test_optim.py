# SPDX-License-Identifier: Apache-2.0
"""Optimisers and schedules against definitions, optax and torch."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.tiny import command
from vidret_jax import config_lib
from vidret_jax.train import optim, optimizers, schedules

ALL = [('.*', dict(decay='constant'))]
SIZES = dict(steps_per_epoch=5, total_steps=50)


def params():
  rng = np.random.default_rng(0)
  return {
    'unit': {
      'kernel': jnp.asarray(rng.normal(size=(3, 4)), jnp.float32),
      'bias': jnp.asarray(rng.normal(size=4), jnp.float32),
    },
    'mixing': {'kernel': jnp.asarray(rng.normal(size=(2, 2)), jnp.float32)},
  }


def gradients(n=14):
  rng = np.random.default_rng(1)
  return [
    jax.tree.map(
      lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params()
    )
    for _ in range(n)
  ]


def follow(tx, p, grads):
  """Parameters after every update; compiled, as in training."""

  @jax.jit
  def update(p, state, g):
    u, state = tx.update(g, state, p)
    return optax.apply_updates(p, u), state

  state, out = tx.init(p), []
  for g in grads:
    p, state = update(p, state, g)
    out.append(p)
  return out


def leaf(trajectory, *path):
  for key in path:
    trajectory = [p[key] for p in trajectory]
  return np.stack(trajectory)


def made(optim_config, schedule=ALL, tree=None, **sizes):
  return optim.make(
    optim_config, schedule, params=tree or params(), **{**SIZES, **sizes}
  )


def ranger_reference(p, grads, lr, wd, b1=0.95, b2=0.999, eps=1e-5):
  """Ranger written as its definition reads, in double precision."""
  p = np.asarray(p, np.float64)
  m, v, slow, out = 0 * p, 0 * p, p.copy(), []
  limit = 2 / (1 - b2) - 1
  for t, g in enumerate(grads, 1):
    g = np.asarray(g, np.float64)
    v = b2 * v + (1 - b2) * g**2
    m = b1 * m + (1 - b1) * g
    rho = limit - 2 * t * b2**t / (1 - b2**t)
    p = p - wd * lr * p
    if rho > 5:
      r = np.sqrt(
        (1 - b2**t)
        * (rho - 4)
        / (limit - 4)
        * (rho - 2)
        / rho
        * limit
        / (limit - 2)
      )
      p = p - lr * r / (1 - b1**t) * m / (np.sqrt(v) + eps)
    else:
      p = p - lr / (1 - b1**t) * m
    if t % 6 == 0:
      slow = slow + 0.5 * (p - slow)
      p = slow
    out.append(p)
  return np.stack(out)


def test_ranger_is_its_definition():
  grads = gradients(40)
  tx, _ = made(dict(name='ranger', lr=0.05, wd=1e-2))
  got = leaf(follow(tx, params(), grads), 'unit', 'kernel')
  want = ranger_reference(
    params()['unit']['kernel'], leaf(grads, 'unit', 'kernel'), 0.05, 1e-2
  )
  np.testing.assert_allclose(got, want, atol=2e-6)


def test_rectification_of_late_steps_is_that_of_double_precision():
  scale, first = optimizers._rectification(0.95, 0.999, lambda rho: rho > 5)
  assert first == 6
  assert scale[-1] == pytest.approx(1.0, rel=1e-6)
  # The whole table is finite and the rectified part only grows.
  assert np.isfinite(scale).all()
  assert (np.diff(scale[first + 200 :]) >= 0).all()


def test_ranger_never_rectifies_with_a_short_memory():
  tx = optimizers.ranger(0.1, b2=0.5, weight_decay=0.0, k=10**6)
  p = jnp.ones(2)
  out = follow(tx, p, [jnp.full(2, 3.0)] * 40)
  # Momentum without a second moment: every step is lr * gradient.
  np.testing.assert_allclose(np.stack(out)[-1], 1 - 40 * 0.3, rtol=1e-5)


@pytest.mark.parametrize('amsgrad', [False, True])
@pytest.mark.parametrize('wd', [0.0, 0.1])
def test_adam_is_torchs(amsgrad, wd):
  torch = pytest.importorskip('torch')
  p, grads = params()['unit']['kernel'], gradients()
  # Shrinking gradients: the running maximum then differs from the average.
  grads = [
    jax.tree.map(lambda x, i=i: x / (1 + i), g) for i, g in enumerate(grads)
  ]
  theirs = torch.nn.Parameter(torch.tensor(np.asarray(p)))
  opt = torch.optim.Adam([theirs], 0.01, weight_decay=wd, amsgrad=amsgrad)
  want = []
  for g in leaf(grads, 'unit', 'kernel'):
    theirs.grad = torch.tensor(g)
    opt.step()
    want.append(theirs.detach().numpy().copy())
  tx, _ = made(dict(name='adam', lr=0.01, wd=wd, amsgrad=amsgrad))
  got = leaf(follow(tx, params(), grads), 'unit', 'kernel')
  np.testing.assert_allclose(got, np.stack(want), atol=1e-6)


def test_other_names_are_optax():
  grads = gradients()
  tx, _ = made(dict(name='adamw', lr=0.01, b1=0.8, wd=0.1))
  want = follow(optax.adamw(0.01, b1=0.8, weight_decay=0.1), params(), grads)
  jax.tree.map(np.testing.assert_array_equal, follow(tx, params(), grads), want)
  tx, _ = made(dict(name='sgd', lr=0.01, momentum=0.9))
  want = follow(optax.sgd(0.01, momentum=0.9), params(), grads)
  jax.tree.map(np.testing.assert_array_equal, follow(tx, params(), grads), want)


def test_first_rule_decides_and_none_freezes():
  rules = [
    ('mixing/.*', None),
    ('.*/bias', dict(decay='constant', mul=0.1)),
    ('.*', dict(decay='constant')),
  ]
  grads = gradients(1)
  tx, lr = made(dict(name='sgd', lr=1.0), rules)
  start, end = params(), follow(tx, params(), grads)[0]
  np.testing.assert_array_equal(
    end['mixing']['kernel'], start['mixing']['kernel']
  )
  moved = jax.tree.map(lambda a, b: a - b, start, end)
  np.testing.assert_allclose(
    moved['unit']['bias'], 0.1 * grads[0]['unit']['bias'], rtol=1e-5
  )
  np.testing.assert_allclose(
    moved['unit']['kernel'], grads[0]['unit']['kernel'], rtol=1e-5, atol=1e-7
  )
  assert {k: float(v) for k, v in lr(0).items()} == pytest.approx(
    {'1': 0.1, '2': 1.0}
  )


@pytest.mark.parametrize('name', ['ranger', 'radam', 'adam'])
def test_frozen_tensors_have_no_state_and_no_decay(name):
  rules = [('mixing/.*', None), *ALL]
  tx, _ = made(dict(name=name, lr=0.1, wd=0.5), rules)
  frozen = params()['mixing']['kernel'].shape
  shapes = {x.shape for x in jax.tree.leaves(tx.init(params()))}
  assert frozen not in shapes and (3, 4) in shapes
  end = follow(tx, params(), gradients(7))[-1]
  np.testing.assert_array_equal(
    end['mixing']['kernel'], params()['mixing']['kernel']
  )


def test_weight_decay_reaches_biases_unless_told_otherwise():
  zero = [jax.tree.map(jnp.zeros_like, params())]
  config = dict(name='ranger', lr=0.1, wd=0.5)
  start = params()['unit']
  end = follow(made(config)[0], params(), zero)[0]['unit']
  np.testing.assert_allclose(end['bias'], 0.95 * start['bias'], rtol=1e-6)
  config['wd_mults'] = [('.*/bias', 0.0), ('.*', 2.0)]
  end = follow(made(config)[0], params(), zero)[0]['unit']
  np.testing.assert_array_equal(end['bias'], start['bias'])
  np.testing.assert_allclose(end['kernel'], 0.9 * start['kernel'], rtol=1e-6)


def test_a_resumed_run_is_bit_identical():
  config = dict(name='ranger', lr=0.1, wd=1e-3)
  tx, _ = made(config)
  grads = gradients(13)

  @jax.jit
  def update(p, state, g):
    u, state = tx.update(g, state, p)
    return optax.apply_updates(p, u), state

  def run(p, state, grads):
    for g in grads:
      p, state = update(p, state, g)
    return p, state

  whole = run(params(), tx.init(params()), grads)
  half = run(params(), tx.init(params()), grads[:8])
  half = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), half)
  jax.tree.map(np.testing.assert_array_equal, run(*half, grads[8:]), whole)


FREEZE_MIXING = [('mixing/.*', None), *ALL]


@pytest.mark.parametrize('largest', [0.5, 100.0])
def test_gradients_are_clipped_together_as_torch_does(largest):
  torch = pytest.importorskip('torch')
  (grads,) = gradients(1)
  tensors = [
    torch.nn.Parameter(torch.zeros(4)),
    torch.nn.Parameter(torch.zeros(3, 4)),
  ]
  for tensor, name in zip(tensors, ('bias', 'kernel')):
    tensor.grad = torch.tensor(np.asarray(grads['unit'][name]))
  norm = float(torch.nn.utils.clip_grad_norm_(tensors, largest))
  assert (norm > largest) == (largest < 1)
  # The frozen tensor has a gradient, which must not count.
  tx, _ = made(dict(name='sgd', lr=1.0, clip_norm=largest), FREEZE_MIXING)
  updates, _ = tx.update(grads, tx.init(params()), params())
  for tensor, name in zip(tensors, ('bias', 'kernel')):
    np.testing.assert_allclose(
      -updates['unit'][name], tensor.grad.numpy(), rtol=1e-6
    )
  assert not updates['mixing']['kernel'].any()


def test_factors_come_before_the_clip_and_limits_after_the_update():
  (grads,) = gradients(1)
  config = dict(
    name='sgd',
    lr=1.0,
    grad_mults=[('.*/bias', 10.0), ('unit/.*', 0.0)],
    clip_norm=0.1,
  )
  rules = FREEZE_MIXING
  updates = made(config, rules)[0].update(
    grads, made(config, rules)[0].init(params()), params()
  )[0]
  bias = grads['unit']['bias']
  np.testing.assert_allclose(
    -updates['unit']['bias'], 0.1 * bias / jnp.linalg.norm(bias), rtol=1e-5
  )
  assert not updates['unit']['kernel'].any()

  config['limits'] = [('.*/bias', -0.25, 0.25), ('unit/.*', None, 0.5)]
  end = follow(made(config, rules)[0], params(), [grads])[0]
  start, unlimited = params(), optax.apply_updates(params(), updates)
  np.testing.assert_array_equal(
    end['unit']['bias'], np.clip(unlimited['unit']['bias'], -0.25, 0.25)
  )
  np.testing.assert_array_equal(
    end['unit']['kernel'], np.minimum(unlimited['unit']['kernel'], 0.5)
  )
  assert (start['mixing']['kernel'] == end['mixing']['kernel']).all()


def test_clip_factors_and_limits_leave_the_state_alone():
  """A run that had none of them can be resumed with them."""
  config = dict(name='ranger', lr=0.1)
  more = dict(
    config,
    clip_norm=1.0,
    grad_mults=[('unit/.*', 0.5)],
    limits=[('.*bias', None, 1.0)],
  )
  plain, rich = (made(c)[0].init(params()) for c in (config, more))
  assert jax.tree.structure(plain) == jax.tree.structure(rich)


def test_half_takes_the_tensors_it_names():
  grads = gradients(4)
  config = dict(name='bert_adam', lr=0.01, wd=0.2)
  single = follow(made(config)[0], params(), grads)[-1]
  tx, _ = made(dict(config, half=['unit/.*']))
  mixed = follow(tx, params(), grads)[-1]
  np.testing.assert_array_equal(
    mixed['mixing']['kernel'], single['mixing']['kernel']
  )
  for name in ('bias', 'kernel'):
    got = np.asarray(mixed['unit'][name])
    np.testing.assert_array_equal(got, got.astype(np.float16))
    np.testing.assert_allclose(got, single['unit'][name], atol=2e-3)
  kinds = [(x.shape, str(x.dtype)) for x in jax.tree.leaves(tx.init(params()))]
  assert kinds.count(((3, 4), 'float16')) == 2
  assert kinds.count(((2, 2), 'float32')) == 2


def test_trained_is_what_has_a_schedule():
  assert optim.trained(FREEZE_MIXING, params()) == {
    'unit': {'kernel': True, 'bias': True},
    'mixing': {'kernel': False},
  }


SHARDED = """
import jax, numpy as np, optax
from vidret_jax import sharding
from vidret_jax.train import optim, state as state_lib

rng = np.random.default_rng(0)
draw = lambda scale: {
  'clip': {'kernel': np.float32(scale * rng.normal(size=(512, 1536))),
           'bias': np.float32(scale * rng.normal(size=1536))},
  'scale': np.float32(4.7)}
params, grads = draw(0.05), [draw(1e-4) for _ in range(3)]
tx, _ = optim.make(
  dict(name='bert_adam', lr=1e-7, wd=0.2, clip_norm=0.01,
       half=['clip/kernel'], limits=[('scale', None, 4.605)]),
  [('.*', dict(decay='constant'))],
  params=params, steps_per_epoch=1, total_steps=3)
ends = []
for rule in ('replicate', 'fsdp'):
  mesh = sharding.make_mesh()
  start = state_lib.start({'params': params}, tx)
  where = sharding.tree_sharding(start, [('.*', rule)], mesh)

  def update(state, g):
    u, opt = tx.update(g, state.opt_state, state.params)
    p = optax.apply_updates(state.params, u)
    return state_lib.TrainState(state.step + 1, p, {}, opt)

  update = jax.jit(update, out_shardings=where)
  state = jax.device_put(start, where)
  for g in grads:
    state = update(state, g)
  split = {
    sharding.path_name(path): x.sharding.spec
    for path, x in jax.tree_util.tree_leaves_with_path(state)
    if not x.sharding.is_fully_replicated}
  assert len(split) == (3 if rule == 'fsdp' else 0), split
  ends.append(sharding.fetch(state))
jax.tree.map(lambda a, b: np.testing.assert_allclose(
  np.float32(a), np.float32(b), rtol=1e-5, atol=3e-7), *ends)
assert abs(float(ends[1].params['scale']) - 4.605) < 1e-6
"""


def test_split_over_eight_devices_it_is_the_same_update():
  """The norm of a gradient is that of the whole tensor, on all devices."""
  done = subprocess.run(
    [sys.executable, '-c', SHARDED],
    cwd=command.ROOT,
    text=True,
    env=command.environment(8),
    capture_output=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr


def test_ranger_needs_no_temporaries():
  """One pass per tensor: no second copy of the model while updating."""
  tree = {f'w{i}': jnp.ones((512, 512)) for i in range(8)}
  tx, _ = made(dict(name='ranger', lr=0.1, wd=1e-3), tree=tree)

  def update(p, state, g):
    u, state = tx.update(g, state, p)
    return optax.apply_updates(p, u), state

  compiled = (
    jax.jit(update, donate_argnums=(0, 1))
    .lower(tree, tx.init(tree), tree)
    .compile()
  )
  memory = compiled.memory_analysis()
  assert memory.temp_size_in_bytes < 512 * 512 * 4


@pytest.mark.parametrize(
  'config, rules, words',
  [
    (dict(name='rangr', lr=1.0), ALL, ('rangr', 'ranger', 'adamw')),
    (dict(name='ranger'), ALL, ('lr',)),
    (dict(name='ranger', lr=1.0, eps1=1), ALL, ('eps1', "'eps'")),
    (dict(name='sgd', lr=1.0, wd=1.0), ALL, ('weight_decay', 'momentum')),
    (dict(name='sgd', lr=1.0), [('unit/.*', ALL[0][1])], ('mixing/kernel',)),
    (dict(name='sgd', lr=1.0), [('units/.*', None), *ALL], ('units/.*',)),
    (dict(name='sgd', lr=1.0), [('.*', None)], ('frozen',)),
    (dict(name='sgd', lr=1.0), [('.*', dict(decay='stop'))], ('cosine',)),
    (
      dict(name='sgd', lr=1.0),
      [('.*', dict(decay='step', gama=0.9))],
      ('gama', 'gamma'),
    ),
    (
      dict(name='sgd', lr=1.0),
      [('.*', dict(decay='constant', warmup_steps=1, warmup_epochs=1))],
      ('warmup_steps', 'warmup_epochs'),
    ),
    (
      dict(name='sgd', lr=1.0, wd_mults=[('.*bais', 0.0), ('.*', 1.0)]),
      ALL,
      ('wd_mults', '.*bais'),
    ),
    (dict(name='sgd', lr=1.0, half=['.*']), ALL, ('half', 'bert_adam', 'sgd')),
    (
      dict(name='bert_adam', lr=1.0, half=['unit']),
      ALL,
      ('optim.half', "'unit'", 'mixing/kernel'),
    ),
    (
      dict(name='sgd', lr=1.0, grad_mults=[('units/.*', 0.5)]),
      ALL,
      ('optim.grad_mults', 'units/.*'),
    ),
    (
      dict(name='sgd', lr=1.0, limits=[('scale', None, 1.0)]),
      ALL,
      ('optim.limits', 'scale'),
    ),
    (
      dict(name='sgd', lr=1.0, limits=[('.*', 2.0, 1.0)]),
      ALL,
      ('optim.limits', 'low=2.0', 'high=1.0'),
    ),
    (dict(name='sgd', lr=1.0, clip_norm=0), ALL, ('clip_norm=0',)),
    (
      dict(name='sgd', lr=1.0),
      [('.*', dict(decay='warmup_cosine', warmup=10))],
      ('warmup=10', 'fraction'),
    ),
    (
      dict(name='sgd', lr=1.0),
      [('.*', dict(decay='warmup_cosine', warmup_percent=10))],
      ('warmup_cosine', 'warmup=', 'warmup_percent'),
    ),
  ],
)
def test_errors_name_the_key_and_the_choices(config, rules, words):
  with pytest.raises(config_lib.ConfigError) as error:
    made(config, rules)
  for word in words:
    assert word in str(error.value)


def rates(spec, lr=1.0, **sizes):
  sizes = {**SIZES, **sizes}
  schedule = jax.jit(schedules.make(spec, lr, **sizes))
  return np.array([schedule(i) for i in range(sizes['total_steps'])])


def test_step_decay_changes_after_whole_epochs():
  got = rates(dict(decay='step', every_epochs=2, gamma=0.5), 0.4)
  want = 0.4 * 0.5 ** (np.arange(50) // 5 // 2)
  np.testing.assert_allclose(got, want, rtol=1e-7)


def test_long_step_decay_keeps_full_precision():
  got = rates(
    dict(decay='step', gamma=0.95), 0.1, steps_per_epoch=1, total_steps=300
  )
  want = np.float32(0.1 * 0.95 ** np.arange(300.0))
  np.testing.assert_array_equal(got, want)


def test_cosine_and_linear_run_over_the_whole_run():
  cosine = rates(dict(decay='cosine', final=0.1))
  assert cosine[0] == 1 and cosine[25] == pytest.approx(0.55)
  linear = rates(dict(decay='linear'))
  np.testing.assert_allclose(linear, 1 - np.arange(50) / 50, atol=1e-6)


def test_warmup_is_linear_and_ends():
  for key, value in dict(
    warmup_steps=10, warmup_epochs=2, warmup_percent=20
  ).items():
    got = rates({'decay': 'constant', key: value})
    np.testing.assert_allclose(
      got, np.minimum(np.arange(1, 51) / 10, 1), rtol=1e-6
    )


@pytest.mark.parametrize('warmup', [0.0, 0.1, 0.3])
def test_berts_schedules_are_their_definition(warmup):
  """For every length of a run: the end of the warm-up is where it was."""
  forms = dict(
    warmup_cosine=lambda x: 0.5 * (1 + np.cos(np.pi * x)),
    warmup_linear=lambda x: max((x - 1) / (warmup - 1), 0),
    warmup_constant=lambda x: 1.0,
  )
  for name, form in forms.items():
    for total in (7, 10, 30, 50, 190):
      got = rates(dict(decay=name, warmup=warmup), total_steps=total)
      places = [step / total for step in range(total)]
      want = [x / warmup if x < warmup else form(x) for x in places]
      np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_the_two_kinds_of_warmup_differ_in_the_first_update():
  berts = rates(dict(decay='warmup_constant', warmup=0.2))
  ours = rates(dict(decay='constant', warmup_percent=20))
  np.testing.assert_allclose(berts[:3], [0, 0.1, 0.2], atol=1e-7)
  np.testing.assert_allclose(ours[:3], [0.1, 0.2, 0.3], atol=1e-7)


def test_rates_hold_beyond_the_last_step():
  schedule = schedules.make(dict(decay='linear', final=0.5), 1.0, **SIZES)
  assert float(schedule(10**6)) == pytest.approx(0.5)


def test_a_decay_with_an_end_of_its_own():
  """HAP-VR's: a cosine over so many steps, not shifted by its warm-up."""
  spec = dict(
    decay='warmup_cosine', decay_steps=40, warmup=0.25, start=0.1, final=0.2
  )
  got = rates(spec, 0.5)
  place = np.arange(50)
  want = np.where(
    place < 10,
    0.1 + 0.9 * place / 10,
    0.2 + 0.4 * (1 + np.cos(np.pi * np.minimum(place, 40) / 40)),
  )
  np.testing.assert_allclose(got, 0.5 * want, rtol=1e-6)
  # Whatever the length of the run, and in other units.
  for key, value in dict(decay_epochs=8, decay_percent=80).items():
    spec = {k: v for k, v in spec.items() if k != 'decay_steps'}
    np.testing.assert_array_equal(rates({**spec, key: value}, 0.5), got)
  np.testing.assert_array_equal(
    rates({**spec, 'decay_steps': 40}, 0.5, total_steps=7), got[:7]
  )
  with pytest.raises(config_lib.ConfigError, match='decay_steps'):
    rates(dict(decay='step', gamma=0.5, decay_steps=40))
