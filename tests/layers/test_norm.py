# SPDX-License-Identifier: Apache-2.0
"""Tests of layers/norm.py against PyTorch's documented behaviour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.layers.norm import BatchNorm

RNG = np.random.default_rng(0)


def fresh(d=3, seed=1):
  rng = np.random.default_rng(seed)
  return {
    'params': dict(
      scale=rng.normal(size=d).astype('f'), bias=rng.normal(size=d).astype('f')
    ),
    'batch_stats': dict(
      mean=rng.normal(size=d).astype('f'),
      var=rng.random(d).astype('f') + 0.5,
      count=np.int32(4),
    ),
  }


def train(variables, x, **kwargs):
  y, state = BatchNorm().apply(
    variables, jnp.asarray(x), train=True, mutable=['batch_stats'], **kwargs
  )
  return np.asarray(y), jax.tree.map(np.asarray, state['batch_stats'])


def by_hand(variables, x):
  """One training call on [n, d], in float64."""
  p, s = variables['params'], variables['batch_stats']
  x = x.astype(np.float64)
  y = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)) * p['scale'] + p['bias']
  return y, dict(
    mean=0.9 * s['mean'] + 0.1 * x.mean(0),
    var=0.9 * s['var'] + 0.1 * x.var(0, ddof=1),
    count=s['count'] + 1,
  )


def assert_close(got, want, **tolerance):
  for name in want:
    np.testing.assert_allclose(got[name], want[name], err_msg=name, **tolerance)


def test_training_and_running_statistics():
  variables, x = fresh(), RNG.normal(size=(7, 3)).astype('f')
  y, stats = train(variables, x)
  want_y, want = by_hand(variables, x)
  np.testing.assert_allclose(y, want_y, atol=1e-5)
  assert_close(stats, want, rtol=1e-5, atol=1e-6)


def test_inference_uses_running_statistics():
  variables, x = fresh(), RNG.normal(size=(7, 3)).astype('f')
  p, s = variables['params'], variables['batch_stats']
  want = (x - s['mean']) / np.sqrt(s['var'] + 1e-5) * p['scale'] + p['bias']
  got = BatchNorm().apply(variables, jnp.asarray(x), train=False)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_stack_is_a_sequence_of_calls():
  variables, x = fresh(), RNG.normal(size=(6, 5, 3)).astype('f')
  y, stats = train(variables, x, stacked=True)
  later = variables
  for i in range(5):
    want, state = train(later, x[:, i])
    np.testing.assert_allclose(y[:, i], want, atol=1e-6)
    later = {**variables, 'batch_stats': state}
  assert_close(stats, state, rtol=1e-6, atol=1e-6)
  assert stats['count'] == 9


def test_other_axes_than_the_last_are_pooled():
  variables, x = fresh(), RNG.normal(size=(4, 5, 3)).astype('f')
  y, stats = train(variables, x)
  want, state = train(variables, x.reshape(20, 3))
  np.testing.assert_allclose(y.reshape(20, 3), want, atol=1e-6)
  assert_close(stats, state, rtol=1e-6)


@pytest.mark.parametrize('stacked', [False, True])
def test_excluded_rows_influence_nothing(stacked):
  variables = fresh()
  x = RNG.normal(size=(6, 4, 3) if stacked else (6, 3)).astype('f')
  rows = np.array([True, True, False, True, False, True])
  where = rows[:, None] if stacked else rows
  y, stats = train(variables, x, where=where, stacked=stacked)
  want, state = train(variables, x[rows], stacked=stacked)
  np.testing.assert_allclose(y[rows], want, atol=1e-6)
  assert_close(stats, state, rtol=1e-6, atol=1e-7)
  # To the last bit, whatever the excluded rows hold.
  other = np.where(where[..., None], x, 1e30).astype('f')
  y2, stats2 = train(variables, other, where=where, stacked=stacked)
  np.testing.assert_array_equal(y2[rows], y[rows])
  for name in stats:
    np.testing.assert_array_equal(stats2[name], stats[name])


def test_gradients_ignore_excluded_rows():
  variables, x = fresh(), RNG.normal(size=(5, 3)).astype('f')
  where = np.array([True, False, True, True, False])

  def loss(x, where):
    y, _ = BatchNorm().apply(
      variables, x, train=True, where=where, mutable=['batch_stats']
    )
    y = jnp.where(where[:, None], y, 0)
    return (y * jnp.arange(3) * y).sum()

  got = jax.grad(loss)(jnp.asarray(x), where)
  want = jax.grad(loss)(jnp.asarray(x[where]), np.ones(3, bool))
  np.testing.assert_allclose(got[where], want, atol=2e-6)
  assert not got[~where].any()


def test_an_empty_batch_changes_no_statistic():
  variables, x = fresh(), RNG.normal(size=(4, 2, 3)).astype('f')
  where = np.array([[True, False]] * 4)
  y, stats = train(variables, x, where=where, stacked=True)
  _, state = train(variables, x[:, 0])
  assert np.isfinite(y).all()
  assert_close(stats, state, rtol=1e-6)


def test_half_precision_keeps_statistics_in_float32():
  variables = fresh()
  x = (100 + RNG.normal(size=(64, 3))).astype('f')
  y, state = BatchNorm().apply(
    variables, jnp.asarray(x, jnp.bfloat16), train=True, mutable=['batch_stats']
  )
  assert y.dtype == jnp.bfloat16
  assert state['batch_stats']['mean'].dtype == jnp.float32
