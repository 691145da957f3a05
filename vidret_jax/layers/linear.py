# SPDX-License-Identifier: Apache-2.0
"""Affine maps with PyTorch's initialisation, and the numerics of a model."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Numerics:
  """How a model computes; handed unchanged to every block.

  Attributes:
    dtype: operand type of matrix products and activations. Parameters,
      statistics, norms and softmaxes stay in float32 (float64 for float64).
    precision: of matrix products; 'highest' forbids TF32 and bf16 passes.
    linear_init: 'torch' (uniform within 1/sqrt(fan_in), bias too) or 'xavier'
      (Xavier uniform, bias 0.01: upstream `manual_linear_init`).
  """

  dtype: str = 'float32'
  precision: str | None = 'highest'
  linear_init: str = 'torch'

  def __post_init__(self):
    if self.dtype not in ('float32', 'bfloat16', 'float16', 'float64'):
      raise ValueError(
        f'dtype={self.dtype!r}: expected float32, bfloat16, float16 or float64.'
      )
    if self.linear_init not in ('torch', 'xavier'):
      raise ValueError(
        f"linear_init={self.linear_init!r}: expected 'torch' or 'xavier'."
      )

  @property
  def wide(self) -> jnp.dtype:
    """Type of parameters, statistics, norms and softmaxes."""
    return jnp.promote_types(self.dtype, jnp.float32)

  def dot(self, x: Array, kernel: Array) -> Array:
    """x @ kernel in `dtype`.

    The product is one of two matrices: with more axes XLA's CPU backend
    transposes in the backward pass, a third of the time. The batch has to be
    the leading axis of x: merged behind another, it is no longer split over
    devices.
    """
    y = jnp.dot(
      x.astype(self.dtype).reshape(math.prod(x.shape[:-1]), x.shape[-1]),
      kernel.astype(self.dtype),
      precision=self.precision,
    )
    return y.reshape(*x.shape[:-1], kernel.shape[-1])

  def kernel_init(self, fan_in: int):
    if self.linear_init == 'xavier':
      return nn.initializers.xavier_uniform()
    return symmetric_uniform(fan_in)

  def bias_init(self, fan_in: int):
    if self.linear_init == 'xavier':
      return nn.initializers.constant(0.01)
    return symmetric_uniform(fan_in)


def symmetric_uniform(fan_in: int):
  """Uniform within +-1/sqrt(fan_in): `torch.nn.Linear.reset_parameters`."""
  bound = fan_in**-0.5

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class Linear(nn.Module):
  """x @ kernel + bias, where x may come in equal parts.

  `parts` > 1 is the map of a concatenation [x_0; x_1; ...]: since it is a sum
  over the parts, callers that meet the same part many times can map it once.

  Attributes:
    in_features: width of one part.
    features: output width.
    parts: number of equal parts of the input.
    num: numerics.
  """

  in_features: int
  features: int
  parts: int = 1
  num: Numerics = Numerics()

  def setup(self):
    fan_in = self.in_features * self.parts
    self.kernel = self.param(
      'kernel',
      self.num.kernel_init(fan_in),
      (fan_in, self.features),
      self.num.wide,
    )
    self.bias = self.param(
      'bias', self.num.bias_init(fan_in), (self.features,), self.num.wide
    )

  def part(self, x: Array, index: int) -> Array:
    """Share of part `index` in the product, without the bias."""
    start = index * self.in_features
    return self.num.dot(x, self.kernel[start : start + self.in_features])

  def offset(self) -> Array:
    return self.bias.astype(self.num.dtype)

  def __call__(self, x: Array) -> Array:
    return self.num.dot(x, self.kernel) + self.offset()
