# SPDX-License-Identifier: Apache-2.0
"""The model of ReLoCLNet and XML; see `reloclnet`, which makes it."""

from collections.abc import Mapping
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers import attention
from vidret_jax.losses import contrastive, ranking, spans
from vidret_jax.models import base
from vidret_jax.models import reloclnet_encoders as encoders
from vidret_jax.models.base import Array, Batch, Emb
from vidret_jax.ops import lengths, masks

# A step that no run comes to.
NEVER = 2**30
# Of so many videos, so many may be long; see `Reloclnet.plan`.
_GROUP, _LONG = 16, 4

Levels = dict[str, list[Array]]


@dataclasses.dataclass(frozen=True)
class Weights:
  """Of the parts of the loss; a part with weight 0 is not computed.

  Attributes:
    frame: clips of the moment against the others of its video (FrameCL).
    video: videos against each other (VideoCL).
    span: cross entropies of start and end.
    neg_ctx: a sentence and a sampled video of another one.
    neg_q: a video and a sampled sentence of another one.
  """

  frame: float = 0.03
  video: float = 0.03
  span: float = 0.01
  neg_ctx: float = 1.0
  neg_q: float = 1.0


class Reloclnet(base.Retriever):
  """See the module; `make` checks the options.

  Attributes:
    variant: 'reloclnet' or 'xml'.
    streams: 'video', 'subtitle' or both.
    dim: width.
    max_clips: places of clips.
    max_words: places of tokens.
    kernel: width of the two convolutions.
    input_dropout: of features, and after places are added.
    options: of the attention blocks.
    weights: of the parts of the loss.
    margin: of the ranking loss.
    ranking: 'hinge' or 'lse'.
    hard_start: step from which negatives are drawn among the hardest.
    hard_pool: so many of them.
    span_start: step from which the loss has the spans.
    short: places of a short video, 0: none is treated as such; see `plan`.
  """

  variant: str
  streams: tuple[str, ...]
  dim: int
  max_clips: int
  max_words: int
  kernel: int
  input_dropout: float
  options: attention.Options
  weights: Weights
  margin: float
  ranking: str
  hard_start: int
  hard_pool: int
  span_start: int
  short: int = 0

  @property
  def _pair(self) -> bool:
    return len(self.streams) > 1

  @property
  def _found_by_first(self) -> bool:
    """Whether videos are ranked by the first level (XML)."""
    return self.variant == 'xml'

  def setup(self):
    xml, o = self.variant == 'xml', self.options
    self.query = encoders.Sentence(
      streams=len(self.streams),
      depth=1 if xml else 2,
      dim=self.dim,
      max_words=self.max_words,
      dropout=self.input_dropout,
      options=o,
    )
    self.position = encoders.Position(self.max_clips, self.input_dropout, o)
    for name in self.streams:
      context = encoders.Context(
        dim=self.dim,
        # Upstream's XML encodes twice where streams are crossed between.
        depth=2 if xml and self._pair else 3,
        crossed=self._pair,
        dropout=self.input_dropout,
        options=o,
      )
      setattr(self, name, context)
    self.span = encoders.Span(self.streams, self.kernel, self.dim, o)

  def encode_query(self, batch: Batch, *, train: bool = False) -> Emb:
    """Sentences.

    Returns:
      <stream> [q, d], what videos are found with; <stream>_asked [q, d], what
      spans are found with.
    """
    vectors = self.query(
      jnp.asarray(batch['query']), jnp.asarray(batch['query_mask']), train=train
    )
    out = {name: vectors[:, i] for i, name in enumerate(self.streams)}
    asked = self.span.asked(out)
    return out | {f'{name}_asked': x for name, x in asked.items()}

  def encode_item(self, batch: Batch, *, train: bool = False) -> Emb:
    """The clips of a video.

    Returns:
      mask bool [v, t]; <stream> [v, t, d], what spans are found with;
      <stream>_unit float32 [v, t], one over the length of what videos are
      found with: the same vectors, or with XML <stream>_first [v, t, d].
    """
    return self._items(batch, self._levels(batch, train=train))

  def score(self, q: Emb, v: Emb) -> Array:
    """[q, v]: the cosine of the best clip, mean over the streams."""
    total = 0.0
    for name in self.streams:
      query = q[name].astype(self._wide)
      query = query * _inverse(query)[..., None]
      clips = v[f'{name}_first' if self._found_by_first else name]
      cosine = self._products(query, clips) * v[f'{name}_unit'][None]
      total += jnp.where(v['mask'][None], cosine, encoders.ABSENT).max(-1)
    return total / len(self.streams)

  def similarity(self, q: Emb, v: Emb) -> Array:
    """[q, v, t]: each clip and the sentence, mean over the streams.

    Not masked: `boundaries` needs the clips of padding.
    """
    return self._mean(
      self._products(q[f'{name}_asked'], v[name]) for name in self.streams
    )

  def boundaries(self, sim: Array, mask: Array) -> tuple[Array, Array]:
    """Logits of start and end.

    Args:
      sim: [..., t], from `similarity`.
      mask: bool [..., t], valid clips.

    Returns:
      Two arrays [..., t], -1e10 where there is no clip.
    """
    return self.span.boundaries(sim, mask)

  def rescore(self, q: Emb, cand: Emb) -> dict[str, Array]:
    """`score` [q, k], and `start` and `end` [q, k, t] of each query's own k
    candidates, whose leading axes are [q, k]."""

    def one(query, items):
      query = jax.tree.map(lambda x: x[None], query)
      return self.score(query, items)[0], self.similarity(query, items)[0]

    score, sim = jax.vmap(one)(q, cand)
    start, end = self.boundaries(sim, cand['mask'])
    return {'score': score, 'start': start, 'end': end}

  @property
  def plans(self) -> int:
    """Two where short videos are trained at their own length."""
    return 2 if self.short else 1

  @nn.nowrap
  def plan(self, batch: Batch) -> Array:
    """1 if of each 16 videos twelve at least are short, else 0.

    Most videos are much shorter than the longest. Plan 1 encodes three quarters
    of the batch as if videos had `short` places; the convolutions at their end
    must not look further.
    """
    mask = jnp.asarray(batch['clip_mask'])
    if not self.short or len(mask) % _GROUP:
      return jnp.int32(0)
    longest = lengths.longest(mask, _GROUP, _GROUP - _LONG)
    return (longest + self.kernel // 2 <= self.short).astype(jnp.int32)

  def loss(
    self, batch: Batch, *, step: Array | int, train: bool, plan: int = 0
  ) -> tuple[Array, dict[str, Array]]:
    """`objective` with drawn negatives; without a key always the same draw."""
    n = len(batch['clip_mask'])
    where = base.row_mask(batch, n)
    key = jax.random.key(0)
    if self.has_rng('sample'):
      key = self.make_rng('sample')
    pool = jnp.where(
      jnp.asarray(step) >= self.hard_start, self.hard_pool, NEVER
    )
    ranks = {
      name: ranking.draw_ranks(part, where, pool)
      for name, part in zip(('ctx', 'query'), jax.random.split(key))
    }
    return self.objective(batch, ranks, step=step, train=train, plan=plan)

  def objective(
    self,
    batch: Batch,
    ranks: Mapping[str, Array],
    *,
    step: Array | int,
    train: bool,
    plan: int = 0,
  ) -> tuple[Array, dict[str, Array]]:
    """The loss and its weighted parts.

    Args:
      batch: queries with their videos and spans.
      ranks: int [b] each: for every sentence (`ctx`) and every video (`query`)
        which of the others is its negative, 1 = the hardest.
      step: update counter.
      train: whether to drop.
      plan: how; see `plan`.
    """
    w = self.weights
    where = base.row_mask(batch, len(batch['clip_mask']))
    # Excluded rows become padding, whatever they hold.
    batch = {
      k: masks.zero_rows(jnp.asarray(x), where) for k, x in batch.items()
    }
    mask, span = batch['clip_mask'], batch['span']
    q = self.encode_query(batch, train=train)
    levels = self._levels(batch, train=train, plan=plan)
    items = self._items(batch, levels)
    parts = {}
    if w.span or self.is_initializing():
      on = jnp.asarray(step) >= self.span_start
      sim = self._own_similarity(q, items)
      start, end = self.boundaries(sim, mask)
      cost = spans.boundary_cross_entropy(
        start, span[:, 0], where
      ) + spans.boundary_cross_entropy(end, span[:, 1], where)
      parts['span'] = jnp.where(on, w.span * cost, 0.0)
    # Contrastive objectives look at the level before the last.
    middle = {name: rows[-2] for name, rows in levels.items()}
    if w.frame:
      place = jnp.arange(mask.shape[1])
      match = (place >= span[:, :1]) & (place <= span[:, 1:]) & mask
      parts['frame'] = w.frame * self._mean(
        contrastive.frame(middle[name], q[name], match, mask, where)
        for name in self.streams
      )
    if w.video:
      parts['video'] = w.video * contrastive.both_ways(
        self._mean(
          jnp.where(
            mask[None], self._products(q[name], middle[name]), encoders.ABSENT
          ).max(-1)
          for name in self.streams
        ),
        where,
      )
    if w.neg_ctx or w.neg_q:
      sim_qv = self.score(q, items)
      options = dict(kind=self.ranking, margin=self.margin, where=where)
      parts['neg_ctx'] = w.neg_ctx * ranking.sampled(
        sim_qv, ranks['ctx'], **options
      )
      parts['neg_q'] = w.neg_q * ranking.sampled(
        sim_qv.T, ranks['query'], **options
      )
    return sum(parts.values()), parts

  @property
  def _wide(self):
    return self.options.num.wide

  def _levels(self, batch: Batch, *, train: bool, plan: int = 0) -> Levels:
    """Stream -> what its encoders made, [b, t, d] each, first to last."""
    mask = jnp.asarray(batch['clip_mask'])
    clips = {name: jnp.asarray(batch[name]) for name in self.streams}
    if plan == 0:
      return self._encoded(clips, mask, train=train)
    # Short videos at their own length; see `plan`.
    order = lengths.order(mask, _GROUP)
    levels = []
    for which, most in (
      (slice(_GROUP - _LONG), self.short),
      (slice(_GROUP - _LONG, None), mask.shape[1]),
    ):
      seen = {name: x[:, :most] for name, x in clips.items()}
      part = lengths.rows((seen, mask), order, which)
      levels.append(self._encoded(*part, train=train))
    return lengths.join(*levels, order)

  def _encoded(self, clips: Batch, mask: Array, *, train: bool) -> Levels:
    """The levels of videos.

    Args:
      clips: stream -> features [b, n, d']: of the first n places, which may
        hold a clip or be looked at by the convolutions at the end of a video.
        Levels after the first one are not computed beyond them, but zero.
      mask: bool [b, t].
      train: whether to drop.
    """
    streams = {name: getattr(self, name) for name in self.streams}
    first = {
      name: stream.first(clips[name], mask, self.position, train=train)
      for name, stream in streams.items()
    }
    most = clips[self.streams[0]].shape[1]
    beyond = [(0, 0), (0, mask.shape[1] - most), (0, 0)]
    levels = {}
    for name, stream in streams.items():
      x = first[name][:, :most]
      for other in set(first) - {name}:
        x = stream.joined(x, first[other], mask, train=train)
      deeper = stream.deeper(x, mask[:, :most], train=train)
      levels[name] = [first[name], *(jnp.pad(y, beyond) for y in deeper)]
    return levels

  def _items(self, batch: Batch, levels: Levels) -> Emb:
    """What `encode_item` returns, of levels."""
    out = {'mask': jnp.asarray(batch['clip_mask'])}
    for name, rows in levels.items():
      out[name] = found_by = rows[-1]
      if self._found_by_first:
        out[f'{name}_first'] = found_by = rows[0]
      out[f'{name}_unit'] = _inverse(found_by.astype(self._wide))
    return out

  def _own_similarity(self, q: Emb, v: Emb) -> Array:
    """[b, t]: the diagonal of `similarity`."""
    return self._mean(
      self._products(q[f'{name}_asked'], v[name], 'qd,qtd->qt')
      for name in self.streams
    )

  def _products(self, q, clips, spec='qd,vtd->qvt') -> Array:
    num = self.options.num
    return jnp.einsum(
      spec,
      q.astype(num.dtype),
      clips.astype(num.dtype),
      precision=num.precision,
      preferred_element_type=num.wide,
    )

  def _mean(self, parts) -> Array:
    return sum(parts) / len(self.streams)


def _inverse(x: Array) -> Array:
  """One over the length of vectors [..., d], which is taken to be 1e-12 at
  least; its gradient is finite at zero."""
  squared = jnp.sum(x * x, axis=-1)
  return jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
