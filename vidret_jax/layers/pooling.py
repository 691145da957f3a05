# SPDX-License-Identifier: Apache-2.0
"""Pooling of a variable number of vectors into one."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Numerics
from vidret_jax.layers.norm import BatchNorm
from vidret_jax.ops import similarity

Array = jax.Array


class NetVLAD(nn.Module):
  """NetVLAD with ghost clusters (arXiv 1511.07247; upstream `NetVLAD`).

  Residuals to `clusters` centres, weighted by a softmax over clusters and
  ghosts, summed over tokens, normalised per cluster and as a whole.

  Upstream ignores token masks: zero padding is assigned to clusters like any
  token, so the result depends on the padded length. `masked` leaves padding
  out instead, of the sums and of the batch statistics; nothing published was
  trained that way.

  Attributes:
    features: width of a token.
    clusters: number of centres that are kept.
    ghosts: further clusters that take part in the softmax only.
    masked: obey `token_mask`.
    num: numerics.
  """

  features: int
  clusters: int
  ghosts: int = 0
  masked: bool = False
  num: Numerics = Numerics()

  @nn.compact
  def __call__(
    self,
    x: Array,
    *,
    train: bool,
    where: Array | None = None,
    token_mask: Array | None = None,
  ) -> Array:
    """Pools tokens.

    Args:
      x: [b, n, d]; padding tokens are zero.
      train: batch statistics in the assignment's normalisation.
      where: bool [b], rows that take part in the statistics.
      token_mask: bool [b, n], used with `masked` only.

    Returns:
      [b, d * clusters], feature-major (index = feature * clusters + cluster),
      of unit norm; zero for an item whose tokens are all masked.
    """
    b, n, d = x.shape
    init = nn.initializers.normal(d**-0.5)
    assign = self.param(
      'clusters', init, (d, self.clusters + self.ghosts), self.num.wide
    )
    centres = self.param('centres', init, (d, self.clusters), self.num.wide)
    rows = None if where is None else jnp.broadcast_to(where[:, None], (b, n))
    if self.masked:
      if token_mask is None:
        raise ValueError(
          f'{self.name}: masked pooling needs the token mask [b, n] of this '
          'input (text_mask, or experts_mask[<name>]).'
        )
      rows = token_mask if rows is None else rows & token_mask

    logits = self.num.dot(x.reshape(b * n, d), assign)
    logits = BatchNorm(name='batch_norm', dtype=self.num.wide)(
      logits, train=train, where=None if rows is None else rows.reshape(-1)
    )
    a = jax.nn.softmax(logits.astype(self.num.wide), axis=-1)
    a = a[:, : self.clusters].reshape(b, n, self.clusters)
    if self.masked:
      a = jnp.where(token_mask[..., None], a, jnp.zeros((), a.dtype))

    sums_bdc = jnp.einsum(
      'bnc,bnd->bdc',
      a.astype(self.num.dtype),
      x.astype(self.num.dtype),
      precision=self.num.precision,
    ).astype(self.num.wide)
    vlad_bdc = sums_bdc - a.sum(1)[:, None, :] * centres
    vlad_bdc = similarity.l2_normalize(vlad_bdc, axis=1)
    flat = similarity.l2_normalize(vlad_bdc.reshape(b, d * self.clusters))
    return flat.astype(self.num.dtype)
