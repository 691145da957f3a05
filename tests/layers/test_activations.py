# SPDX-License-Identifier: Apache-2.0
"""Tests of layers/activations.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.layers import activations

POINTS = np.concatenate(
  [np.linspace(-60, 60, 241), [0.0, -1e-8, 1e-8, 19.99, 20.01, 1e4, -1e4]]
)


def direct(x):
  return x * jnp.tanh(jax.nn.softplus(x))


def test_mish_in_float64():
  with jax.enable_x64(True):
    x = jnp.asarray(POINTS)
    np.testing.assert_allclose(
      activations.mish(x), direct(x), rtol=1e-13, atol=1e-15
    )
    np.testing.assert_allclose(
      jax.vmap(jax.grad(activations.mish))(x),
      jax.vmap(jax.grad(direct))(x),
      rtol=1e-12,
      atol=1e-13,
    )


def test_mish_in_float32_is_finite_and_close():
  x = POINTS.astype(np.float32)
  with jax.enable_x64(True):
    exact = jnp.asarray(x, jnp.float64)
    want, slope = direct(exact), jax.vmap(jax.grad(direct))(exact)
  np.testing.assert_allclose(
    activations.mish(jnp.asarray(x)), want, rtol=1e-6, atol=1e-20
  )
  np.testing.assert_allclose(
    jax.vmap(jax.grad(activations.mish))(jnp.asarray(x)),
    slope,
    rtol=1e-6,
    atol=3e-7,
  )


def test_mish_keeps_the_type():
  x = jnp.asarray([1.0], jnp.bfloat16)
  assert activations.mish(x).dtype == jnp.bfloat16
  assert jax.grad(lambda x: activations.mish(x)[0])(x).dtype == jnp.bfloat16


def test_an_unknown_name_lists_the_known():
  with pytest.raises(ValueError, match='mish.*relu'):
    activations.activation('gelu')
