# SPDX-License-Identifier: Apache-2.0
"""Two towers with dropout and running statistics."""

import flax.linen as nn
import jax.numpy as jnp

from vidret_jax.models import base


class TwoTowers(base.Retriever):
  """Contrasts a projected text vector with a projected video vector.

  Attributes:
    dim: of the shared space.
    drop: dropout rate of the text side.
    contrast: 'rows' compares within the batch, 'none' only aligns pairs, so
      that its mean gradient does not depend on the cut into microbatches.
  """

  dim: int = 8
  drop: float = 0.1
  contrast: str = 'rows'

  def setup(self):
    self.text = nn.Dense(self.dim, name='text')
    self.video = nn.Dense(self.dim, name='video')
    self.dropout = nn.Dropout(self.drop)
    self.seen = self.variable(
      'batch_stats', 'seen', lambda: jnp.zeros((), jnp.float32)
    )

  def encode_query(self, batch, *, train=False):
    x = self.dropout(batch['text'], deterministic=not train)
    return {'emb': self.text(x)}

  def encode_item(self, batch, *, train=False):
    return {'emb': self.video(batch['video'])}

  def score(self, q, v):
    return jnp.einsum('qd,vd->qv', q['emb'], v['emb'])

  def loss(self, batch, *, step, train):
    q = self.encode_query(batch, train=train)
    v = self.encode_item(batch, train=train)
    mask = base.row_mask(batch, q['emb'].shape[0])
    rows = jnp.maximum(mask.sum(), 1)
    if train:
      self.seen.value = self.seen.value + mask.sum()
    if self.contrast == 'none':
      apart = jnp.square(q['emb'] - v['emb']).sum(-1)
      return jnp.sum(apart, where=mask) / rows, {'seen': self.seen.value}
    sim_qv = jnp.where(mask[None, :], self.score(q, v), -1e9)
    gain = jnp.diagonal(nn.log_softmax(sim_qv, axis=-1))
    return -jnp.sum(gain, where=mask) / rows, {'seen': self.seen.value}


def make(**kwargs):
  return TwoTowers(**kwargs)
