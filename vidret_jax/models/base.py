# SPDX-License-Identifier: Apache-2.0
"""The protocol every retrieval system implements.

Queries are rows and items are columns, always. A batch and an embedding are
(nested) dicts of arrays with a leading example axis on every leaf, so that
banks, sharding and padding treat all systems alike.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Batch = Mapping[str, Any]
Emb = dict[str, Any]


class Retriever(nn.Module):
  """Encoders, scoring and loss of one system.

  A system is initialised through its loss, the one method that touches every
  parameter: `model.init(key, batch, step=0, train=False, method='loss')`.

  A system with two stages finds candidates by `score` and orders them by
  `fine`. It names in `COARSE` the keys of an item embedding that `score` reads,
  so that only these are kept for the whole collection; None: all of them.
  """

  COARSE = None
  # In how many ways `loss` can be computed; see `plan`.
  plans = 1
  # Whether scores come from weights that were trained; if not, an evaluation
  # needs none.
  learnt = True

  def encode_query(self, batch: Batch, *, train: bool = False) -> Emb:
    """Embeds queries: text, or a query video."""
    raise TypeError(f'{type(self).__name__} must define encode_query')

  def encode_item(self, batch: Batch, *, train: bool = False) -> Emb:
    """Embeds the items of the collection."""
    raise TypeError(f'{type(self).__name__} must define encode_item')

  def score(self, q: Emb, v: Emb) -> Array:
    """Scores all pairs: [q, v], larger is nearer."""
    raise TypeError(f'{type(self).__name__} must define score')

  def fine(self, q: Emb, v: Emb) -> Array:
    """The dear score of all pairs: [q, v]; without a second stage, `score`."""
    return self.score(q, v)

  def rescore(self, q: Emb, cand: Emb) -> dict[str, Array]:
    """Scores aligned candidates.

    Args:
      q: query embeddings, leading axis [q].
      cand: item embeddings gathered per query, leading axes [q, k].

    Returns:
      At least `score` [q, k]. Here it is `fine` of one query against its own
      k candidates.
    """

    def one(query, items):
      query = jax.tree.map(lambda x: x[None], query)
      return self.fine(query, items)[0]

    return {'score': jax.vmap(one)(q, cand)}

  @nn.nowrap
  def plan(self, batch: Batch) -> Array:
    """The cheapest way to compute `loss` on a batch, below `plans`.

    Ways have the same values and differ in cost: one of them may count on short
    sequences. A system with several takes `plan` as an argument of `loss`.
    """
    del batch
    return jnp.int32(0)

  def loss(
    self, batch: Batch, *, step: Array | int, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """Training objective: a scalar, and scalars to log.

    Args:
      batch: a global batch; rows with `_mask` False must influence nothing.
      step: update counter, traced, so that schedules never recompile.
      train: batch statistics instead of running ones.
    """
    raise TypeError(f'{type(self).__name__} must define loss')


def row_mask(batch: Batch, rows: int) -> Array:
  """Validity of the rows of a batch: `_mask`, or all True where absent."""
  mask = batch.get('_mask')
  if mask is None:
    return jnp.ones((rows,), bool)
  if mask.shape != (rows,):
    raise ValueError(
      f"batch['_mask'] has shape {tuple(mask.shape)}, expected ({rows},): "
      'one boolean per example.'
    )
  return mask.astype(bool)
