# SPDX-License-Identifier: Apache-2.0
"""A small system with two stages: mean of tokens first, best tokens then.

Embeddings are whole numbers, unless asked otherwise, so that every way of
computing a score gives the same bits.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vidret_jax import sharding
from vidret_jax.models import base
from vidret_jax.search import bank, store


class Tokens(base.Retriever):
  """Items are bags of tokens; `fine` adds up the best of them."""

  width: int = 4
  COARSE = ('mean',)

  def setup(self):
    self.scale = self.param('scale', nn.initializers.ones, (self.width,))

  def encode_query(self, batch, *, train=False):
    return {'q': batch['q'] * self.scale}

  def encode_item(self, batch, *, train=False):
    tokens, mask = batch['tokens'], batch['token_mask']
    return {
      'mean': jnp.where(mask[..., None], tokens, 0).sum(1),
      'deep': {'tokens': tokens, 'mask': mask},
    }

  def score(self, q, v):
    return q['q'] @ v['mean'].T

  def fine(self, q, v):
    sim_qvt = jnp.einsum('qd,vtd->qvt', q['q'], v['deep']['tokens'])
    best = jnp.where(v['deep']['mask'], sim_qvt, -1000).max(-1)
    return 2 * best + q['q'] @ v['mean'].T

  def loss(self, batch, *, step, train):
    sim = self.fine(self.encode_query(batch), self.encode_item(batch))
    return -sim.trace(), {}


class OneStage(Tokens):
  """The same without a second stage: `fine` is `score`."""

  COARSE = None

  def fine(self, q, v):
    return self.score(q, v)


def draw(q, v, *, seed=0, tokens=3, width=4, whole=True):
  """(queries, items) as batches of numpy arrays."""
  rng = np.random.default_rng(seed)

  def values(*shape):
    if whole:
      return rng.integers(-3, 4, shape).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)

  mask = rng.random((v, tokens)) < 0.7
  mask[:, 0] = True
  queries = {'q': values(q, width)}
  return queries, {'tokens': values(v, tokens, width), 'token_mask': mask}


def variables(model, scale=1.0):
  return {'params': {'scale': jnp.full((model.width,), scale)}}


def embed(model, queries, items):
  """Embeddings of both, as numpy."""
  v = variables(model)
  encode = lambda x, method: sharding.fetch(  # noqa: E731
    model.apply(v, x, method=method)
  )
  return encode(queries, 'encode_query'), encode(items, 'encode_item')


def blocks(emb, size):
  """Blocks of `size` rows of embeddings; the last one is padded with nines."""
  n = len(emb['mean'])
  for start in range(0, n, size):
    yield _cut(emb, start, size)


def _cut(node, start, size):
  if isinstance(node, dict):
    return {k: _cut(x, start, size) for k, x in node.items()}
  part = node[start : start + size]
  fill = np.full((size - len(part), *part.shape[1:]), 9).astype(part.dtype)
  return np.concatenate([part, fill])


def stored(emb, mesh, *, size=4, budget=0, **options):
  """A `FineStore` with these embeddings."""
  out = store.FineStore(len(emb['mean']), mesh, budget, **options)
  for block in blocks(emb, size):
    out.append(block)
  return out


def banked(emb, mesh, *, size=4):
  """A `Bank` with the first stage of these embeddings."""
  where = sharding.replicated(mesh)
  size = bank.round_up(size, mesh)
  out = bank.Bank(size, len(emb['mean']), where, 10**9)
  for block in blocks({'mean': emb['mean']}, size):
    out.append({k: jnp.asarray(x) for k, x in block.items()})
  return out
