# SPDX-License-Identifier: Apache-2.0
"""Dropout by hashed bits: rates, independence, and the same on 8 devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax import sharding
from vidret_jax.layers import dropout

KEY = jax.random.key(3)


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_rate_and_scale(rate):
  x = jnp.ones((200, 500))
  y = np.asarray(dropout.drop(x, KEY, rate))
  # Five standard deviations of a binomial.
  assert abs((y == 0).mean() - rate) < 5 * (rate * (1 - rate) / y.size) ** 0.5
  np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


def test_bits_look_random():
  """Every bit is fair; neighbours and keys have nothing in common."""
  shape = (64, 32, 50)
  bits = np.asarray(dropout.hashed_bits(KEY, shape))
  other = np.asarray(dropout.hashed_bits(jax.random.key(4), shape))
  fair = 5 * 0.5 / bits.size**0.5
  for shift in range(32):
    ones = (bits >> shift) & 1
    assert abs(ones.mean() - 0.5) < fair, shift
    assert abs((ones ^ ((other >> shift) & 1)).mean() - 0.5) < fair, shift
  for axis in range(3):
    top = bits >> 31
    same = (top == np.roll(top, 1, axis)).mean()
    assert abs(same - 0.5) < fair, axis
  assert len(np.unique(bits)) > 0.99 * bits.size


def test_only_in_training_and_by_its_key():
  x = jnp.ones((4, 5))
  layer = dropout.Dropout(0.5)
  assert (layer.apply({}, x, train=False) == x).all()
  assert (dropout.Dropout(0.0).apply({}, x, train=True) == x).all()
  one, two, other = (
    layer.apply({}, x, train=True, rngs={'dropout': jax.random.key(i)})
    for i in (0, 0, 1)
  )
  assert (one == two).all() and not (one == other).all()


def test_devices_agree():
  mesh = sharding.make_mesh()
  x = np.ones((16, 7), np.float32)
  whole = dropout.drop(jnp.asarray(x), KEY, 0.5)
  parts = jax.jit(lambda x: dropout.drop(x, KEY, 0.5))(
    sharding.put_batch(x, mesh)
  )
  np.testing.assert_array_equal(np.asarray(parts), whole)
