# SPDX-License-Identifier: Apache-2.0
"""Time spans: overlap, the best pairs of a start and an end, suppression.

A span decoder gives each clip of a video a probability to be the start of the
moment and one to be its end; a span is worth their product. Spans have between
`min_length` and `max_length` - 1 clips from start to end (Lei et al., TVR,
arXiv 2001.09099, section 5; upstream `generate_min_max_length_mask`), so only a
band of L x W products counts, and of that only the best few.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def hull_iou(a: Array, b: Array) -> Array:
  """Overlap of spans in parts of the hull of both.

  The same as intersection over union wherever the two meet (upstream
  `compute_temporal_iou`).

  Args:
    a: [..., 2], start and end.
    b: [..., 2].

  Returns:
    [...] in [0, 1]; 0 for two equal spans without any length.
  """
  shared = jnp.minimum(a[..., 1], b[..., 1]) - jnp.maximum(a[..., 0], b[..., 0])
  hull = jnp.maximum(a[..., 1], b[..., 1]) - jnp.minimum(a[..., 0], b[..., 0])
  some = hull != 0
  return jnp.where(some, jnp.maximum(shared, 0) / jnp.where(some, hull, 1), 0)


def band_products(
  start: Array, end: Array, min_length: int, max_length: int
) -> Array:
  """Products of all allowed pairs of a start and an end.

  Args:
    start: [..., L].
    end: [..., L].
    min_length: of a span, from start to end.
    max_length: exclusive.

  Returns:
    [..., W, L], W = max_length - min_length: entry [d, s] is start[s] *
    end[s + min_length + d], and 0 where that is beyond the last clip.

  Raises:
    ValueError: no length is allowed.
  """
  width, size = _width(min_length, max_length), start.shape[-1]
  end = _beyond(end, max_length)
  shifted = [end[..., min_length + d :][..., :size] for d in range(width)]
  return start[..., None, :] * jnp.stack(shifted, -2)


def top_spans(
  start: Array,
  end: Array,
  k: int,
  *,
  min_length: int,
  max_length: int,
  weight: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
  """The k best spans of n videos, exactly, without their n * W * L products.

  The k best cells lie in the k rows (a video and a start) with the best best
  cell, so a sliding maximum and two short top-k do what one of all cells would.

  Args:
    start: [..., n, L], not negative, 0 where there is no clip.
    end: [..., n, L], likewise.
    k: how many.
    min_length: of a span, from start to end, in clips.
    max_length: exclusive.
    weight: [..., n] of the videos, not negative; None: 1.

  Returns:
    (score, slot, start, end), all [..., k]: (start * weight) * end, the
    number of the video, and the clips. Best first; equal scores by video, then
    start, then end. A score of 0 means that there is no such span.

  Raises:
    ValueError: no length is allowed, or k is not positive.
  """
  width, size = _width(min_length, max_length), start.shape[-1]
  if k < 1:
    raise ValueError(f'k={k} spans: expected at least 1.')
  if weight is not None:
    start = start * weight[..., None]
  later = _beyond(end, max_length)[..., min_length:]
  # Rounding is monotonic: the best cell of a row is exactly this.
  best = start * _sliding_max(later, width)[..., :size]
  flat = best.reshape(*best.shape[:-2], -1)
  _, row = jax.lax.top_k(flat, min(k, flat.shape[-1]))
  # In order of the rows, equal cells come out in order, too.
  row = jnp.sort(row, -1)
  slot, first = row // size, row % size
  padded = later.shape[-1]
  place = (slot * padded + first)[..., None] + jnp.arange(width)
  cells = _take(later, place.reshape(*row.shape[:-1], -1))
  cells = _take(start, row)[..., None] * cells.reshape(place.shape)
  cells = cells.reshape(*row.shape[:-1], -1)
  score, cell = jax.lax.top_k(cells, min(k, cells.shape[-1]))
  slot, first = (_take(x[..., None, :], cell // width) for x in (slot, first))
  last = first + min_length + cell % width
  last = jnp.minimum(last, size - 1)  # Of cells that hold no span.
  short = [(0, 0)] * (score.ndim - 1) + [(0, k - score.shape[-1])]
  return tuple(jnp.pad(x, short) for x in (score, slot, first, last))


def suppress(
  spans: Array,
  scores: Array,
  threshold: float,
  keep: int,
  *,
  group: Array | None = None,
  where: Array | None = None,
) -> Array:
  """Greedy non-maximum suppression of overlapping spans.

  The best span stays, and whatever overlaps it by more than `threshold` goes;
  then the best of the rest, and so on (upstream
  `temporal_non_maximum_suppression`, and `filter_vcmr_by_nms` with groups).

  Args:
    spans: [n, 2], start and end.
    scores: [n].
    threshold: `hull_iou` up to which two spans may both stay.
    keep: how many stay at most.
    group: int [n], the video of each span: others do not meet; None: one.
    where: bool [n], False: there is no span; None: all True.

  Returns:
    int32 [keep], numbers of the spans that stay, best first, equal scores by
    the place of their group, then their own; -1 behind the last.
  """
  n = len(scores)
  number = jnp.arange(n, dtype=jnp.int32)
  group = jnp.zeros(n, jnp.int32) if group is None else group
  where = jnp.ones(n, bool) if where is None else where
  place = jnp.argmax(group[:, None] == group, axis=1)
  worst_first = jnp.where(where, -scores, jnp.inf)
  order = jax.lax.sort((worst_first, place, number), num_keys=3)[2]
  spans, group, where = spans[order], group[order], where[order]
  over = hull_iou(spans[:, None], spans) > threshold
  over &= (group[:, None] == group) & (number[:, None] < number)

  def step(i, stays):
    return stays & ~(stays[i] & over[i])

  stays = jax.lax.fori_loop(0, n, step, where)
  rank = jnp.where(stays, jnp.cumsum(stays) - 1, keep)
  empty = jnp.full(keep, -1, jnp.int32)
  return empty.at[rank].set(order, mode='drop')


def _width(min_length: int, max_length: int) -> int:
  if not 0 <= min_length < max_length:
    raise ValueError(
      f'spans of {min_length} to {max_length} clips, the latter exclusive: '
      'expected 0 <= min_length < max_length.'
    )
  return max_length - min_length


def _beyond(x: Array, count: int) -> Array:
  """Appends zeros to the last axis, for what is beyond the last clip."""
  return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count)])


def _sliding_max(x: Array, width: int) -> Array:
  """max(x[..., i : i + width]) at i, in log2(width) steps."""
  have = 1
  while have < width:
    step = min(have, width - have)
    x = jnp.maximum(x[..., :-step], x[..., step:])
    have += step
  return x


def _take(x: Array, place: Array) -> Array:
  """x[..., i], the last two axes of x being one."""
  flat = x.reshape(*x.shape[:-2], -1)
  return jnp.take_along_axis(flat, place, -1)
