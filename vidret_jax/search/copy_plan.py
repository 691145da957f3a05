# SPDX-License-Identifier: Apache-2.0
"""What is compared with what, in which order: the plan of a copy search.

A pair costs its query's frames times its target's frames. So targets of like
length stand together in buckets, batches have a constant budget of frames, and
shards go to hosts by frames, not by videos. A plan depends on the lengths and
the options only: any number of devices or processes works on the same shards.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

# Two poolings by two leave at least one cell of this many frames.
MIN_FRAMES = 4
STORAGE = ('float32', 'float16', 'bfloat16')
# Edges of the groups of queries are multiples of this.
_STEP = 4


@dataclasses.dataclass(frozen=True)
class Options:
  """How videos are compared. What changes a score is protocol, not memory.

  Attributes:
    chunk: a longer target is cut into chunks of so many frames, whose scores
      are averaged without weights; a last chunk of 1 to 3 frames is dropped
      (HAP-VR `--batch_sz_sim`; DnS skips such chunks too). Queries are never
      cut.
    edges: lengths that targets are padded to, ascending; `chunk` is the last.
      A number: so many, with the least padding for these targets; another
      collection then needs other programs.
    query_buckets: into so many groups of like length queries are put. There
      is a program for each group and each length of targets: more of them take
      longer to compile and pad less.
    batch_frames: frames of targets, padding included, that a device is given
      at a time; also of queries. A small collection on many devices wants
      less, that all of them have some of every length.
    shard_frames: frames, padding included, of the targets whose scores make
      one file: what a killed search loses per host.
    storage: longest type of features on their way to the devices; they are
      computed with as the model says. A device's batch takes 18 KB a frame in
      32 bits, and `ahead` + 1 of them for each device are in memory.
    visit: share of the items that the network compares with each query, the
      best by the coarse score; 1: all of them, and no coarse score.
    readers: threads that read features.
    ahead: batches read before they are needed.
    query_bytes: of encoded queries that stay on each device; the rest is in a
      temporary file and is sent again for every batch of targets.
  """

  chunk: int = 2048
  edges: tuple[int, ...] | int = (
    *(8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 512, 1024, 2048),
  )
  query_buckets: int = 4
  batch_frames: int = 16384
  shard_frames: int = 2**19
  storage: str = 'float32'
  visit: float = 1.0
  readers: int = 4
  ahead: int = 3
  query_bytes: int = 4 * 2**30

  def __post_init__(self):
    least = dict(
      chunk=MIN_FRAMES,
      query_buckets=1,
      batch_frames=MIN_FRAMES,
      shard_frames=MIN_FRAMES,
      readers=1,
      ahead=1,
      query_bytes=0,
    )
    for name, low in least.items():
      value = getattr(self, name)
      if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(
          f'{name}={value!r}: expected a whole number of at least {low}.'
        )
    if not isinstance(self.edges, (str, int)):
      object.__setattr__(self, 'edges', tuple(self.edges))
    if not _are_edges(self.edges):
      raise ValueError(
        f'edges={self.edges!r}: expected ascending whole numbers of at least '
        f'{MIN_FRAMES} frames, or how many of them.'
      )
    if self.storage not in STORAGE:
      raise ValueError(
        f'storage={self.storage!r}: expected one of {", ".join(STORAGE)}.'
      )
    number = isinstance(self.visit, (int, float))
    if isinstance(self.visit, bool) or not number or not 0 < self.visit <= 1:
      raise ValueError(
        f'visit={self.visit!r}: expected a share above 0, up to 1 (all items).'
      )


def _are_edges(edges: Any) -> bool:
  if isinstance(edges, int):
    return not isinstance(edges, bool) and edges > 0
  return (
    isinstance(edges, tuple)
    and bool(edges)
    and all(isinstance(e, int) and e >= MIN_FRAMES for e in edges)
    and sorted(set(edges)) == list(edges)
  )


@dataclasses.dataclass(frozen=True)
class Records:
  """What is scored: items, or chunks of them. Arrays int64 [n].

  Attributes:
    item: number of the item.
    start: its first frame.
    length: frames.
  """

  item: np.ndarray
  start: np.ndarray
  length: np.ndarray

  def __len__(self) -> int:
    return len(self.item)


@dataclasses.dataclass(frozen=True)
class Shard:
  """Records of one bucket whose scores make one file.

  Attributes:
    number: place among the shards.
    frames: length that the records are padded to.
    rows: records that a device is given at a time.
    records: int64 [n], numbers of the records.
  """

  number: int
  frames: int
  rows: int
  records: np.ndarray

  @property
  def cost(self) -> int:
    """Frames, padding included."""
    return len(self.records) * self.frames


@dataclasses.dataclass(frozen=True)
class Plan:
  """Records and the shards they are in, every record once."""

  records: Records
  shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True)
class QueryBlock:
  """Queries that are compared together.

  Attributes:
    frames: length that they are padded to.
    rows: of the block; those beyond the queries are padding.
    queries: int64 [n], n <= rows.
  """

  frames: int
  rows: int
  queries: np.ndarray


def cut(lengths: np.ndarray, chunk: int) -> Records:
  """Cuts items into chunks.

  Args:
    lengths: int [v] frames; 0: there is no such video.
    chunk: frames of a chunk.
  """
  lengths = np.asarray(lengths, np.int64)
  whole, rest = np.divmod(lengths, chunk)
  short = (whole > 0) & (rest < MIN_FRAMES)
  count = np.where(lengths > 0, whole + ((rest > 0) & ~short), 0)
  item = np.repeat(np.arange(len(lengths)), count)
  first = np.repeat(np.cumsum(count) - count, count)
  start = (np.arange(len(item)) - first) * chunk
  return Records(item, start, np.minimum(lengths[item] - start, chunk))


def average(
  records: Records, scores: np.ndarray, items: int, out: np.ndarray
) -> None:
  """Writes means over the chunks of each item.

  Args:
    records: n of them.
    scores: float32 [q, n].
    items: v.
    out: float32 [q, v]; items without records stay as they are.
  """
  count = np.bincount(records.item, minlength=items)
  one = count[records.item] == 1
  several, first = np.unique(records.item[~one], return_index=True)
  # By query: a copy of all scores may not fit.
  for row, found in zip(out, scores):
    row[records.item[one]] = found[one]
    if len(several):
      sums = np.add.reduceat(found[~one].astype(np.float64), first)
      row[several] = sums / count[several]


def plan(lengths: np.ndarray, options: Options) -> Plan:
  """The plan for items of these lengths, int [v]; 0: the item is left out."""
  records = cut(lengths, options.chunk)
  if isinstance(options.edges, int):
    edges = group_edges(records.length, options.edges)
  else:
    edges = [e for e in options.edges if e < options.chunk] + [options.chunk]
  bucket = np.searchsorted(edges, records.length)
  shards = []
  for b in np.unique(bucket):
    inside = np.flatnonzero(bucket == b)
    frames = edges[b]
    rows = batch_rows(len(inside), max(1, options.batch_frames // frames))
    size = rows * max(1, options.shard_frames // (rows * frames))
    for start in range(0, len(inside), size):
      part = inside[start : start + size]
      shards.append(Shard(len(shards), frames, rows, part))
  return Plan(records, tuple(shards))


def batch_rows(records: int, most: int) -> int:
  """Rows of a batch, so that the last one of a bucket is nearly full, too.

  Some sizes only, so that a like collection needs no other programs: eighths of
  the most, and powers of two below.
  """
  even = -(-records // -(-records // most))
  step = max(1, most // 8)
  if even <= step:
    return min(step, 1 << (even - 1).bit_length())
  return min(most, -(-even // step) * step)


def assign(costs: Sequence[int], hosts: int) -> np.ndarray:
  """Which host takes which piece: int [n]; the longest first, each to the host
  with the least to do (Graham's rule)."""
  load = np.zeros(hosts, np.int64)
  out = np.zeros(len(costs), np.int64)
  for i in np.argsort(-np.asarray(costs, np.int64), kind='stable'):
    out[i] = load.argmin()
    load[out[i]] += costs[i]
  return out


def query_blocks(lengths: np.ndarray, options: Options) -> list[QueryBlock]:
  """Groups queries of like length, int [q]; length 0: left out."""
  lengths = np.asarray(lengths, np.int64)
  found = np.flatnonzero(lengths > 0)
  blocks = []
  low = 0
  for edge in group_edges(lengths[found], options.query_buckets):
    group = found[(lengths[found] > low) & (lengths[found] <= edge)]
    low = edge
    most = max(1, options.batch_frames // edge)
    count = -(-len(group) // most)
    rows = -(-len(group) // count)
    for start in range(0, len(group), rows):
      blocks.append(QueryBlock(edge, rows, group[start : start + rows]))
  return blocks


def group_edges(lengths: np.ndarray, groups: int) -> list[int]:
  """At most so many edges, ascending, with the least padding in all.

  Args:
    lengths: int [n], positive.
    groups: how many edges at most.
  """
  padded = -(-np.asarray(lengths) // _STEP) * _STEP
  edges, counts = np.unique(padded, return_counts=True)
  if len(edges) <= groups:
    return [int(e) for e in edges]
  below = np.r_[0, np.cumsum(counts)]
  # best[j]: frames of the first j edges' queries in as many groups as so far.
  best, choice = np.r_[0.0, np.full(len(edges), np.inf)], []
  for _ in range(groups):
    costs = best[:, None] + (below[None] - below[:, None]) * np.r_[0, edges]
    costs[np.tril_indices(len(best))] = np.inf
    choice.append(costs.argmin(0))
    best = np.r_[0.0, costs.min(0)[1:]]
  out, j = [], len(edges)
  for before in reversed(choice):
    if j > 0:
      out.append(int(edges[j - 1]))
      j = before[j]
  return out[::-1]
