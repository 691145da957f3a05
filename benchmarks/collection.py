# SPDX-License-Identifier: Apache-2.0
"""Collections of any size, drawn from a small pool as they are read.

Nothing is stored: a row is a function of its number. What a benchmark then
measures is the evaluation, not its input.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from vidret_jax import config_lib
from vidret_jax.data import source as source_lib
from vidret_jax.models import base, ce_inputs, eercf
from vidret_jax.models import clip as clip_lib
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
    # Bytes for pixels, and for tokens: every vocabulary has ids below 256.
    pool = self._pool
    if not np.issubdtype(dtype, np.floating):
      pool = pool.view(np.uint8)
    size = math.prod(shape)
    out = np.empty((len(index), size), dtype)
    for row, i in zip(out, index.tolist()):
      start = (i * 7919 + place * 104729) % (len(pool) - size)
      row[:] = pool[start : start + size]
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


class Parts(eercf.Eercf):
  """EERCF without encoders: vectors of frames and patches are the input."""

  def encode_query(self, batch, *, train=False):
    return {'sentence': similarity.l2_normalize(batch['sentence'])}

  def encode_item(self, batch, *, train=False):
    frames, states, patches = (
      similarity.l2_normalize(batch[key])
      for key in ('frames', 'states', 'patches')
    )
    return dict(
      video=similarity.l2_normalize(states.mean(1)),
      frames=frames,
      states=states,
      patches=patches,
      frame_mask=batch['frame_mask'],
    )


def parts(videos, captions, patches=49):
  """(model, variables, queries, items) of EERCF without encoders.

  Args:
    videos: how many items, each of 12 frames, in 512 dimensions.
    captions: how many queries.
    patches: of a frame; ViT-B/32 has 49.
  """
  model = Parts(sizes=clip_lib.sizes('ViT-B/32'))
  f32, f, d = np.dtype('float32'), model.max_frames, model.sizes.dim
  item_spec = dict(
    frames=((f, d), f32),
    states=((f, d), f32),
    patches=((f * patches, d), f32),
    frame_mask=((f,), np.dtype(bool)),
  )
  items = Drawn((f'v{i}' for i in range(videos)), item_spec, seed=1)
  queries = Captions(videos, captions, dict(sentence=((d,), f32)))
  params = dict(
    clip=dict(logit_scale=jnp.log(100.0)),
    video_map=jnp.eye(d),
    frame_map=jnp.eye(f),
  )
  return model, dict(params=params), queries, items


def model_and_spec(config):
  """The model of a config, and the spec of its training batches."""
  model = config_lib.find('models', config.system, 'make')(
    **config_lib.freeze(config.model)
  )
  return model, SPECS[config.system](model, config)


def _ce_spec(model, config):
  del config
  batch = ce_inputs.batch_spec(model, rows=1)
  return jax.tree.map(lambda x: (x.shape[1:], np.dtype(x.dtype)), batch)


def _eercf_spec(model, config):
  frames, side = model.max_frames, model.sizes.image_size
  return dict(
    text=((config.input.data.max_words,), np.dtype('int32')),
    frames=((frames, side, side, 3), np.dtype('uint8')),
    frame_mask=((frames,), np.dtype(bool)),
    _mask=((), np.dtype(bool)),
  )


def _ranp_spec(model, config):
  """Spec of the training batches of a config of the system ranp."""
  del model
  d = config.input.data
  phrases = d.num_verbs + d.num_nouns
  f32, i32, flag = (np.dtype(x) for x in ('float32', 'int32', 'bool'))
  out = dict(
    features=((d.max_frames, sum(_WIDTHS[s] for s in d.streams)), f32),
    feature_mask=((d.max_frames,), flag),
    word_mask=((d.max_words,), flag),
    _mask=((), flag),
  )
  if d.words == 'ids':
    out['words'] = ((d.max_words,), i32)
  else:
    out['word_vectors'] = ((d.max_words, 300), f32)
  if d.graphs:
    out.update(
      verb_mask=((d.num_verbs, d.max_words), flag),
      noun_mask=((d.num_nouns, d.max_words), flag),
      roles=((phrases,), i32),
      edge_mask=((1 + phrases, 1 + phrases), flag),
    )
  for name in ('verb_classes', 'noun_classes'):
    out[name] = out[f'video_{name}'] = ((8,), i32)
  return out


# Widths of the published streams of clip features.
_WIDTHS = {
  'TBN.pth': 3072,
  'resnet152.pth': 2048,
  'EAO_resnet152.pth': 2048,
  'EAO_resnext101.pth': 2048,
  'ViT': 1280,
  'Swin3D': 768,
}


def _reloclnet_spec(model, config):
  """Spec of the training batches of a config of the system reloclnet."""
  del model
  c = config.model
  f32, flag = np.dtype('float32'), np.dtype(bool)
  places = 2 * ('tef' in config.input.data.context)
  widths = dict(video=3072 + places, subtitle=768 + places)
  return dict(
    query=((c.max_words, 768), f32),
    query_mask=((c.max_words,), flag),
    clip_mask=((c.max_clips,), flag),
    span=((2,), np.dtype('int32')),
    _mask=((), flag),
    **{name: ((c.max_clips, widths[name]), f32) for name in c.streams},
  )


# System -> spec of its batches, where the dataset is not needed for it.
SPECS = dict(
  ce=_ce_spec, eercf=_eercf_spec, ranp=_ranp_spec, reloclnet=_reloclnet_spec
)


def network(config, videos, captions):
  """(model, variables, queries, items) of a config, with random weights."""
  model, spec = model_and_spec(config)
  query_spec = {k: x for k, x in spec.items() if k in ('text', 'text_mask')}
  item_spec = {k: x for k, x in spec.items() if k not in query_spec}
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
