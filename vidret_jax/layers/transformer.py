# SPDX-License-Identifier: Apache-2.0
"""Pre-norm transformer blocks as CLIP has them (Radford et al., 2021).

No dropout; QuickGELU; heads of 64; query, key and value in one product. Norms
and softmaxes are computed in float32 whatever the type of the products is.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Numerics

Array = jax.Array

HEAD_WIDTH = 64


def quick_gelu(x: Array) -> Array:
  """x * sigmoid(1.702 x)."""
  return x * jax.nn.sigmoid(1.702 * x)


class LayerNorm(nn.Module):
  """Over the last axis, in float32, returned in the type of x.

  Attributes:
    eps: added to the variance.
    num: numerics.
  """

  eps: float = 1e-5
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    d, wide = x.shape[-1], self.num.wide
    scale = self.param('scale', nn.initializers.ones, (d,), wide)
    bias = self.param('bias', nn.initializers.zeros, (d,), wide)
    y = x.astype(wide)
    y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + self.eps)
    return (y * scale + bias).astype(x.dtype)


class Dense(nn.Module):
  """x @ kernel + bias with a normal initialisation and a zero bias.

  Attributes:
    features: output width.
    std: standard deviation of the initial kernel.
    num: numerics.
  """

  features: int
  std: float
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1], self.features)
    kernel = self.param(
      'kernel', nn.initializers.normal(self.std), shape, self.num.wide
    )
    bias = self.param(
      'bias', nn.initializers.zeros, (self.features,), self.num.wide
    )
    return self.num.dot(x, kernel) + bias.astype(self.num.dtype)


class Attention(nn.Module):
  """Multi-head self-attention: `torch.nn.MultiheadAttention`.

  Attributes:
    std: of the output projection's initial kernel.
    num: numerics.
  """

  std: float
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array, bias: Array | None = None) -> Array:
    """Attends.

    Args:
      x: [..., n, w], w a multiple of 64.
      bias: added to the scaled products, broadcastable to [..., h, n, n].

    Returns:
      [..., n, w].
    """
    width = x.shape[-1]
    qkv = Dense(3 * width, width**-0.5, self.num, name='in_proj')(x)
    heads = (3, width // HEAD_WIDTH, HEAD_WIDTH)
    q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:-1], *heads), -3, 0)
    precision, wide = self.num.precision, self.num.wide
    logits = jnp.einsum(
      '...qhd,...khd->...hqk',
      q * HEAD_WIDTH**-0.5,
      k,
      precision=precision,
      preferred_element_type=wide,
    )
    if bias is not None:
      logits = logits + bias
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    y = jnp.einsum('...hqk,...khd->...qhd', weights, v, precision=precision)
    y = y.reshape(x.shape)
    return Dense(width, self.std, self.num, name='out_proj')(y)


class Mlp(nn.Module):
  """Two layers with QuickGELU between, four times as wide inside.

  Attributes:
    std: of the second layer's initial kernel.
    num: numerics.
  """

  std: float
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    y = Dense(4 * width, (2 * width) ** -0.5, self.num, name='c_fc')(x)
    return Dense(width, self.std, self.num, name='c_proj')(quick_gelu(y))


class Block(nn.Module):
  """x += attention(norm(x)); x += mlp(norm(x)).

  Attributes:
    depth: blocks of the tower, for the initial scale of what is added.
    eps: of the norms.
    num: numerics.
  """

  depth: int
  eps: float = 1e-5
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array, bias: Array | None = None) -> Array:
    std = (x.shape[-1] * 2 * self.depth) ** -0.5
    y = LayerNorm(self.eps, self.num, name='ln_1')(x)
    x = x + Attention(std, self.num, name='attn')(y, bias)
    y = LayerNorm(self.eps, self.num, name='ln_2')(x)
    return x + Mlp(std, self.num, name='mlp')(y)


def blocks(
  depth: int, *, eps: float = 1e-5, num: Numerics, remat: bool = False
) -> list[nn.Module]:
  """The blocks of a tower, `block_0` and so on; call in a compact method.

  Args:
    depth: how many.
    eps: of the norms.
    num: numerics.
    remat: recompute a block's inside in the backward pass instead of keeping
      it: memory of one activation per block, about a third more work.
  """
  kind = nn.remat(Block) if remat else Block
  return [kind(depth, eps, num, name=f'block_{i}') for i in range(depth)]
