# SPDX-License-Identifier: Apache-2.0
"""The compiled functions of moment search; queries are split over devices.

Each device works on its own queries with items that are whole on every device,
so nothing is sent between devices. Shapes depend on the sizes of blocks and
lists only: another block compiles nothing.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.models import base
from vidret_jax.ops import temporal

Tree = Any


@dataclasses.dataclass(frozen=True)
class Options:
  """How moments are found in a corpus; lengths are in clips.

  Attributes:
    videos: so many best videos of a query are looked into; all of them where
      the corpus has fewer (upstream `max_vcmr_video`).
    alpha: a video counts as exp(alpha * score) (upstream `q2c_alpha`).
    before_nms: so many best moments reach the suppression (`max_before_nms`).
    keep: so many moments stay.
    min_length: from start to end of a moment (`min_pred_l`).
    max_length: exclusive, as upstream's mask has it (`max_pred_l`).
    end_offset: clips added to the end: 1 for XML, which names the last clip of
      a moment and not the first one after it.
    grid: starts and ends are multiples of so many clips, counted without
      `end_offset`: 2 for DiDeMo, whose annotators chose among pieces of 5 s
      (clips of 2.5 s), as XML's author advises.
    nms: overlap up to which two moments of a video both stay; None: no
      suppression.
    nms_upstream: what the method_tvr code does: it suppresses after cutting
      lists to `keep`, and among the moments of a known video by wrong columns
      (see `moments.suppress_as_upstream`).
  """

  videos: int = 100
  alpha: float = 30.0
  before_nms: int = 200
  keep: int = 100
  min_length: int = 2
  max_length: int = 16
  end_offset: int = 0
  grid: int = 1
  nms: float | None = None
  nms_upstream: bool = False

  def __post_init__(self):
    for name in ('videos', 'before_nms', 'keep', 'grid'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)}: expected 1 or more.')
    if not 0 <= self.min_length < self.max_length:
      raise ValueError(
        f'min_length={self.min_length} and max_length={self.max_length}, the '
        'latter exclusive: expected 0 <= min_length < max_length.'
      )
    if self.end_offset < 0:
      raise ValueError(f'end_offset={self.end_offset}: expected 0 or more.')
    if not math.isfinite(self.alpha):
      raise ValueError(f'alpha={self.alpha}: expected a finite number.')
    if self.nms is not None and not 0 <= self.nms <= 1:
      raise ValueError(
        f'nms={self.nms}: expected an overlap from 0 to 1, or None for no '
        'suppression.'
      )

  @property
  def early(self) -> int:
    """How many of the best moments are looked at."""
    if self.nms is None or self.nms_upstream:
      return min(self.before_nms, self.keep)
    return self.before_nms


class Moments(NamedTuple):
  """The best moments of each query, in clips.

  Attributes:
    score: [q, n]; 0: there is none.
    slot: int32 [q, n], place of the video on the query's list.
    start: int32 [q, n].
    end: int32 [q, n], without `end_offset`.
  """

  score: Any
  slot: Any
  start: Any
  end: Any


class Programs(NamedTuple):
  """Jitted functions of one system.

  `sim` is float32 [q, s, ...] and `mask` bool [q, s, L]: similarities to clips
  of s videos of each query, and which clips there are.

  Attributes:
    score: (variables, queries, items, clips, item_mask, query_mask) -> scores
      [q, v] by the first `clips` clips, and how many are not finite.
    place: (variables, queries, items, table, sim, mask) -> (sim, mask) with
      the rows that the table names; see `tables`.
    decode: (variables, sim, mask, weight [q, k], number [q, k]) -> `Moments` of
      the first k videos, those of the last video, bool [q, s] where logits are
      NaN. k is s or s - 1; what there is none of is None.
    curves: (variables, sim, mask) -> probabilities of start and end [q, s, L].
  """

  score: Any
  place: Any
  decode: Any
  curves: Any


@functools.lru_cache(maxsize=16)
def programs(
  model: base.Retriever, mesh: Mesh, options: Options, wants: tuple[bool, bool]
) -> Programs:
  """Functions of `model` on `mesh`, compiled once per process.

  Args:
    model: has `similarity` and `boundaries`.
    mesh: the devices.
    options: see there.
    wants: (moments of listed videos, moments of the last one).
  """
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)

  def score(variables, queries, items, clips, item_mask, query_mask):
    items = cut(items, clips)
    sim_qv = model.apply(variables, queries, items, method='score')
    real = query_mask[:, None] & item_mask
    return sim_qv, jnp.sum(real & ~jnp.isfinite(sim_qv))

  def place(variables, queries, items, table, sim, mask):
    table = table[0]  # Of this device: [v, c].
    slots = sim.shape[1]
    real = table >= 0
    query = jnp.where(real, table // slots, 0)

    def one(query_c, item):
      asked = jax.tree.map(lambda x: x[query_c], queries)
      item = jax.tree.map(lambda x: x[None], item)
      return model.apply(variables, asked, item, method='similarity')[:, 0]

    found = jax.vmap(one)(query, items)
    clips = jnp.broadcast_to(
      items['mask'][:, None], (*table.shape, items['mask'].shape[-1])
    )
    where = jnp.where(real, table, sim.shape[0] * slots)

    def put(into, new):
      flat = into.reshape(-1, into.shape[-1])
      flat = flat.at[where].set(new.astype(into.dtype), mode='drop')
      return flat.reshape(into.shape)

    return put(sim, found), put(mask, clips)

  def curves(variables, sim, mask):
    logits = model.apply(variables, sim, mask, method='boundaries')
    return tuple(jnp.where(mask, jax.nn.softmax(x), 0) for x in logits)

  def decode(variables, sim, mask, weight, number):
    start, end = curves(variables, sim, mask)
    bad = ~jnp.isfinite(start + end).all(-1)
    k, listed, own = weight.shape[1], None, None
    if wants[0]:
      listed = _moments(start[:, :k], end[:, :k], weight, number, options)
    if wants[1]:
      own = _moments(start[:, -1:], end[:, -1:], None, None, options)
    return listed, own, bad

  def per_device(call, ins, outs):
    return jax.shard_map(
      call,
      mesh=mesh,
      in_specs=tuple(x.spec for x in ins),
      out_specs=outs.spec,
      check_vma=False,
    )

  return Programs(
    score=jax.jit(score, static_argnums=3, out_shardings=(rows, whole)),
    place=jax.jit(
      per_device(place, (whole, rows, whole, rows, rows, rows), rows),
      # As it comes in, or the next call would compile again.
      out_shardings=rows,
      donate_argnums=(4, 5),
    ),
    decode=jax.jit(per_device(decode, (whole, rows, rows, rows, rows), rows)),
    curves=jax.jit(per_device(curves, (whole, rows, rows), rows)),
  )


def cut(items: Mapping[str, Any], clips: int) -> Tree:
  """Items without what is beyond the first `clips` clips."""
  length = items['mask'].shape[1]
  return jax.tree.map(
    lambda x: x[:, :clips] if x.ndim > 1 and x.shape[1] == length else x, items
  )


def _moments(start, end, weight, number, options: Options) -> Moments:
  """`Moments` from probabilities [q, k, L]."""
  if options.grid > 1:
    on_grid = jnp.arange(start.shape[-1]) % options.grid == 0
    start, end = (jnp.where(on_grid, x, 0) for x in (start, end))
  found = Moments(
    *temporal.top_spans(
      start,
      end,
      options.early,
      min_length=options.min_length,
      max_length=options.max_length,
      weight=weight,
    )
  )
  as_upstream = options.nms_upstream and number is None
  if options.nms is None or as_upstream:
    return found

  def one(found, number):
    spans = jnp.stack([found.start, found.end + options.end_offset], -1)
    stays = temporal.suppress(
      spans.astype(jnp.float32),
      found.score,
      options.nms,
      options.keep,
      group=None if number is None else number[found.slot],
      where=found.score > 0,
    )
    found = Moments(*(x[stays] for x in found))
    return found._replace(score=jnp.where(stays >= 0, found.score, 0))

  return jax.vmap(one)(found, number)


def lanes(queries: int, slots: int, items: int) -> int:
  """How many queries of a device an item meets at a time."""
  mean = queries * slots / max(items, 1)
  return max(1, min(queries, 2 ** math.ceil(math.log2(max(mean, 8)))))


def tables(
  rows: np.ndarray, size: int, blocks: int, devices: int, width: int
) -> list[list[np.ndarray]]:
  """Which query asks which item of each block, in tables of one shape.

  Args:
    rows: int [q, s], rows of the items that each query asks; -1: none.
    size: items of a block.
    blocks: how many.
    devices: the queries are split over.
    width: c, see `lanes`.

  Returns:
    Per block, tables int32 [devices, size, c]: for an item of the block, places
    query * s + slot among those of the device; -1: none.
  """
  q, slots = rows.shape
  share = q // devices
  flat = rows.reshape(-1)
  pair = np.flatnonzero(flat >= 0)
  device = pair // (share * slots)
  # In order of the item, pairs of a device side by side.
  cell = flat[pair].astype(np.int64) * devices + device
  order = np.argsort(cell, kind='stable')
  pair, device, cell = pair[order], device[order], cell[order]
  at = np.arange(len(cell))
  first = np.r_[True, cell[1:] != cell[:-1]][: len(cell)]
  rank = at - np.maximum.accumulate(np.where(first, at, 0))
  item, place = flat[pair], pair - device * share * slots
  out = []
  bounds = np.searchsorted(item, np.arange(blocks + 1) * size)
  for i in range(blocks):
    part = slice(bounds[i], bounds[i + 1])
    turn, lane = rank[part] // width, rank[part] % width
    block = np.full(
      (turn.max(initial=-1) + 1, devices, size, width), -1, np.int32
    )
    block[turn, device[part], item[part] - i * size, lane] = place[part]
    out.append(list(block))
  return out
