# SPDX-License-Identifier: Apache-2.0
"""Collaborative Experts and the Mixture of Embedding Experts.

CE: Liu, Albanie, Nagrani, Zisserman, BMVC 2019, https://arxiv.org/abs/1907.13487
(the corrected network of 2020). MoEE: Miech, Laptev, Sivic,
https://arxiv.org/abs/1804.02516. A video is a set of feature vectors from
frozen networks ("experts"), some of them missing; a caption is embedded once
per expert, and the similarity is a mixture over the experts that the candidate
video has.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vidret_jax.layers import gating as gating_lib
from vidret_jax.layers.linear import Linear, Numerics
from vidret_jax.layers.pooling import NetVLAD
from vidret_jax.layers.relation import KINDS, CollaborativeGating
from vidret_jax.losses import distillation, ranking
from vidret_jax.models import base, ce_inputs
from vidret_jax.models.base import Array, Batch, Emb
from vidret_jax.models.ce_inputs import Expert, Text
from vidret_jax.ops import masks, similarity

GATINGS = KINDS + ('none', 'mimic', 'concat', 'concat_mix')


# g and h of the first release are two plain layers with a ReLU between them.
_NETWORK_2019 = dict(
  include_self=False, g_layers=2, h_layers=1, g_norm=False, activation='relu'
)


class CollaborativeExperts(base.Retriever):
  """CE, MoEE and their ablations; `make` documents the options.

  Embeddings: a query has `embed` [q, e] (unit vectors of all experts side by
  side), `weights` [q, m] and, under the leaky rule, `own` [q, m]; with several
  captions per video an axis k follows q. An item has `embed` [v, e] and
  `available` [v, m].
  """

  experts: tuple[Expert, ...]
  text: Text
  dim: int = 768
  gating: str = 'pairwise'
  include_self: bool = True
  g_layers: int = 3
  h_layers: int = 0
  g_norm: bool = True
  activation: str = 'mish'
  sequential: bool = True
  mixture: str = 'learned'
  missing: str = 'renormalise'
  availability: str = 'candidate'
  margin: float = 0.2
  fix_norm: bool = True
  distill: float = 0.0
  zero_missing: bool = True
  masked_vlad: bool = False
  legacy_concat_zero: bool = False
  num: Numerics = Numerics()

  @property
  def expert_names(self) -> tuple[str, ...]:
    return tuple(e.name for e in self.experts)

  @property
  def sizes(self) -> tuple[int, ...]:
    """Width of each expert's share of `embed`."""
    if self.gating in ('none', 'concat_mix'):
      return tuple(e.dim for e in self.experts)
    if self.gating == 'concat':
      return tuple(e.pooled for e in self.experts)
    return (self.dim,) * len(self.experts)

  @property
  def relates(self) -> bool:
    """Whether experts gate each other."""
    return self.gating in KINDS

  @property
  def projects(self) -> bool:
    """Whether experts are mapped to one shared space first."""
    return self.relates or self.gating == 'mimic'

  def setup(self):
    num = self.num
    self.video_pooling = {
      e.key: NetVLAD(e.dim, e.clusters, masked=self.masked_vlad, num=num)
      for e in self.experts
      if e.max_tokens
    }
    if self.text.clusters:
      self.text_pooling = NetVLAD(
        self.text.dim,
        self.text.clusters,
        self.text.ghosts,
        masked=self.masked_vlad,
        num=num,
      )
    p = self.text.pooled
    self.mixing = Linear(p, len(self.experts), num=num)
    if self.projects:
      self.projection = {
        e.key: gating_lib.Projection(e.pooled, self.dim, num=num)
        for e in self.experts
      }
    if self.relates:
      self.relation = CollaborativeGating(
        tuple(e.key for e in self.experts),
        self.dim,
        self.gating,
        self.include_self,
        self.g_layers,
        self.h_layers,
        self.g_norm,
        self.activation,
        self.sequential,
        num,
      )
    elif self.gating == 'mimic':
      self.video_unit = {
        e.key: gating_lib.MimicUnit(self.dim, num=num) for e in self.experts
      }
    elif self.gating == 'none':
      self.video_unit = {
        e.key: gating_lib.GatedUnit(e.pooled, e.dim, num=num)
        for e in self.experts
      }
    elif self.gating == 'concat_mix':
      whole = sum(e.pooled for e in self.experts)
      self.video_unit = {
        'all': gating_lib.GatedUnit(whole, sum(self.sizes), num=num)
      }
    if self.gating == 'concat_mix':
      self.text_unit = {
        'all': gating_lib.GatedUnit(p, sum(self.sizes), num=num)
      }
    elif self.gating != 'concat':
      self.text_unit = {
        e.key: gating_lib.GatedUnit(p, size, num=num)
        for e, size in zip(self.experts, self.sizes)
      }

  def pool_text(self, batch: Batch, *, train: bool = False) -> Array:
    """NetVLAD over tokens: [b, text.pooled], or [b * k, text.pooled]."""
    ce_inputs.check_text(batch, self.text)
    tokens = batch['text']
    rows, captions = tokens.shape[0], tokens.shape[1:-2]
    valid = base.row_mask(batch, rows)
    tokens = masks.zero_rows(jnp.asarray(tokens, self.num.dtype), valid)
    tokens = tokens.reshape(-1, *tokens.shape[-2:])
    if not self.text.clusters:
      return tokens.reshape(len(tokens), -1)
    token_mask = batch.get('text_mask')
    if token_mask is not None:
      token_mask = token_mask.reshape(tokens.shape[:2])
    return self.text_pooling(
      tokens,
      train=train,
      where=ce_inputs.repeat(batch, valid, captions),
      token_mask=token_mask,
    )

  def pool_video(
    self, batch: Batch, *, train: bool = False
  ) -> dict[str, Array]:
    """One vector per expert and video: {name: [b, pooled]}.

    Missing experts count as zero vectors (unless `zero_missing` is off: the
    original MoEE takes what the loader gives); NetVLAD experts are pooled.
    """
    ce_inputs.check_experts(batch, self.experts)
    valid = base.row_mask(batch, batch['available'].shape[0])
    where = valid if '_mask' in batch else None
    pooled = {}
    for i, e in enumerate(self.experts):
      x = jnp.asarray(batch['experts'][e.name], self.num.dtype)
      keep = valid & batch['available'][:, i] if self.zero_missing else valid
      x = masks.zero_rows(x, keep)
      if e.max_tokens:
        x = self.video_pooling[e.key](
          x,
          train=train,
          where=where,
          token_mask=batch.get('experts_mask', {}).get(e.name),
        )
      pooled[e.name] = x
    return pooled

  def project(self, pooled: Mapping[str, Array]) -> dict[str, Array]:
    """Shared-space projections {name: [b, dim]} of `pool_video`'s output."""
    return {
      e.name: self.projection[e.key](pooled[e.name]) for e in self.experts
    }

  def encode_query(self, batch: Batch, *, train: bool = False) -> Emb:
    """Embeds captions: `text` [b, l, d] or [b, k, l, d] for k per video."""
    pooled = self.pool_text(batch, train=train)
    rows, captions = batch['text'].shape[0], batch['text'].shape[1:-2]
    where = ce_inputs.repeat(batch, base.row_mask(batch, rows), captions)
    # Called whatever the mixture: upstream stores the layer always.
    logits = self.mixing(pooled)
    if self.mixture == 'learned':
      weights = jax.nn.softmax(logits.astype(self.num.wide))
    else:
      weights = jnp.full(logits.shape, 1 / len(self.experts), self.num.wide)
    if self.gating == 'concat':
      embed = pooled
    else:
      embed = jnp.concatenate(
        [
          unit(pooled, train=train, where=where)
          for unit in self.text_unit.values()
        ],
        axis=-1,
      )
    shape = (rows, *captions)
    emb = dict(
      embed=embed.astype(self.num.wide).reshape(*shape, -1),
      weights=weights.reshape(*shape, -1),
    )
    if self.availability == 'legacy_2019':
      ce_inputs.check_own(batch, len(self.experts))
      own = ce_inputs.fill(batch['available'], batch)
      emb['own'] = jnp.broadcast_to(
        own.reshape(rows, *(1,) * len(captions), -1), emb['weights'].shape
      )
    return emb

  def encode_item(self, batch: Batch, *, train: bool = False) -> Emb:
    """Embeds videos from `experts` and `available`."""
    pooled = self.pool_video(batch, train=train)
    where = batch.get('_mask')
    available = ce_inputs.fill(batch['available'], batch)
    xs = [pooled[e.name] for e in self.experts]
    if self.gating == 'concat_mix':
      xs = [
        self.video_unit['all'](
          jnp.concatenate(xs, -1), train=train, where=where
        )
      ]
    elif self.relates:
      projected = list(self.project(pooled).values())
      xs = self.relation(projected, available, train=train, where=where)
    elif self.gating != 'concat':
      if self.gating == 'mimic':
        xs = list(self.project(pooled).values())
      xs = [
        unit(x, train=train, where=where)
        for x, unit in zip(xs, self.video_unit.values())
      ]
    embed = jnp.concatenate(xs, -1).astype(self.num.wide)
    return dict(embed=embed, available=available)

  def score(self, q: Emb, v: Emb) -> Array:
    """[q, v]; several captions of a query are averaged (upstream 'avg')."""
    if q['embed'].ndim == 3:
      k = q['embed'].shape[1]
      flat = {n: x.reshape(-1, x.shape[-1]) for n, x in q.items()}
      return self.score(flat, v).reshape(-1, k, len(v['embed'])).mean(1)
    kw = dict(dtype=self.num.dtype, precision=self.num.precision)
    if self.gating in ('concat', 'concat_mix'):
      return self._concat_score(q['embed'], v['embed'], kw)
    if self.missing == 'keep':
      # Upstream replaces every weight by one here, mixture included.
      return similarity.dot_all(q['embed'], v['embed'], **kw)
    if self.availability == 'legacy_2019':
      return similarity.own_mixture(
        q['embed'], q['weights'], q['own'], v['embed'], self.sizes, **kw
      )
    return similarity.available_mixture(
      q['embed'], q['weights'], v['embed'], v['available'], self.sizes, **kw
    )

  def _concat_score(self, text, video, kw):
    """Inner product after zero padding the shorter side."""
    n = min(text.shape[1], video.shape[1])
    if self.legacy_concat_zero and text.shape[1] > n:
      # Upstream pads the video side by a matrix of zeros it never fills.
      video = jnp.zeros_like(video)
    return similarity.dot_all(text[:, :n], video[:, :n], **kw)

  def loss(
    self, batch: Batch, *, step: Array | int, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """Max-margin ranking of the batch's pairs, plus TeachText's term."""
    del step
    where = batch.get('_mask')
    q = self.encode_query(batch, train=train)
    v = self.encode_item(batch, train=train)
    sim = self.score(q, v)
    total = rank = ranking.max_margin(
      sim, self.margin, fix_norm=self.fix_norm, where=where
    )
    logs = dict(ranking=rank)
    if self.distill:
      ce_inputs.check_teachers(batch)
      target = distillation.teacher_similarity(
        batch['teacher_text'],
        batch['teacher_video'],
        precision=self.num.precision,
      )
      logs['distillation'] = distillation.smooth_l1(sim, target, where=where)
      total = total + self.distill * logs['distillation']
    return total, logs

  def split(self, embed: Array) -> dict[str, Array]:
    """`embed` cut into its experts: {name: [..., size]}."""
    ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes) - 1)]
    return dict(zip(self.expert_names, jnp.split(embed, ends, axis=-1)))


def make(
  experts,
  text,
  *,
  dim: int = 768,
  gating: str = 'pairwise',
  mixture: str = 'learned',
  missing: str = 'renormalise',
  availability: str = 'candidate',
  dtype: str = 'float32',
  precision: str | None = 'highest',
  linear_init: str = 'torch',
  **options: Any,
) -> CollaborativeExperts:
  """Builds CE, MoEE or an ablation from plain values.

  Args:
    experts: pairs (name, dict(dim=...)) or, for a variable number of vectors,
      (name, dict(dim=, max_tokens=, clusters=)); any order, sorted here.
    text: dict(dim=, max_tokens=, clusters=, ghosts=0).
    dim: width of the shared space.
    gating: 'pairwise' (CE), 'none' (MoEE), 'mimic' (CE without collaborative
      gating), 'pairwise_star', 'pairwise_star_specific',
      'pairwise_star_tensor', 'triplet', 'concat', 'concat_mix' or
      'legacy_2019' (the network of the first tables).
    mixture: 'learned', or 'uniform' weights (upstream `freeze_weights`).
    missing: 'renormalise' over a candidate's experts, or 'keep' them all with
      weight one (upstream `keep_missing_modalities`).
    availability: 'candidate', or 'legacy_2019': the rule that leaks the
      answer.
    dtype: computation; parameters stay float32.
    precision: of matrix products.
    linear_init: see `Numerics`.
    **options: `CollaborativeExperts` fields.

  Raises:
    ValueError: an unknown option or value; the message lists what there is.
  """
  ce_inputs.check_choices(
    gating=(gating, GATINGS),
    mixture=(mixture, ('learned', 'uniform')),
    missing=(missing, ('renormalise', 'keep')),
    availability=(availability, ('candidate', 'legacy_2019')),
  )
  ce_inputs.check_options(options, CollaborativeExperts)
  if gating == 'legacy_2019':
    options = {**_NETWORK_2019, **options}
  return CollaborativeExperts(
    experts=ce_inputs.parse_experts(experts),
    text=ce_inputs.parse_text(text),
    dim=dim,
    gating=gating,
    mixture=mixture,
    missing=missing,
    availability=availability,
    num=Numerics(dtype, precision, linear_init),
    **options,
  )
