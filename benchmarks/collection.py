# SPDX-License-Identifier: Apache-2.0
"""Collections of any size, drawn from a small pool as they are read.

Nothing is stored: a row is a function of its number. What a benchmark then
measures is the evaluation, not its input.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vidret_jax import config_lib
from vidret_jax.data import source as source_lib
from vidret_jax.models import base
from vidret_jax.ops import similarity


class Drawn:
  """A source of random rows.

  Attributes:
    ids: names of the rows.
    spec: as asked for.
  """

  def __init__(self, ids, spec, missing=0.0, seed=0):
    """Args: ids; spec {key: (shape, dtype)}; share of missing experts; seed."""
    self.ids, self.spec = tuple(ids), spec
    self._missing = missing
    self._pool = np.random.default_rng(seed).standard_normal(
      2**20, dtype=np.float32
    )

  def __len__(self):
    return len(self.ids)

  def gather(self, index, seeds):
    del seeds
    index = np.asarray(index)
    batch = self._draw(self.spec, index, 0)
    batch['_mask'] = index >= 0
    if 'available' in batch:
      rows = [
        np.random.default_rng(i).random(batch['available'].shape[1])
        for i in np.maximum(index, 0)
      ]
      batch['available'] = np.stack(rows) >= self._missing
      batch['available'][:, 0] = True
    return batch

  def _draw(self, node, index, place):
    if isinstance(node, dict):
      return {
        k: self._draw(v, index, 17 * place + i)
        for i, (k, v) in enumerate(node.items())
      }
    shape, dtype = node
    if np.dtype(dtype) == np.dtype(bool):
      return np.ones((len(index), *shape), bool)
    size = int(np.prod(shape))
    out = np.empty((len(index), size), np.float32)
    for row, i in zip(out, index.tolist()):
      start = (i * 7919 + place * 104729) % (len(self._pool) - size)
      row[:] = self._pool[start : start + size]
    return out.reshape(len(index), *shape)


class Captions(Drawn):
  """Queries, `per_video` for each item in order."""

  def __init__(self, videos, captions, spec):
    self._item = np.arange(captions) * videos // captions
    super().__init__((f'v{v}#{i}' for i, v in enumerate(self._item)), spec)

  def ground_truth(self, items):
    return source_lib.GroundTruth(self.ids, tuple(items.ids), self._item)


class Embedded(base.Retriever):
  """No encoders: experts' embeddings are the input. Scores as CE does."""

  experts: int = 9
  dim: int = 768

  def encode_query(self, batch, *, train=False):
    return dict(
      embed=batch['embed'],
      weights=jnp.full((len(batch['embed']), self.experts), 1 / self.experts),
    )

  def encode_item(self, batch, *, train=False):
    return dict(embed=batch['embed'], available=batch['available'])

  def score(self, q, v):
    return similarity.available_mixture(
      q['embed'],
      q['weights'],
      v['embed'],
      v['available'],
      (self.dim,) * self.experts,
      precision='highest',
    )


def embedded(videos, captions, experts=9, dim=768):
  """(model, variables, queries, items) without encoders."""
  embed = ((experts * dim,), np.dtype('float32'))
  flag = np.dtype(bool)
  items = Drawn(
    (f'v{i}' for i in range(videos)),
    dict(embed=embed, available=((experts,), flag)),
    missing=0.2,
    seed=1,
  )
  queries = Captions(videos, captions, dict(embed=embed))
  return Embedded(experts=experts, dim=dim), {}, queries, items


def network(config, videos, captions):
  """(model, variables, queries, items) of a config, with random weights."""
  model = config_lib.find('models', config.system, 'make')(
    **config_lib.freeze(config.model)
  )
  f32, flag = np.dtype('float32'), np.dtype(bool)
  experts = [(n, dict(value)) for n, value in config.model.experts]
  rows = {n: e['max_tokens'] for n, e in experts if e.get('max_tokens')}
  text = config.model.text
  item_spec = dict(
    experts={
      n: ((rows[n], e['dim']) if n in rows else (e['dim'],), f32)
      for n, e in experts
    },
    experts_mask={n: ((k,), flag) for n, k in rows.items()},
    available=((len(experts),), flag),
  )
  query_spec = dict(
    text=((text.max_tokens, text.dim), f32),
    text_mask=((text.max_tokens,), flag),
  )
  items = Drawn((f'v{i}' for i in range(videos)), item_spec, 0.2, seed=1)
  queries = Captions(videos, captions, query_spec)
  index = np.arange(2)
  batch = {**items.gather(index, index), **queries.gather(index, index)}
  init = functools.partial(model.init, step=0, train=False, method='loss')
  return model, _weights(init, batch), queries, items


def _weights(init, batch):
  """Random weights, made without the memory that drawing them at once takes."""
  pool = np.random.default_rng(2).standard_normal(2**20, dtype=np.float32)

  def fill(path, leaf):
    if leaf.dtype != np.float32:
      return jnp.zeros(leaf.shape, leaf.dtype)
    if path[0].key == 'batch_stats':
      return jnp.ones(leaf.shape) * (path[-1].key == 'var')
    return jnp.asarray(np.resize(pool, leaf.shape) * 0.02)

  abstract = jax.eval_shape(init, jax.random.key(0), batch)
  return jax.tree_util.tree_map_with_path(fill, abstract)
