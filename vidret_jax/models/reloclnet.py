# SPDX-License-Identifier: Apache-2.0
"""ReLoCLNet, and XML: find the moment in a corpus that a sentence describes.

Zhang et al., "Video corpus moment retrieval with contrastive learning", SIGIR
2021, https://arxiv.org/abs/2105.06247; upstream `method_tvr/model.py`. XML: Lei
et al., "TVR", ECCV 2020, https://arxiv.org/abs/2001.09099. Both are made of the
same blocks: XML has one encoder less, finds videos by its first level and has
no contrastive objectives.

Sentence and video meet in dot products only. A video is a sequence of clips in
one or two streams, what is seen and what is said; a sentence is one vector for
each. Videos are ranked by the best clip of each stream; within a video, two
convolutions over the similarities of its clips give a start and an end.

Embeddings of items keep the rows of padding: they look at the valid clips, and
the convolutions at the end of a video look at them. So the logits of the last
clips depend on how far videos are padded; published weights expect `max_clips`.
"""

from collections.abc import Mapping
import dataclasses

from vidret_jax.layers import attention
from vidret_jax.layers.linear import Numerics
from vidret_jax.models import reloclnet_model

STREAMS = ('video', 'subtitle')
VARIANTS = ('reloclnet', 'xml')
RANKINGS = ('hinge', 'lse')


def make(
  *,
  variant: str = 'reloclnet',
  streams: tuple[str, ...] = STREAMS,
  dim: int = 384,
  heads: int = 8,
  max_clips: int = 128,
  max_words: int = 30,
  kernel: int = 5,
  dropout: float = 0.1,
  input_dropout: float = 0.1,
  init_std: float = 0.02,
  loss: Mapping[str, float] | None = None,
  margin: float = 0.1,
  ranking: str = 'hinge',
  hard_start_epoch: int = 20,
  hard_pool: int = 20,
  span_start_epoch: int = 0,
  steps_per_epoch: int | None = None,
  short_clips: int | None = None,
  dtype: str = 'float32',
  precision: str | None = 'highest',
) -> reloclnet_model.Reloclnet:
  """Builds the model from plain values.

  Args:
    variant: 'reloclnet' or 'xml'.
    streams: 'video' and 'subtitle', or one of them.
    dim: width.
    heads: of the attention; must divide the width.
    max_clips: places of clips.
    max_words: places of tokens.
    kernel: width of the convolutions over time, odd.
    dropout: in the attention blocks.
    input_dropout: of features, and after places are added.
    init_std: of kernels and tables.
    loss: weights of its parts, see `reloclnet_model.Weights`; those of the
      two contrastive ones are 0 for XML unless given.
    margin: of the ranking loss.
    ranking: 'hinge' or 'lse'.
    hard_start_epoch: from which negatives are among the hardest; -1: never.
    hard_pool: so many of them.
    span_start_epoch: from which spans are trained; -1: never.
    steps_per_epoch: the trainer fills it in.
    short_clips: places of a video that counts as short, to train faster where
      most are much shorter than `max_clips`; see `plan` of the model.
      Batches must be a multiple of 16.
    dtype: of matrix products.
    precision: of matrix products.

  Raises:
    ValueError: a bad option, with what is expected.
  """
  for name, value, known in (
    ('variant', variant, VARIANTS),
    ('ranking', ranking, RANKINGS),
  ):
    if value not in known:
      raise ValueError(f'{name}={value!r}: expected one of {known}.')
  streams = tuple(streams)
  if not streams or [s for s in STREAMS if s in streams] != list(streams):
    raise ValueError(
      f'streams={streams}: expected {STREAMS}, in this order, or one of them.'
    )
  for name, value in (
    *(('dim', dim), ('heads', heads), ('kernel', kernel)),
    *(('max_clips', max_clips), ('max_words', max_words)),
    ('hard_pool', hard_pool),
  ):
    if value < 1:
      raise ValueError(f'{name}={value}: expected a number from 1.')
  for name, value in (('dropout', dropout), ('input_dropout', input_dropout)):
    if not 0 <= value < 1:
      raise ValueError(f'{name}={value}: expected 0 or more, and below 1.')
  if dim % heads:
    raise ValueError(f'dim={dim} does not divide into heads={heads}.')
  if kernel % 2 != 1:
    raise ValueError(f'kernel={kernel}: expected an odd number.')
  epochs = {'hard_start': hard_start_epoch, 'span_start': span_start_epoch}
  if steps_per_epoch is None and any(e > 0 for e in epochs.values()):
    raise ValueError(
      'steps_per_epoch=None: expected the updates of an epoch. The trainer '
      'fills it in; elsewhere give it, or set hard_start_epoch and '
      'span_start_epoch to 0 or -1.'
    )
  if short_clips is not None and not kernel <= short_clips < max_clips:
    raise ValueError(
      f'short_clips={short_clips}: expected at least kernel={kernel} and less '
      f'than max_clips={max_clips}, or None.'
    )
  given = dict(loss or {})
  known = [f.name for f in dataclasses.fields(reloclnet_model.Weights)]
  unknown = sorted(set(given) - set(known))
  if unknown:
    raise ValueError(
      f'loss has no part {", ".join(map(repr, unknown))}; known are '
      f'{", ".join(known)}.'
    )
  if variant == 'xml':
    given = {'frame': 0.0, 'video': 0.0, **given}
  starts = {
    name: epoch * (steps_per_epoch or 0)
    if epoch >= 0
    else reloclnet_model.NEVER
    for name, epoch in epochs.items()
  }
  return reloclnet_model.Reloclnet(
    variant=variant,
    streams=streams,
    dim=dim,
    max_clips=max_clips,
    max_words=max_words,
    kernel=kernel,
    input_dropout=input_dropout,
    options=attention.Options(
      heads, dropout, init_std, Numerics(dtype, precision)
    ),
    weights=reloclnet_model.Weights(**given),
    margin=margin,
    ranking=ranking,
    hard_pool=hard_pool,
    short=short_clips or 0,
    **starts,
  )
