# SPDX-License-Identifier: Apache-2.0
"""The model of HAP-VR; see `hap_vr`, which makes it."""

import functools

import jax
import jax.numpy as jnp

from vidret_jax.layers import comparator as comparator_lib
from vidret_jax.layers import region_attention
from vidret_jax.layers.linear import Numerics
from vidret_jax.models import base, dino, hap_vr_terms, regions
from vidret_jax.models import hap_vr_options as options
from vidret_jax.models.base import Array, Batch, Emb
from vidret_jax.ops import (
  chamfer,
  chamfer_kernel,
  chamfer_square,
  video_in_video,
)

# Rows of a long query that are compared at a time.
_STRIP = 256
# Pairs of clips whose comparison is kept for the backward pass.
_PAIRS = 4096


class HapVr(base.Retriever):
  """See the module; `make` checks the options.

  Attributes:
    dim: width of region vectors.
    attention: whether regions are weighed.
    bits: bits of a region, 0: regions stay vectors.
    pooling: how similarities are pooled.
    features_only: score without attention and comparator.
    weights: of the parts of the loss.
    ap: constants of the losses of average precision.
    temperature: of InfoNCE.
    groups: parts of a batch that are negatives of their own clips only.
    backbone: makes regions of frames; None: batches hold regions.
    labeller: makes features of frames for their labels; None: batches do.
    antialias: whether a clip that is pasted over another is smoothed.
    kernel: 'einsum', 'pallas' or 'auto'.
    num: numerics.
  """

  COARSE = ('vector',)

  dim: int
  attention: bool
  bits: int
  pooling: options.Pooling
  features_only: bool
  weights: options.Weights
  ap: options.Precision
  temperature: float
  groups: int
  backbone: regions.Regions | None
  labeller: dino.Dino | None
  antialias: bool
  kernel: str
  num: Numerics

  @property
  def learnt(self) -> bool:
    """See `base.Retriever`: features alone are as they were given."""
    return not self.features_only

  def setup(self):
    if self.attention:
      self.weigh = region_attention.RegionAttention(
        self.dim, self.num, name='attention'
      )
    if self.bits:
      self.binarization = region_attention.Binarization(
        self.dim, self.bits, self.num
      )
    self.comparator = comparator_lib.Comparator(self.num)

  def encode_query(self, batch: Batch, *, train: bool = False) -> Emb:
    """See `encode_item`: a query is a video."""
    return self.encode_item(batch, train=train)

  def encode_item(self, batch: Batch, *, train: bool = False) -> Emb:
    """What a video is compared by.

    Args:
      batch: `length` int [b], frames of each video, and `regions` [b, t, r, d]
        unit vectors; or `frames` uint8 [b, t, h, w, 3], if there is a backbone.
      train: no difference.

    Returns:
      `vector` [b, d], the unit mean of what the frames show; `regions`
      [b, t, r, d], as they enter products, zero after the last frame; `length`.
    """
    del train
    x = batch['regions'] if 'regions' in batch else self.see(batch['frames'])
    x = x.astype(self.num.wide)
    length = batch['length'].astype(jnp.int32)
    real = jnp.arange(x.shape[1]) < length[:, None]
    x = jnp.where(real[..., None, None], x, 0)
    mean = x.sum((1, 2))
    norm = jnp.linalg.norm(mean, axis=-1, keepdims=True)
    return {
      'vector': mean / jnp.maximum(norm, 1e-12),
      'regions': self._index(x, train=False),
      'length': length,
    }

  def score(self, q: Emb, v: Emb) -> Array:
    """A cheap guess of `fine`: cosines of what videos show on average."""
    return jnp.dot(
      q['vector'], v['vector'].T, precision=self.num.precision
    ).astype(self.num.wide)

  def fine(self, q: Emb, v: Emb) -> Array:
    """How alike videos are, [q, v], -1 to 1; from the query to the item.

    Queries in turn. Needs four frames of both; padding changes nothing.
    """
    query = {'regions': q['regions'], 'length': q['length']}
    if self.is_initializing():  # Parameters cannot be made within a loop.
      first = self._compare(jax.tree.map(lambda x: x[0], query), v)
      return jnp.broadcast_to(first, (len(q['length']), *first.shape))
    return jax.lax.map(lambda one: self._compare(one, v), query)

  def frame_similarity(self, q: Emb, v: Emb) -> Array:
    """[q, v, tq, tv]: frames of queries against frames of items.

    Not divided by the number of bits of binary regions.
    """
    return chamfer.frame_similarity(
      q['regions'],
      v['regions'],
      pool=self.pooling.frame,
      k=self._best_regions(v['regions'].shape[2]),
      precision=self.num.precision,
    )

  def clip_similarity(self, x: Array) -> tuple[Array, Array, Array]:
    """All clips of a batch against all, as they are trained; full lengths.

    Args:
      x: [g, n, t, r, d], weighed (or binary) regions of g groups of clips.

    Returns:
      (similarities [g, n, n] from 0 to 1, those of frames [g, n, n, t, t],
      what the comparator made of them [g, n, n, t // 4, t // 4]).

    Raises:
      ValueError: clips of fewer than four frames.
    """
    if x.shape[2] < comparator_lib.SHRINK:
      raise ValueError(
        f'clips of {x.shape[2]} frames: the comparator needs '
        f'{comparator_lib.SHRINK} or more. Raise input.data.window.'
      )
    frames = jax.vmap(self._frames_of_clips)(jnp.asarray(x))
    places = self._compare_clips(frames / self.bits if self.bits else frames)
    t = jnp.full((places[..., 0, 0].size,), places.shape[-1])
    bounded = jnp.clip(places, -1, 1) / 2 + 0.5
    sim = self._pool(bounded.reshape(-1, *bounded.shape[-2:]), t, t)
    return sim.reshape(places.shape[:3]), frames, places

  def loss(
    self, batch: Batch, *, step: Array | int, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """Contrast, and average precision over clips and over frames.

    Args:
      batch: pairs of views of clips: `weak` and `strong` [b, t, r, d] regions
        with, for the part `frame`, `weak_labels` and `strong_labels` [b, t, l];
        or both views uint8 [b, t, h, w, 3] and `mix` [b, 5], see
        `ops.video_in_video`.
      step: not used: the objective never changes.
      train: soft bits; otherwise none.

    Returns:
      The weighted sum, and its parts, not weighted.

    Raises:
      ValueError: `groups` does not divide the batch.
    """
    del step
    rows = batch['weak'].shape[0]
    # A model is initialised with a batch of two.
    groups = 1 if self.is_initializing() else self.groups
    if rows % groups:
      raise ValueError(
        f'model.groups={groups}: a batch of {rows} pairs cannot be parted so. '
        'Change it, or input.batch_size.'
      )
    where = base.row_mask(batch, rows).reshape(groups, -1)
    x, features, labels = self._views(batch, where)
    where = jnp.concatenate([where, where], 1)
    return self.objective(
      x, features, labels, jnp.broadcast_to(where, x.shape[:2]), train=train
    )

  def objective(
    self,
    x: Array,
    features: Array | None,
    labels: Array,
    where: Array,
    *,
    train: bool,
  ) -> tuple[Array, dict[str, Array]]:
    """The loss of groups of clips with given labels.

    Args:
      x: [g, n, t, r, d] regions.
      features: [g, n, t, l], for the labels of frames; None without `frame`.
      labels: [g, n, n], which clips show the same.
      where: bool [g, n], valid clips.
      train: soft bits.

    Returns:
      See `loss`; means over groups.
    """
    # Whatever excluded clips hold, no slope of a weight sees it.
    x = jnp.where(where[..., None, None, None], jax.lax.stop_gradient(x), 0)
    x = self._index(x.astype(self.num.wide), train=train)
    return hap_vr_terms.of_groups(
      *self.clip_similarity(x),
      features,
      labels,
      where,
      weights=self.weights,
      ap=self.ap,
      temperature=self.temperature,
    )

  def _views(self, batch: Batch, where: Array):
    """(regions [g, n, t, r, d], features or None, labels [g, n, n])."""

    def both(weak, strong):
      return jnp.concatenate([weak, strong], 1)

    def grouped(name):
      x = batch[name]
      return x.reshape(*where.shape, *x.shape[1:])

    weak, strong = grouped('weak'), grouped('strong')
    if self.backbone is None:
      shown = jnp.broadcast_to(
        jnp.eye(where.shape[1], dtype=bool), (*where.shape, where.shape[1])
      )
      x, features = both(weak, strong), None
      if self.weights.frame:
        features = both(grouped('weak_labels'), grouped('strong_labels'))
    else:
      how = jax.vmap(
        lambda mix, mask: video_in_video.plan(
          mix, *strong.shape[3:5], mask=mask
        )
      )(grouped('mix'), where)
      paste = functools.partial(
        video_in_video.composite, antialias=self.antialias
      )
      frames = both(weak, jax.vmap(paste)(strong, how))
      shown = jax.vmap(video_in_video.links)(how)
      x, features = self._of_frames(self.backbone, frames), None
      if self.weights.frame:
        features = self._of_frames(self.labeller, frames)
    return x, features, jax.vmap(video_in_video.label_matrix)(shown)

  def _of_frames(self, network, frames: Array) -> Array:
    """A frozen network of single frames on [..., h, w, 3]."""
    out = network(frames.reshape(-1, *frames.shape[-3:]))
    return out.reshape(*frames.shape[:-3], *out.shape[1:])

  def see(self, frames: Array) -> Array:
    """Regions of frames, uint8 [..., h, w, 3] -> [..., r, d].

    Raises:
      ValueError: there is no backbone.
    """
    if self.backbone is None:
      raise ValueError(
        'this model has no backbone: it takes regions, not frames. Set '
        'model.backbone, or extract the regions first.'
      )
    return self._of_frames(self.backbone, frames)

  def _index(self, x: Array, train: bool) -> Array:
    """What is done to regions once per video.

    Raises:
      ValueError: regions of another width than the network's.
    """
    if self.features_only and not train and not self.is_initializing():
      return x.astype(self.num.dtype)
    if (self.attention or self.bits) and x.shape[-1] != self.dim:
      raise ValueError(
        f'regions of {x.shape[-1]} values, expected model.dim={self.dim}: the '
        'weights are of another extractor, or set --config.model.dim.'
      )
    if self.attention:
      x = self.weigh(x)
    if self.bits:
      x = self.binarization(x, train)
    return x.astype(self.num.dtype)

  def _best_regions(self, regions: int) -> int:
    return chamfer.top_count(regions, self.pooling.frame_rate)

  def _best_of(self, regions: int) -> int:
    """How many regions count as the best ones; 0: another pooling."""
    if self.pooling.frame == 'topk':
      return self._best_regions(regions)
    return int(self.pooling.frame == 'chamfer')

  def _pool(self, frames: Array, rows: Array, columns: Array) -> Array:
    p = self.pooling
    counts = None
    if p.video == 'topk':
      most = max(p.most, frames.shape[2])
      counts = chamfer.top_counts(most, p.video_rate)
    return chamfer.video_similarity(
      frames, rows, columns, pool=p.video, counts=counts
    )

  def _compare(self, query: Emb, v: Emb) -> Array:
    """One query against all items: [v]."""
    frames = self._frames_of_one(query['regions'], v)
    if self.bits:
      frames = frames / self.bits
    rows, columns = query['length'], v['length']
    if not self.features_only:
      frames = self.comparator.in_strips(frames, rows, columns, _STRIP)
      frames = jnp.clip(frames, -1, 1)
      shrink = comparator_lib.SHRINK
      rows, columns = rows // shrink, columns // shrink
    rows = jnp.broadcast_to(rows, columns.shape)
    return self._pool(frames, rows, columns)

  def _frames_of_clips(self, x: Array) -> Array:
    """Frames of all clips [n, t, r, d] against each other: [n, n, t, t]."""
    if self._best_of(x.shape[2]) == 1:
      return chamfer_square.frame_similarity(x, self.num.precision)
    clips = {'regions': x}
    return self.frame_similarity(clips, clips)

  def _frames_of_one(self, x: Array, v: Emb) -> Array:
    """Frames of one query [t, r, d] against those of all items: [v, tq, tt]."""
    y = v['regions']
    k = self._best_of(y.shape[2])
    if k and chamfer_kernel.chosen(self.kernel, x, y, k):
      return chamfer_kernel.frame_similarity(
        x, y, k, precision=self.num.precision
      )
    return self.frame_similarity({'regions': x[None]}, v)[0]

  def _compare_clips(self, frames: Array) -> Array:
    """The comparator on [g, n, n, t, t], some columns of pairs at a time."""
    g, n, m, t, _ = frames.shape

    def columns(x):
      x = x.reshape(-1, t, t)
      out = self.comparator(x, t, t)
      return out.reshape(g, n, -1, *out.shape[1:])

    parts = next(
      p
      for p in range(1, m + 1)
      if not m % p and g * n * m // p <= max(_PAIRS, g * n)
    )
    if parts == 1 or self.is_initializing():
      return columns(frames)
    x = jnp.moveaxis(frames.reshape(g, n, parts, m // parts, t, t), 2, 0)
    out = jax.lax.map(jax.checkpoint(columns), x)
    out = jnp.moveaxis(out, 0, 2)
    return out.reshape(g, n, m, *out.shape[4:])
