# SPDX-License-Identifier: Apache-2.0
"""Message passing over small graphs, one per example.

HGR (Chen et al., CVPR 2020), section 3.2; upstream `gcn.GCNLayer`,
`GCNEncoder`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Linear, Numerics
from vidret_jax.layers.transformer import LayerNorm

Array = jax.Array


class GraphLayer(nn.Module):
  """norm(x + dropout(context(A x))), A from the edges or attention on them.

  Attributes:
    features: width of a node.
    attention: weigh the senders of each node by what both hold; otherwise all
      of them count the same.
    dropout: of the messages.
    num: numerics.
  """

  features: int
  attention: bool = True
  dropout: float = 0.0
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array, edge_mask: Array, *, train: bool) -> Array:
    """One step of messages.

    Args:
      x: [b, n, d].
      edge_mask: bool [b, n, n], row receives from column; a node that receives
        from none gets the zero message.
      train: drops messages out.

    Returns:
      [b, n, d].
    """
    d, num = self.features, self.num
    if self.attention:
      query = Linear(d, d // 2, num=num, name='query')(x)
      key = Linear(d, d // 2, num=num, name='key')(x)
      logits = jnp.einsum(
        'bnd,bmd->bnm',
        query,
        key,
        precision=num.precision,
        preferred_element_type=num.wide,
      )
      logits = jnp.where(edge_mask, logits * (d // 2) ** -0.5, -1e18)
      weights = jnp.where(edge_mask, jax.nn.softmax(logits, axis=-1), 0)
    else:
      weights = edge_mask.astype(num.wide)
      weights /= jnp.maximum(weights.sum(-1, keepdims=True), 1)
    message = jnp.einsum(
      'bnm,bmd->bnd',
      weights.astype(num.dtype),
      x.astype(num.dtype),
      precision=num.precision,
    )
    message = Context(d, num, name='context')(message)
    message = nn.Dropout(self.dropout, deterministic=not train)(message)
    return LayerNorm(num=num, name='norm')(x + message.astype(x.dtype))


class Context(nn.Module):
  """x @ kernel: a linear map without bias, initialised as PyTorch does."""

  features: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    kernel = self.param(
      'kernel',
      self.num.kernel_init(width),
      (width, self.features),
      self.num.wide,
    )
    return self.num.dot(x, kernel)


class Graph(nn.Module):
  """Layers of message passing; attributes as those of `GraphLayer`."""

  features: int
  layers: int = 1
  attention: bool = True
  dropout: float = 0.0
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array, edge_mask: Array, *, train: bool) -> Array:
    for k in range(self.layers):
      layer = GraphLayer(
        self.features, self.attention, self.dropout, self.num, name=f'layer_{k}'
      )
      x = layer(x, edge_mask, train=train)
    return x
