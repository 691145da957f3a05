# SPDX-License-Identifier: Apache-2.0
"""Optimisers and schedules against definitions, optax and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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


def test_rates_hold_beyond_the_last_step():
  schedule = schedules.make(dict(decay='linear', final=0.5), 1.0, **SIZES)
  assert float(schedule(10**6)) == pytest.approx(0.5)
