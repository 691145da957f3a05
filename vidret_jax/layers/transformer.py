# SPDX-License-Identifier: Apache-2.0
"""Pre-norm transformer blocks; by default CLIP's (Radford et al., 2021).

No dropout; query, key and value in one product. CLIP: QuickGELU, heads of 64,
an inner layer four times as wide. Norms and softmaxes are computed in float32
whatever the type of the products is.
"""

import dataclasses
import functools

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


@dataclasses.dataclass(frozen=True)
class Style:
  """What blocks of one paper have that those of another have not.

  Attributes:
    heads: of the attention; None: one per 64 features.
    ratio: width of the inner layer, in widths of the block.
    gelu: 'quick' (CLIP) or 'exact'.
    std: of all initial kernels; None: CLIP's, by width and depth.
  """

  heads: int | None = None
  ratio: float = 4.0
  gelu: str = 'quick'
  std: float | None = None


CLIP = Style()
GELUS = {
  'quick': quick_gelu,
  'exact': functools.partial(jax.nn.gelu, approximate=False),
}


class Attention(nn.Module):
  """Multi-head self-attention: `torch.nn.MultiheadAttention`.

  Attributes:
    std: of the output projection's initial kernel.
    num: numerics.
    style: of the paper.
  """

  std: float
  num: Numerics = Numerics()
  style: Style = CLIP

  @nn.compact
  def __call__(self, x: Array, bias: Array | None = None) -> Array:
    """Attends.

    Args:
      x: [..., n, w], w a multiple of the heads.
      bias: added to the scaled products, broadcastable to [..., h, n, n].

    Returns:
      [..., n, w].
    """
    width = x.shape[-1]
    std = self.style.std or width**-0.5
    qkv = Dense(3 * width, std, self.num, name='in_proj')(x)
    heads = self.style.heads or width // HEAD_WIDTH
    depth = width // heads
    parts = (*x.shape[:-1], 3, heads, depth)
    q, k, v = jnp.moveaxis(qkv.reshape(parts), -3, 0)
    precision, wide = self.num.precision, self.num.wide
    logits = jnp.einsum(
      '...qhd,...khd->...hqk',
      q * depth**-0.5,
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
  """Two layers with a GELU between.

  Attributes:
    std: of the second layer's initial kernel.
    num: numerics.
    style: of the paper.
  """

  std: float
  num: Numerics = Numerics()
  style: Style = CLIP

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    std = self.style.std or (2 * width) ** -0.5
    inner = int(self.style.ratio * width)
    y = GELUS[self.style.gelu](Dense(inner, std, self.num, name='c_fc')(x))
    return Dense(width, self.std, self.num, name='c_proj')(y)


class Block(nn.Module):
  """x += attention(norm(x)); x += mlp(norm(x)).

  Attributes:
    depth: blocks of the tower, for the initial scale of what is added.
    eps: of the norms.
    num: numerics.
    style: of the paper.
  """

  depth: int
  eps: float = 1e-5
  num: Numerics = Numerics()
  style: Style = CLIP

  @nn.compact
  def __call__(self, x: Array, bias: Array | None = None) -> Array:
    std = self.style.std or (x.shape[-1] * 2 * self.depth) ** -0.5
    y = LayerNorm(self.eps, self.num, name='ln_1')(x)
    x = x + Attention(std, self.num, self.style, name='attn')(y, bias)
    y = LayerNorm(self.eps, self.num, name='ln_2')(x)
    return x + Mlp(std, self.num, self.style, name='mlp')(y)


def blocks(
  depth: int,
  *,
  eps: float = 1e-5,
  num: Numerics,
  remat: bool = False,
  style: Style = CLIP,
) -> list[nn.Module]:
  """The blocks of a tower, `block_0` and so on; call in a compact method.

  Args:
    depth: how many.
    eps: of the norms.
    num: numerics.
    remat: recompute a block's inside in the backward pass instead of keeping
      it: memory of one activation per block, about a third more work.
    style: of the paper.
  """
  kind = nn.remat(Block) if remat else Block
  return [kind(depth, eps, num, style, name=f'block_{i}') for i in range(depth)]
