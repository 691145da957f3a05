# SPDX-License-Identifier: Apache-2.0
"""Hierarchical graph reasoning: sentence, actions and entities of a caption.

HGR: Chen, Zhao, Jin, Wu, CVPR 2020, https://arxiv.org/abs/2003.00392. A
caption is a graph of semantic roles: the sentence, its verbs, and the phrases
they govern. Each level is compared with a video embedding of its own.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.graph import Graph
from vidret_jax.layers.linear import Linear, Numerics
from vidret_jax.layers.words import WordEncoder
from vidret_jax.models import mined
from vidret_jax.models.base import Array, Batch, Emb
from vidret_jax.ops import masks, phrases, similarity

LEVELS = ('sentence', 'verb', 'noun')
# Names of the loss weights, in upstream's order of `loss_weights`.
WEIGHTS = ('fused', *LEVELS)
# Whose relevance the losses of the levels use. Upstream's compares verbs (or
# nouns) together with equal stand-ins for the other kind, so no pair is below
# one half (`RelevanceMatrix` with dummy classes).
RELEVANCE = {
  'dummy': dict(verb='verb_dummy', noun='noun_dummy'),
  'true': dict(verb='verb', noun='noun'),
}


def attended(x: Array, mask: Array, logits: Array) -> Array:
  """Sum over axis 1 weighted by a masked softmax: [b, t, d] -> [b, d]."""
  logits = jnp.where(mask, logits[..., 0], -1e18)
  weights = jax.nn.softmax(logits, axis=-1)
  return jnp.einsum('bt,btd->bd', weights.astype(x.dtype), x)


class VideoLevels(nn.Module):
  """Clip features seen as a whole, as actions and as entities.

  Attributes:
    features: width of an embedding.
    share: one map for all three levels.
    dropout: after each map.
    num: numerics.
  """

  features: int
  share: bool = False
  dropout: float = 0.0
  num: Numerics = Numerics()

  @nn.compact
  def __call__(
    self, x: Array, mask: Array, *, train: bool
  ) -> tuple[Array, Array, Array]:
    """Embeds [b, t, in]: ([b, d], [b, t, d], [b, t, d])."""
    maps = [
      Linear(x.shape[-1], self.features, num=self.num, name=f'level_{k}')
      for k in range(1 if self.share else len(LEVELS))
    ]
    if self.share:
      shared = maps[0](x)
      levels = [shared] * len(LEVELS)
    else:
      levels = [level(x) for level in maps]
    # Drawn for each level, also where the map is shared.
    drop = nn.Dropout(self.dropout, deterministic=not train)
    whole, verb, noun = (drop(level) for level in levels)
    logits = Linear(self.features, 1, num=self.num, name='frame_attn')(whole)
    return attended(whole, mask, logits), verb, noun


class GraphText(WordEncoder):
  """A caption's sentence, verbs and nouns after reasoning over its graph.

  Attributes:
    num_roles: 0 for nodes without role vectors.
    graph_layers: of the graph network.
    graph_attention: see `layers.graph`.
    graph_dropout: of its messages.
  """

  num_roles: int = 16
  graph_layers: int = 1
  graph_attention: bool = True
  graph_dropout: float = 0.0

  def setup(self):
    super().setup()
    self.word_attn = Linear(self.features, 1, num=self.num)
    if self.num_roles:
      self.roles = self.param(
        'roles',
        nn.initializers.normal(1.0),
        (self.num_roles, self.features),
        self.num.wide,
      )
    self.graph = Graph(
      self.features,
      self.graph_layers,
      self.graph_attention,
      self.graph_dropout,
      self.num,
    )

  def __call__(self, batch: Batch, *, train: bool) -> dict[str, Array]:
    """Embeds captions.

    Returns:
      `words` [b, l, d], `nodes` [b, 1 + p, d] (sentence, verbs, nouns) before
      and `reasoned` likewise after the graph network.
    """
    mask = batch['word_mask']
    words = self.in_context(batch['words'], mask, train=train)
    sentence = attended(words, mask, self.word_attn(words))
    spans = jnp.concatenate([batch['verb_mask'], batch['noun_mask']], 1)
    nodes = pooled(words, spans)
    if self.num_roles:
      nodes = nodes * self.roles[batch['roles']].astype(nodes.dtype)
    nodes = jnp.concatenate([sentence[:, None], nodes], 1)
    reasoned = self.graph(nodes, batch['edge_mask'], train=train)
    return dict(words=words, nodes=nodes, reasoned=reasoned)


def pooled(words: Array, spans: Array) -> Array:
  """Largest value over the words of each span: [b, l, d] -> [b, p, d].

  An empty span gives zeros (upstream: -1e10); no edge leads there.
  """
  low = jnp.finfo(words.dtype).min

  # One slot at a time, found again for the gradient: all of them together are
  # p times the words.
  @jax.checkpoint
  def slot(words, span):
    most = jnp.where(span[..., None], words, low).max(1)
    return jnp.where(span.any(-1)[:, None], most, 0)

  slots = jnp.moveaxis(spans, 1, 0)
  return jnp.moveaxis(jax.lax.map(lambda s: slot(words, s), slots), 0, 1)


class Hgr(mined.Mined):
  """HGR; `models.ranp.make` documents the options.

  Embeddings: a query has unit vectors `sentence` [q, d], `verbs` and `nouns`
  [q, p, d] with their masks `verb_mask`, `noun_mask` [q, p]; an item has
  `sentence` [v, d], `verb_frames`, `noun_frames` [v, t, d], their inner
  products `verb_gram`, `noun_gram` [v, t, t] and `feature_mask` [v, t].
  """

  num_words: int = 0
  dim: int = 1024
  word_dim: int = 300
  rnn: str = 'gru'
  rnn_layers: int = 1
  bidirectional: bool = True
  num_roles: int = 16
  graph_layers: int = 1
  graph_attention: bool = True
  fusion: str = 'embed'
  sigma: float = 4.0
  share_video: bool = False
  fix_words: bool = False
  word_dropout: float = 0.2
  video_dropout: float = 0.2
  graph_dropout: float = 0.5
  level_weights: tuple[tuple[str, float], ...] | None = None
  level_relevance: str = 'dummy'
  num: Numerics = Numerics()

  def setup(self):
    self.video = VideoLevels(
      self.dim, self.share_video, self.video_dropout, self.num
    )
    self.text = GraphText(
      self.num_words,
      self.word_dim,
      self.dim,
      self.rnn,
      self.rnn_layers,
      self.bidirectional,
      self.fix_words,
      self.word_dropout,
      self.num,
      self.num_roles,
      self.graph_layers,
      self.graph_attention,
      self.graph_dropout,
    )

  def encode_query(self, batch: Batch, *, train: bool = False) -> Emb:
    """Embeds captions: words, spans of phrases, their roles and edges."""
    nodes = phrases.unit(
      self.text(batch, train=train)['reasoned'].astype(self.num.wide)
    )
    verbs = batch['verb_mask'].shape[1]
    return dict(
      sentence=nodes[:, 0],
      verbs=nodes[:, 1 : 1 + verbs],
      nouns=nodes[:, 1 + verbs :],
      verb_mask=batch['verb_mask'].any(-1),
      noun_mask=batch['noun_mask'].any(-1),
    )

  def encode_item(self, batch: Batch, *, train: bool = False) -> Emb:
    """Embeds videos from `features` and `feature_mask`."""
    mask = batch['feature_mask']
    features = masks.zero_rows(batch['features'], mask)
    levels = self.video(features, mask, train=train)
    whole, verb, noun = (x.astype(self.num.wide) for x in levels)
    return dict(
      sentence=phrases.unit(whole),
      verb_frames=verb,
      noun_frames=noun,
      verb_gram=phrases.gram(verb, self.num.precision),
      noun_gram=phrases.gram(noun, self.num.precision),
      feature_mask=mask,
    )

  def levels(self, q: Emb, v: Emb) -> dict[str, Array]:
    """Scores of all pairs by level: [q, v] each."""
    kw = dict(dtype=self.num.dtype, precision=self.num.precision)
    out = dict(sentence=similarity.dot_all(q['sentence'], v['sentence'], **kw))
    for level in ('verb', 'noun'):
      out[level] = phrases.similarities(
        q[f'{level}s'],
        q[f'{level}_mask'],
        v[f'{level}_frames'],
        v['feature_mask'],
        v[f'{level}_gram'],
        sigma=self.sigma,
        fusion=self.fusion,
        **kw,
      )
    return out

  def score(self, q: Emb, v: Emb) -> Array:
    """Mean of the levels, [q, v]."""
    return fused(self.levels(q, v))

  def matrices(self, q: Emb, v: Emb) -> dict[str, Array]:
    """Scores by level, and `fused`, their mean."""
    levels = self.levels(q, v)
    return dict(levels, fused=fused(levels))

  def objective(
    self, sims: dict[str, Array], batch: Batch
  ) -> tuple[Array, dict[str, Array]]:
    """Mining over the fused scores, or a weighted sum over the levels too."""
    if self.level_weights is None:
      return super().objective(sims, batch)
    total, logs = 0.0, {}
    for name, weight in self.level_weights:
      part = RELEVANCE[self.level_relevance].get(name, 'full')
      for key, value in self.mined(sims[name], batch, part).items():
        total = total + weight * value
        logs[f'{name}_{key}'] = value
    return total, logs


def fused(levels: dict[str, Array]) -> Array:
  """Mean of the three levels."""
  return sum(levels[name] for name in LEVELS) / len(LEVELS)
