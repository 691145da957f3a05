# SPDX-License-Identifier: Apache-2.0
"""EERCF: coarse-to-fine text-to-video retrieval on CLIP.

Tian, Cheng, Liu, Hou, Chen, Li: Towards Efficient and Effective Text-to-Video
Retrieval with Coarse-to-Fine Visual Representation Learning, AAAI 2024,
https://arxiv.org/abs/2401.00701. A clip is a handful of frames, encoded one by
one. One vector per clip finds a short list; frames and patches, weighed by the
sentence, put the list in order.
"""

from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers import transformer
from vidret_jax.layers.linear import Numerics
from vidret_jax.losses import contrastive
from vidret_jax.models import base
from vidret_jax.models import clip as clip_lib
from vidret_jax.models.base import Array, Batch, Emb
from vidret_jax.models.eercf_weights import LOSS_WEIGHTS, RANK_WEIGHTS
from vidret_jax.ops import masks, similarity, text_gated

LEVELS = ('video', 'frame_weak', 'frame_strong', 'patch_weak', 'patch_strong')
# The terms of the objective, and what each is made of.
_TERMS = dict(
  weak=('video', 'frame_weak', 'patch_weak'),
  strong=('frame_strong', 'patch_strong'),
  intra=('intra_video', 'intra_frame', 'intra_patch'),
)
_CONTENT = dict(
  intra_video='video', intra_frame='frame_strong', intra_patch='patch_strong'
)
# Constants in upstream's code.
_SHARP = 0.01
_SOFT = 0.1
_PEARSON = 0.14


class Temporal(nn.Module):
  """A transformer over the frames of a clip, always in full precision.

  Attributes:
    width: of a frame vector.
    layers: blocks.
    positions: rows of the table of positions.
    num: numerics.
  """

  width: int
  layers: int
  positions: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, frames: Array, frame_mask: Array) -> Array:
    """[b, f, d], bool [b, f] -> what is added to each frame, [b, f, d]."""
    places = self.param(
      'positional_embedding',
      nn.initializers.normal(0.01),
      (self.positions, self.width),
      self.num.wide,
    )
    x = frames + places[: frames.shape[1]]
    # Finite, as upstream: a clip without any frame attends to all alike.
    bias = jnp.where(frame_mask, 0.0, -1e6)[:, None, None, :].astype(x.dtype)
    for block in transformer.blocks(self.layers, eps=1e-12, num=self.num):
      x = block(x, bias)
    return x


class Eercf(base.Retriever):
  """The model; `make` documents the options.

  A query has `sentence` [q, d]. An item has `video` [v, d], `frames` [v, f, d]
  as CLIP sees them, `states` [v, f, d] after the temporal transformer,
  `patches` [v, f p, d] and `frame_mask` [v, f]. All vectors have length one;
  only `video` of a clip without any frame is zero.
  """

  COARSE = ('video',)

  sizes: clip_lib.Sizes
  max_frames: int = 12
  temporal_layers: int = 4
  linear_patch: str = '2d'
  loss_weights: tuple[tuple[str, float], ...] = tuple(LOSS_WEIGHTS.items())
  rank_weights: tuple[tuple[str, float], ...] = tuple(RANK_WEIGHTS.items())
  mask_padding: bool = False
  remat: bool = False
  num: Numerics = Numerics()

  def setup(self):
    s = self.sizes
    self.clip = clip_lib.Clip(s, self.linear_patch, self.remat, self.num)
    self.temporal = Temporal(
      s.dim, self.temporal_layers, s.context, self._exact
    )
    wide = self.num.wide
    self.video_map = self.param('video_map', _identity, (s.dim, s.dim), wide)
    frames = (self.max_frames, self.max_frames)
    self.frame_map = self.param('frame_map', _identity, frames, wide)

  @property
  def _exact(self) -> Numerics:
    return Numerics(str(self.num.wide), self.num.precision)

  # --------------------------------------------------------------- encoders

  def encode_query(self, batch: Batch, *, train: bool = False) -> Emb:
    """`text` int [q, l] -> `sentence` [q, d]."""
    del train  # There is no dropout.
    sentence = self.clip.encode_text(batch['text'])
    sentence = sentence.astype(self.num.wide)
    return {'sentence': similarity.l2_normalize(sentence)}

  def encode_item(self, batch: Batch, *, train: bool = False) -> Emb:
    """`frames` [v, f, r, r, 3], `frame_mask` [v, f] -> the three levels."""
    del train
    raw, patches = self.encode_frames(batch['frames'], batch['frame_mask'])
    mask = batch['frame_mask']
    states = similarity.l2_normalize(self.temporal(raw, mask) + raw)
    video = masks.masked_mean(states, mask[..., None], 1)
    clips, frames, count, dim = patches.shape
    return {
      'video': similarity.l2_normalize(video),
      'frames': similarity.l2_normalize(raw),
      'states': states,
      'patches': similarity.l2_normalize(patches).reshape(
        clips, frames * count, dim
      ),
      'frame_mask': mask,
    }

  def encode_frames(
    self, frames: Array, frame_mask: Array
  ) -> tuple[Array, Array]:
    """CLIP's frame vectors [v, f, d] and patches [v, f, p, d], as they come."""
    if frames.shape[1] != self.max_frames:
      raise ValueError(
        f'a clip of the data has {frames.shape[1]} frames, the model '
        f'{self.max_frames}: set max_frames of both to the same number.'
      )
    frames = clip_lib.normalize(frames)
    # Zero after the normalisation: padding is grey, not black (upstream).
    frames = jnp.where(frame_mask[..., None, None, None], frames, 0)
    tokens = self.clip.encode_image(frames).astype(self.num.wide)
    return tokens[:, :, 0], tokens[:, :, 1:]

  # ----------------------------------------------------------------- scores

  def score(self, q: Emb, v: Emb) -> Array:
    """Scaled cosine of sentence and clip vector, through `video_map`."""
    sentence = jnp.dot(
      q['sentence'], self.video_map, precision=self.num.precision
    )
    video = v['video'].astype(sentence.dtype)
    return self.clip.scale() * similarity.dot_all(
      sentence, video, precision=self.num.precision
    )

  def fine(self, q: Emb, v: Emb) -> Array:
    """The levels of all pairs, mixed by `rank_weights`: [q, v]."""
    weights = {k: w for k, w in self.rank_weights if w}
    levels = self.levels(q, v, weights)
    return sum(w * levels[k] for k, w in weights.items())

  def levels(
    self, q: Emb, v: Emb, names: Collection[str] = LEVELS
  ) -> dict[str, Array]:
    """Scores of all pairs at the levels asked for, each [q, v].

    Everywhere but in `strong` levels the softmax weighs similarities; there it
    weighs contents, so that a video has another vector for every sentence.
    """
    text, scale = q['sentence'], self.clip.scale()
    precision = self.num.precision
    frame_where, patch_where = self._where(v)
    out = {}
    if 'video' in names:
      out['video'] = self.score(q, v)
    if {'frame_weak', 'frame_strong'} & set(names):
      sims = text_gated.similarities(text, v['frames'], precision)
      if 'frame_weak' in names:
        out['frame_weak'] = scale * text_gated.weak(
          sims, _SHARP, frame_where, self.frame_map
        )
      if 'frame_strong' in names:
        gate = text_gated.gate(sims, _SOFT, frame_where)
        out['frame_strong'] = scale * text_gated.strong(
          text, gate, v['states'], precision
        )
    if {'patch_weak', 'patch_strong'} & set(names):
      sims = text_gated.similarities(text, v['patches'], precision)
      if 'patch_weak' in names:
        out['patch_weak'] = scale * text_gated.weak(sims, _SHARP, patch_where)
      if 'patch_strong' in names:
        gate = text_gated.gate(sims, _SHARP, patch_where)
        out['patch_strong'] = scale * text_gated.strong_of_many(
          text, gate, v['patches'], precision
        )
    return out

  def _where(self, v: Emb) -> tuple[Array | None, Array | None]:
    """Which frames and patches take part; upstream: all, padding included."""
    if not self.mask_padding:
      return None, None
    mask = v['frame_mask']
    share = v['patches'].shape[1] // mask.shape[1]
    return mask, jnp.repeat(mask, share, axis=1)

  # ------------------------------------------------------------------- loss

  def loss(
    self, batch: Batch, *, step: Array | int, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """Contrastive losses of two granularities, and a Pearson constraint.

    In training the strong levels gate a video by its own caption, without a
    gradient through the gate, and compare the pooled vector with all captions.
    Upstream `EERCF.forward` and `_loss`. Pairs without any frame take no part;
    terms whose weight is zero are not computed, and logged as zero.
    """
    del step
    where = base.row_mask(batch, batch['text'].shape[0])
    # Excluded rows become padding, whatever they hold.
    frame_mask = batch['frame_mask'] & where[:, None]
    batch = {**batch, 'frame_mask': frame_mask}
    # Nothing can be learnt of a clip that could not be read.
    where = frame_mask.any(-1)
    q = self.encode_query(batch, train=train)
    v = self.encode_item(batch, train=train)
    w = dict(self.loss_weights)
    used = {t: [n for n in ns if w[t] and w[n]] for t, ns in _TERMS.items()}
    names = used['strong'] + [_CONTENT[n] for n in used['intra']]
    content = {'video': v['video'], **self.own_gated(q, v, names)}
    weak = strong = intra = jnp.zeros((), self.num.wide)
    if names := used['weak']:
      levels = self.levels(q, v, names)
      weak = contrastive.symmetric_cross_entropy(
        sum(w[n] * levels[n] for n in names), where
      )
    if names := used['strong']:
      sims = sum(
        w[n]
        * similarity.dot_all(
          q['sentence'], content[n], precision=self.num.precision
        )
        for n in names
      )
      strong = contrastive.symmetric_cross_entropy(
        self.clip.scale() * sims, where
      )
    for n in used['intra']:
      apart = contrastive.pearson(q['sentence'], content[_CONTENT[n]], where)
      intra = intra + w[n] * _PEARSON * apart
    loss = w['weak'] * weak + w['strong'] * strong + w['intra'] * intra
    scalars = dict(
      weak=weak, strong=strong, intra=intra, scale=self.clip.scale()
    )
    return loss, scalars

  def own_gated(
    self, q: Emb, v: Emb, names: Collection[str]
  ) -> dict[str, Array]:
    """Each video's vector as its own caption weighs it: {level: [b, d]}.

    Args:
      q: [b] captions.
      v: [b] videos, each of the caption in the same row.
      names: of 'frame_strong' and 'patch_strong'.
    """
    frame_where, patch_where = self._where(v)
    plan = {}
    if 'frame_strong' in names:
      plan['frame_strong'] = (v['frames'], v['states'], _SOFT, frame_where)
    if 'patch_strong' in names:
      plan['patch_strong'] = (v['patches'], v['patches'], _SHARP, patch_where)
    out = {}
    for name, (parts, content, temperature, where) in plan.items():
      sims = jnp.einsum(
        'bd,bfd->bf', q['sentence'], parts, precision=self.num.precision
      )
      gate = text_gated.gate(sims, temperature, where)
      pooled = jnp.einsum(
        'bf,bfd->bd',
        jax.lax.stop_gradient(gate),
        content,
        precision=self.num.precision,
      )
      out[name] = similarity.l2_normalize(pooled)
    return out


def _identity(key, shape, dtype):
  del key
  return jnp.eye(shape[0], dtype=dtype)


def make(
  *,
  clip: str | Mapping[str, Any] = 'ViT-B/32',
  max_frames: int = 12,
  temporal_layers: int = 4,
  linear_patch: str = '2d',
  loss_weights: Mapping[str, float] | None = None,
  rank_weights: Mapping[str, float] | None = None,
  mask_padding: bool = False,
  remat: bool = False,
  dtype: str = 'float32',
  precision: str | None = 'highest',
) -> Eercf:
  """Builds the model.

  Args:
    clip: a variant, a variant with other sizes, or all sizes; see
      `clip.sizes`.
    max_frames: of a clip; at most the text tower's positions.
    temporal_layers: blocks over frames (upstream cross_num_hidden_layers).
    linear_patch: '2d' or '3d', see `clip.VisionTower`.
    loss_weights: changes of LOSS_WEIGHTS.
    rank_weights: changes of RANK_WEIGHTS.
    mask_padding: padded frames take no part in the softmaxes over frames and
      patches. Upstream lets them (False), and its weights are trained so.
    remat: recompute the insides of the towers' blocks in the backward pass.
    dtype: operand type of the towers' products; all else is float32.
    precision: of products in float32; None lets accelerators round.

  Raises:
    ValueError: an unknown name, or sizes that do not fit together.
  """
  sizes = clip_lib.sizes(clip)
  if temporal_layers < 1:
    raise ValueError(f'temporal_layers={temporal_layers}: expected 1 or more.')
  if linear_patch not in ('2d', '3d'):
    raise ValueError(f"linear_patch={linear_patch!r}: expected '2d' or '3d'.")
  if not 1 <= max_frames <= sizes.context:
    raise ValueError(
      f'max_frames={max_frames}: expected 1 to {sizes.context}, the positions '
      'that the temporal transformer takes over from the text tower.'
    )
  if sizes.dim % transformer.HEAD_WIDTH:
    raise ValueError(
      f'clip.dim={sizes.dim}: expected a multiple of {transformer.HEAD_WIDTH}, '
      'the width of a head of the temporal transformer.'
    )
  rank_weights = _changed(RANK_WEIGHTS, rank_weights, 'rank_weights')
  if not any(w for _, w in rank_weights):
    raise ValueError('rank_weights: all are zero; at least one must not be.')
  return Eercf(
    sizes=sizes,
    max_frames=max_frames,
    temporal_layers=temporal_layers,
    linear_patch=linear_patch,
    loss_weights=_changed(LOSS_WEIGHTS, loss_weights, 'loss_weights'),
    rank_weights=rank_weights,
    mask_padding=mask_padding,
    remat=remat,
    num=Numerics(dtype, precision),
  )


def _changed(defaults, changes, where):
  changes = dict(changes or {})
  unknown = sorted(set(changes) - set(defaults))
  if unknown:
    raise ValueError(
      f'{where}: unknown {", ".join(unknown)}; known are {", ".join(defaults)}.'
    )
  return tuple({**defaults, **changes}.items())
