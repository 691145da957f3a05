# SPDX-License-Identifier: Apache-2.0
"""Tests of layers/region_attention.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.layers import region_attention
from vidret_jax.layers.linear import Numerics

pytestmark = pytest.mark.usefixtures('quick_compiler')


def draw(*shape, seed=0):
  x = np.random.default_rng(seed).normal(size=shape)
  return x.astype(np.float32)


def test_attention_scales_every_region_by_its_own_weight():
  net = region_attention.RegionAttention(4)
  x, w, b, u = draw(2, 3, 4), draw(4, 4, seed=1), draw(4, seed=2), draw(4, 1)
  params = dict(transform=dict(kernel=w, bias=b), context=dict(kernel=u))
  got = net.apply({'params': params}, x)
  weights = 1 / (1 + np.exp(-(np.tanh(x @ w + b) @ u)))
  np.testing.assert_allclose(got, x * weights, rtol=1e-5, atol=1e-6)
  found = net.apply({'params': params}, x, method='weights')
  np.testing.assert_allclose(found, weights, rtol=1e-5)


def test_attention_begins_with_no_bias_and_keeps_the_type_of_regions():
  net = region_attention.RegionAttention(4, Numerics('bfloat16'))
  x = draw(1, 2, 4)
  variables = jax.jit(net.init)(jax.random.key(0), x)
  params = variables['params']
  assert {k: set(v) for k, v in params.items()} == {
    'transform': {'kernel', 'bias'},
    'context': {'kernel'},
  }
  assert not params['transform']['bias'].any()
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))
  for dtype in (jnp.bfloat16, jnp.float32):
    x = jax.ShapeDtypeStruct((1, 2, 4), dtype)
    assert jax.eval_shape(net.apply, variables, x).dtype == dtype


def test_bits_are_signs_and_soft_only_in_training():
  net = region_attention.Binarization(3, 2)
  kernel = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
  variables = {'params': dict(kernel=kernel)}
  x = np.array([[2, -3, 1], [0, 5, 0], [1e-3, 0, 1]], np.float32)
  hard = net.apply(variables, x)
  np.testing.assert_array_equal(hard, [[1, -1], [0, 1], [1, 0]])
  soft = net.apply(variables, x, True)
  unit = x[2, 0] / np.linalg.norm(x[2])
  want = jax.scipy.special.erf(unit / np.sqrt(2e-6))
  np.testing.assert_allclose(soft[2, 0], want, rtol=1e-5)
  assert 0.5 < soft[2, 0] < 1


def test_only_soft_bits_have_a_gradient():
  net = region_attention.Binarization(3, 2)
  x = 1e-3 * draw(4, 3)
  x[:, 2] = 1
  kernel = np.array([[1, 0], [0, 1], [0, 0]], np.float32)  # Bits near none.

  def total(kernel, train):
    return net.apply({'params': dict(kernel=kernel)}, x, train).sum()

  grad = jax.jit(jax.grad(total), static_argnums=1)
  assert np.abs(grad(kernel, True)).max() > 1
  assert not grad(kernel, False).any()
