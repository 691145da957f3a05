# SPDX-License-Identifier: Apache-2.0
"""Tests of layers/transformer.py against PyTorch and the formulas."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.layers import transformer
from vidret_jax.layers.linear import Numerics

WIDTH = 2 * transformer.HEAD_WIDTH
X = np.random.default_rng(0).normal(size=(2, 5, WIDTH)).astype('f')
CAUSAL = np.triu(np.full((5, 5), -np.inf, 'f'), 1)


class Tower(nn.Module):
  """A few blocks and a sum, for gradients."""

  remat: bool = False
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x, bias=None):
    for block in transformer.blocks(2, num=self.num, remat=self.remat):
      x = block(x, bias)
    return x


def drawn(variables, scale=0.3):
  """Random parameters, so that gains and biases matter too."""
  leaves, tree = jax.tree.flatten(variables)
  rng = np.random.default_rng(1)
  return tree.unflatten(
    [jnp.asarray(scale * rng.normal(size=x.shape), x.dtype) for x in leaves]
  )


def init(module, *args):
  return drawn(module.init(jax.random.key(0), *args))


def test_quick_gelu():
  x = np.linspace(-8, 8, 33)
  want = x / (1 + np.exp(-1.702 * x))
  got = transformer.quick_gelu(jnp.asarray(x, 'float32'))
  np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize('eps', [1e-5, 1e-12])
def test_layer_norm(eps):
  module = transformer.LayerNorm(eps)
  variables = init(module, X)
  scale, bias = (np.float64(variables['params'][k]) for k in ('scale', 'bias'))
  x = X.astype(np.float64)
  std = np.sqrt(x.var(-1, keepdims=True) + eps)
  want = (x - x.mean(-1, keepdims=True)) / std * scale + bias
  np.testing.assert_allclose(module.apply(variables, X), want, atol=3e-6)


def test_layer_norm_of_a_constant_is_finite():
  module = transformer.LayerNorm(1e-12)
  x = jnp.full((3, WIDTH), 0.1)
  variables = module.init(jax.random.key(0), x)
  grad = jax.grad(lambda x: (module.apply(variables, x) * X[0, :3]).sum())(x)
  assert np.isfinite(module.apply(variables, x)).all()
  assert np.isfinite(grad).all()


def test_layer_norm_in_half_precision_keeps_its_sums_wide():
  module = transformer.LayerNorm(num=Numerics('float16'))
  # The sum of squares would overflow float16.
  x = jnp.asarray(300 * X, 'float16')
  variables = module.init(jax.random.key(0), x)
  got = module.apply(variables, x)
  assert got.dtype == jnp.float16
  wide = np.float64(x)
  want = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
  np.testing.assert_allclose(got, want, atol=5e-3)


def by_hand(params, x, bias):
  """Attention in float64."""
  p = jax.tree.map(np.float64, params)
  qkv = x @ p['in_proj']['kernel'] + p['in_proj']['bias']
  out = []
  heads = x.shape[-1] // 64
  for h in range(heads):
    q, k, v = (qkv[..., i * x.shape[-1] + 64 * h :][..., :64] for i in range(3))
    logits = q @ k.swapaxes(-1, -2) / 8 + bias
    e = np.exp(logits - logits.max(-1, keepdims=True))
    out.append(e / e.sum(-1, keepdims=True) @ v)
  y = np.concatenate(out, -1)
  return y @ p['out_proj']['kernel'] + p['out_proj']['bias']


@pytest.mark.parametrize('bias', [np.zeros((5, 5), 'f'), CAUSAL])
def test_attention_by_hand(bias):
  module = transformer.Attention(0.1)
  variables = init(module, X)
  want = by_hand(variables['params'], np.float64(X), bias)
  got = module.apply(variables, X, bias)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_attention_over_other_leading_axes():
  module = transformer.Attention(0.1)
  variables = init(module, X)
  flat = module.apply(variables, X)
  nested = module.apply(variables, X[None])
  np.testing.assert_allclose(nested[0], flat, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('masked', [False, True])
def test_attention_is_that_of_torch(masked):
  torch = pytest.importorskip('torch')
  module = transformer.Attention(0.1)
  variables = drawn(module.init(jax.random.key(0), X), 0.1)
  theirs = torch.nn.MultiheadAttention(
    WIDTH, WIDTH // transformer.HEAD_WIDTH, batch_first=True
  )
  p = jax.tree.map(np.asarray, variables['params'])
  theirs.load_state_dict(
    {
      'in_proj_weight': torch.tensor(p['in_proj']['kernel'].T),
      'in_proj_bias': torch.tensor(p['in_proj']['bias']),
      'out_proj.weight': torch.tensor(p['out_proj']['kernel'].T),
      'out_proj.bias': torch.tensor(p['out_proj']['bias']),
    }
  )
  x = torch.tensor(X)
  mask = torch.tensor(CAUSAL) if masked else None
  with torch.no_grad():
    want = theirs(x, x, x, need_weights=False, attn_mask=mask)[0].numpy()
  got = module.apply(variables, X, CAUSAL if masked else None)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_keys_left_out_influence_nothing():
  """A bias of -1e6 per example, as the temporal transformer has."""
  module = transformer.Attention(0.1)
  variables = init(module, X)
  keep = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]], bool)
  bias = np.where(keep, 0, -1e6).astype('f')[:, None, None]
  other = np.where(keep[..., None], X, 7)
  a = np.asarray(module.apply(variables, X, bias))
  b = np.asarray(module.apply(variables, other, bias))
  np.testing.assert_allclose(a[keep], b[keep], rtol=1e-6, atol=1e-6)


def test_block_is_two_residuals():
  block = transformer.Block(2)
  variables = init(block, X)

  p = variables['params']
  norm = transformer.LayerNorm()
  attention, mlp = transformer.Attention(0.1), transformer.Mlp(0.1)
  y = norm.apply({'params': p['ln_1']}, X)
  x = X + attention.apply({'params': p['attn']}, y, CAUSAL)
  y = norm.apply({'params': p['ln_2']}, x)
  inner = transformer.quick_gelu(
    y @ p['mlp']['c_fc']['kernel'] + p['mlp']['c_fc']['bias']
  )
  assert inner.shape[-1] == 4 * WIDTH
  want = x + inner @ p['mlp']['c_proj']['kernel'] + p['mlp']['c_proj']['bias']
  np.testing.assert_allclose(
    block.apply(variables, X, CAUSAL), want, rtol=2e-4, atol=2e-4
  )
  np.testing.assert_allclose(
    mlp.apply({'params': p['mlp']}, y), want - x, rtol=2e-4, atol=2e-3
  )


def test_recomputing_changes_no_gradient():
  plain, remat = Tower(), Tower(remat=True)
  variables = init(plain, X)
  names = jax.tree.structure(remat.init(jax.random.key(0), X))
  assert names == jax.tree.structure(variables)

  def loss(tower):
    return lambda v: jnp.sin(tower.apply(v, X, CAUSAL)).sum()

  want, want_grad = jax.value_and_grad(loss(plain))(variables)
  got, got_grad = jax.value_and_grad(loss(remat))(variables)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  for a, b in zip(jax.tree.leaves(got_grad), jax.tree.leaves(want_grad)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision(dtype):
  tower, half = Tower(), Tower(num=Numerics(dtype))
  variables = drawn(tower.init(jax.random.key(0), X), 0.05)
  got = half.apply(variables, jnp.asarray(X, dtype), CAUSAL)
  assert got.dtype == jnp.dtype(dtype)
  kept = half.init(jax.random.key(0), jnp.asarray(X, dtype))
  assert {x.dtype for x in jax.tree.leaves(kept)} == {jnp.dtype('float32')}
  want = tower.apply(variables, X, CAUSAL)
  np.testing.assert_allclose(np.float32(got), want, atol=0.05, rtol=0.05)


def test_initial_scales():
  """CLIP's: Radford et al., `initialize_parameters`."""
  params = Tower().init(jax.random.key(0), X)['params']['block_0']
  stds = {
    'in_proj': (params['attn']['in_proj'], WIDTH**-0.5),
    'out_proj': (params['attn']['out_proj'], (WIDTH * 2 * 2) ** -0.5),
    'c_fc': (params['mlp']['c_fc'], (2 * WIDTH) ** -0.5),
    'c_proj': (params['mlp']['c_proj'], (WIDTH * 2 * 2) ** -0.5),
  }
  for name, (layer, std) in stds.items():
    assert not layer['bias'].any(), name
    np.testing.assert_allclose(
      np.std(layer['kernel']), std, rtol=0.05, err_msg=name
    )
