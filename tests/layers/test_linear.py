# SPDX-License-Identifier: Apache-2.0
"""Tests of layers/linear.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.layers.linear import Linear, Numerics


def test_parts_add_up_to_the_map_of_the_concatenation():
  module = Linear(3, 5, parts=2)
  a, b = jax.random.normal(jax.random.key(1), (2, 4, 3))
  variables = module.init(jax.random.key(0), jnp.concatenate([a, b], -1))

  def split(module):
    return module.part(a, 0) + module.part(b, 1) + module.offset()

  np.testing.assert_allclose(
    module.apply(variables, method=split),
    module.apply(variables, jnp.concatenate([a, b], -1)),
    atol=1e-6,
  )


def test_torch_initialisation():
  params = Linear(100, 300, parts=4).init(
    jax.random.key(0), jnp.zeros((1, 400))
  )['params']
  bound = 400**-0.5
  for name in ('kernel', 'bias'):
    x = params[name]
    assert jnp.abs(x).max() <= bound
    np.testing.assert_allclose(x.std(), bound / 3**0.5, rtol=0.1)


def test_xavier_initialisation():
  num = Numerics(linear_init='xavier')
  params = Linear(100, 300, num=num).init(
    jax.random.key(0), jnp.zeros((1, 100))
  )['params']
  np.testing.assert_array_equal(params['bias'], np.float32(0.01))
  assert jnp.abs(params['kernel']).max() <= (6 / 400) ** 0.5


def test_half_precision_computes_on_float32_parameters():
  module = Linear(3, 5, num=Numerics('bfloat16'))
  x = jnp.ones((2, 3))
  variables = module.init(jax.random.key(0), x)
  assert variables['params']['kernel'].dtype == jnp.float32
  assert module.apply(variables, x).dtype == jnp.bfloat16


@pytest.mark.parametrize(
  'kwargs', [dict(dtype='int8'), dict(linear_init='zeros')]
)
def test_unknown_numerics(kwargs):
  with pytest.raises(ValueError, match='expected'):
    Numerics(**kwargs)
