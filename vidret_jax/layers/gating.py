# SPDX-License-Identifier: Apache-2.0
"""Gated embedding units: x * sigmoid(gate(x)), then unit norm.

ContextGating and GEU: arXiv 1804.02516, section 3. Reasoning units: arXiv
1907.13487, section 3.1.
"""

import flax.linen as nn
import jax

from vidret_jax.layers.linear import Linear, Numerics
from vidret_jax.layers.norm import BatchNorm
from vidret_jax.ops import similarity

Array = jax.Array


class ContextGating(nn.Module):
  """x * sigmoid(BN(linear(x))), [b, d] -> [b, d]."""

  features: int
  norm: bool = True
  num: Numerics = Numerics()

  @nn.compact
  def __call__(
    self, x: Array, *, train: bool, where: Array | None = None
  ) -> Array:
    gate = Linear(self.features, self.features, num=self.num, name='fc')(x)
    if self.norm:
      gate = BatchNorm(name='batch_norm', dtype=self.num.wide)(
        gate, train=train, where=where
      )
    return x.astype(gate.dtype) * jax.nn.sigmoid(gate)


class GatedUnit(nn.Module):
  """Linear map, context gating, unit norm: [b, in_features] -> [b, features].

  Upstream `GatedEmbeddingUnit`.
  """

  in_features: int
  features: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(
    self, x: Array, *, train: bool, where: Array | None = None
  ) -> Array:
    x = Linear(self.in_features, self.features, num=self.num, name='fc')(x)
    x = ContextGating(self.features, num=self.num, name='gate')(
      x, train=train, where=where
    )
    return similarity.l2_normalize(x)


class MimicUnit(nn.Module):
  """Context gating and unit norm, without the first map.

  Upstream `MimicCEGatedEmbeddingUnit`: CE without collaborative gating.
  """

  features: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(
    self, x: Array, *, train: bool, where: Array | None = None
  ) -> Array:
    x = ContextGating(self.features, num=self.num, name='gate')(
      x, train=train, where=where
    )
    return similarity.l2_normalize(x)


class Projection(nn.Module):
  """Linear map and unit norm. Upstream `ReduceDim`."""

  in_features: int
  features: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return similarity.l2_normalize(
      Linear(self.in_features, self.features, num=self.num, name='fc')(x)
    )


class ReasoningUnit(nn.Module):
  """Gating of an expert by what the other experts say about it.

  x * sigmoid(BN(mask) + BN'(linear(x))), then unit norm. Upstream
  `GatedEmbeddingUnitReasoning`, whose `batch_norm` acts on the mask and
  `batch_norm2` on the mapped x.
  """

  features: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(
    self, x: Array, mask: Array, *, train: bool, where: Array | None = None
  ) -> Array:
    own = Linear(self.features, self.features, num=self.num, name='fc')(x)
    own = BatchNorm(name='own_norm', dtype=self.num.wide)(
      own, train=train, where=where
    )
    mask = BatchNorm(name='mask_norm', dtype=self.num.wide)(
      mask, train=train, where=where
    )
    gated = x.astype(own.dtype) * jax.nn.sigmoid(own + mask)
    return similarity.l2_normalize(gated)
