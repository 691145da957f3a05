# SPDX-License-Identifier: Apache-2.0
"""What is done to region vectors once per video: weights, or bits.

S2VS and HAP-VR (https://arxiv.org/abs/2407.15566), upstream
`model/layers/attention.py` and `binarization.py`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Numerics

Array = jax.Array

_VARIANCE = 1e-6  # Of the normal noise that makes a step of training soft.


class RegionAttention(nn.Module):
  """x * sigmoid(u . tanh(W x + b)): how much a region tells, 0 to 1.

  What comes out are no unit vectors any more: regions that tell little (a plain
  wall, a caption) weigh little in every product.

  Attributes:
    dim: width.
    num: numerics.
  """

  dim: int
  num: Numerics = Numerics()

  def setup(self):
    self.transform = _Dense(self.dim, self.dim, True, self.num)
    self.context = _Dense(self.dim, 1, False, self.num)

  def weights(self, x: Array) -> Array:
    """[..., d] -> [..., 1]."""
    return jax.nn.sigmoid(self.context(jnp.tanh(self.transform(x))))

  def __call__(self, x: Array) -> Array:
    return x * self.weights(x).astype(x.dtype)


class Binarization(nn.Module):
  """Signs of a learnt rotation: one bit each.

  Attributes:
    dim: input width.
    bits: output width.
    num: numerics.
  """

  dim: int
  bits: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array, train: bool = False) -> Array:
    """[..., d] -> [..., bits]: -1, 0 or 1; in training a steep erf instead."""
    kernel = self.param(
      'kernel',
      nn.initializers.orthogonal(),
      (self.dim, self.bits),
      self.num.wide,
    )
    length = jnp.linalg.norm(x.astype(self.num.wide), axis=-1, keepdims=True)
    y = self.num.dot(x / jnp.maximum(length, 1e-12), kernel)
    if train:
      return jax.scipy.special.erf(y / (2 * _VARIANCE) ** 0.5)
    return jnp.sign(y)


class _Dense(nn.Module):
  """x @ kernel + bias, Xavier's initialisation, zero bias."""

  dim: int
  features: int
  use_bias: bool
  num: Numerics

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param(
      'kernel',
      nn.initializers.xavier_uniform(),
      (self.dim, self.features),
      self.num.wide,
    )
    y = self.num.dot(x, kernel)
    if not self.use_bias:
      return y
    bias = self.param(
      'bias', nn.initializers.zeros, (self.features,), self.num.wide
    )
    return y + bias.astype(y.dtype)
