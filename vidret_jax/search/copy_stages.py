# SPDX-License-Identifier: Apache-2.0
"""The loop of a copy search: batches of targets meet all encoded queries."""

import collections
from collections.abc import Callable, Iterable, Iterator
import dataclasses

import jax
from jax.experimental import multihost_utils
import numpy as np

from vidret_jax import sharding
from vidret_jax.search import (
  copy_plan,
  copy_programs,
  copy_pruning,
  copy_queries,
  copy_together,
)
from vidret_jax.search import copy_reading as reading
from vidret_jax.search.moment_corpus import unwatched

# Batches that the devices work on beside the one being sent.
_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class _Batch:
  """Records that the devices of a process are given at a time.

  Attributes:
    shard: whose they are.
    first: place of the first one in the shard.
    rows: n, at most those of the shard for every device.
    last: whether no others of the shard follow.
  """

  shard: copy_plan.Shard
  first: int
  rows: int
  last: bool

  @property
  def numbers(self) -> np.ndarray:
    """The records, int64 [n]."""
    return self.shard.records[self.first : self.first + self.rows]


class Search:
  """Encoded queries, and the stages that compare items with them."""

  def __init__(
    self, model, mesh, variables, queries, items, options, shards, watch
  ):
    # A program over all processes would make them work in step.
    self._mesh = mesh.local_mesh
    self._parts = self._mesh.devices.shape[0]
    self._whole = sharding.replicated(self._mesh)
    self._rows = sharding.batch_sharding(self._mesh)
    self._programs = copy_programs.programs(model, self._mesh)
    self._variables = jax.device_put(variables, self._whole)
    self._queries, self._items = queries, items
    self._options, self._shards = options, shards
    self._watch = watch or unwatched
    self._blocks, self._encoded = self._encode()

  def _encode(self) -> tuple[list[copy_plan.QueryBlock], copy_queries.Queries]:
    """Blocks of queries, and their embeddings."""
    lengths = np.asarray(self._queries.lengths, np.int64)
    blocks = copy_plan.query_blocks(lengths, self._options)
    numbers = np.arange(len(lengths))
    whole = copy_plan.Records(numbers, np.zeros_like(numbers), lengths)

    def make(block):
      return self._read(self._queries, whole, block.queries, block)

    kept = copy_queries.Queries(self._options.query_bytes, self._whole)
    for _, batch in self._ahead(blocks, make, 'blocks of queries'):
      kept.add(
        self._programs.queries(
          self._variables, jax.device_put(batch, self._whole)
        )
      )
    return blocks, kept

  def stage(self, name: str, wanted: np.ndarray | None = None) -> np.ndarray:
    """Scores of all items, or of chosen pairs.

    Args:
      name: 'coarse' or 'fine'.
      wanted: bool [q, v], the pairs; default: all.

    Returns:
      float32 [q, v], the same on every process; NaN where there is no score.
    """
    lengths = np.asarray(self._items.lengths, np.int64)
    if wanted is not None:
      lengths = np.where(wanted.any(0), lengths, 0)
    plan = copy_plan.plan(lengths, self._options)
    todo = self._absent(name, plan)
    costs = [s.cost * int(absent) for s, absent in zip(plan.shards, todo)]
    host = copy_plan.assign(costs, jax.process_count())
    mine = todo & (host == jax.process_index())

    def score():
      kept = {}
      shards = [plan.shards[i] for i in np.flatnonzero(mine)]
      for shard, scores in self._scored(name, plan, shards, wanted):
        self._check(plan, shard, scores, wanted)
        if self._shards is None:
          kept[shard.number] = scores
        else:
          self._shards.write(name, shard, scores)
      return kept

    # Until here no process waits for another one.
    kept = copy_together.together(f'the {name} stage', score)
    scores = self._merge(name, plan, host, kept)
    out = np.full((len(self._queries.ids), len(lengths)), np.nan, np.float32)
    copy_plan.average(plan.records, scores, len(lengths), out)
    return out

  def _absent(self, name, plan) -> np.ndarray:
    """bool [n], shards without scores; hosts share these, whoever did others.

    As the first process sees the folder: the others agree, though another one
    may have written by the time they look.
    """
    out = np.ones(len(plan.shards), np.int32)
    if self._shards is not None:
      out[:] = [not self._shards.has(name, s) for s in plan.shards]
    if jax.process_count() > 1:
      out = multihost_utils.broadcast_one_to_all(out)
    return np.asarray(out).astype(bool)

  def _scored(
    self, name, plan, shards, wanted
  ) -> Iterator[tuple[copy_plan.Shard, np.ndarray]]:
    """Computes some shards: (shard, float32 [q, n])."""
    jobs = [b for shard in shards for b in self._batches(shard)]
    lanes = self._lanes(plan, wanted)

    def make(batch):
      shard = batch.shard
      size = shard.rows * self._parts
      return self._read(
        self._items, plan.records, batch.numbers, shard, rows=size
      )

    # By shard: only the batches in flight and one shard are in memory.
    scores = {}
    pending = collections.deque()

    def finish():
      batch, parts = pending.popleft()
      number = batch.shard.number
      if number not in scores:
        size = (len(self._queries.ids), len(batch.shard.records))
        scores[number] = np.full(size, np.nan, np.float32)
      place = slice(batch.first, batch.first + batch.rows)
      for block, part in parts:
        n = len(block.queries)
        found = np.asarray(part)[: batch.rows, :n]
        scores[number][block.queries, place] = found.T
      return (batch.shard, scores.pop(number)) if batch.last else None

    for batch, features in self._ahead(jobs, make, f'{name} batches'):
      pending.append(
        (batch, self._compare(name, plan, batch, features, wanted, lanes))
      )
      if len(pending) > _AHEAD and (done := finish()):
        yield done
    while pending:
      if done := finish():
        yield done

  def _compare(self, name, plan, batch, features, wanted, lanes):
    """Scores of a batch: [(block of queries, [v, q] on the devices)]."""
    programs = self._programs
    features = jax.device_put(features, self._rows)
    encode = programs.coarse if name == 'coarse' else programs.items
    emb = encode(self._variables, features)
    out = []
    for number, block in enumerate(self._blocks):
      if wanted is None:
        score = programs.score if name == 'coarse' else programs.fine
        q = self._encoded[number]
        out.append((block, score(self._variables, q, emb)))
        continue
      columns = plan.records.item[batch.numbers]
      size = batch.shard.rows * self._parts
      pairs = np.zeros((block.rows, size), bool)
      pairs[: len(block.queries), : batch.rows] = wanted[
        np.ix_(block.queries, columns)
      ]
      if not pairs.any():
        continue
      units = [
        copy_pruning.units(part, lanes[batch.shard.frames])
        for part in np.split(pairs, self._parts, axis=1)
      ]
      units = jax.device_put(
        tuple(np.stack(x) for x in zip(*units)), self._rows
      )
      q = self._encoded[number]
      out.append((block, programs.some(self._variables, q, emb, *units)))
    for _, x in out:
      x.copy_to_host_async()
    return out

  def _lanes(self, plan, wanted) -> dict[int, int]:
    """Items of a unit of work for each length of targets."""
    out: dict[int, int] = {}
    if wanted is None:
      return out
    pairs, blocks = collections.Counter(), collections.Counter()
    rows = {}
    count = wanted.sum(0)
    for shard in plan.shards:
      pairs[shard.frames] += int(count[plan.records.item[shard.records]].sum())
      blocks[shard.frames] += -(-len(shard.records) // shard.rows)
      rows[shard.frames] = shard.rows
    queries = int(wanted.any(1).sum())
    for frames, n in pairs.items():
      out[frames] = copy_pruning.lanes(
        n, blocks[frames] * queries, rows[frames]
      )
    return out

  def _batches(self, shard: copy_plan.Shard) -> Iterator[_Batch]:
    size, n = shard.rows * self._parts, len(shard.records)
    for first in range(0, n, size):
      rows = min(size, n - first)
      yield _Batch(shard, first, rows, first + rows == n)

  def _read(self, view, records, numbers, like, rows=None):
    """A batch padded to the rows and frames of a block or shard."""
    return reading.batch(
      view,
      records,
      numbers,
      rows=rows or like.rows,
      frames=like.frames,
      storage=self._options.storage,
    )

  def _ahead(self, jobs: list, make: Callable, text: str) -> Iterable:
    stream = reading.ahead(
      jobs, make, readers=self._options.readers, most=self._options.ahead
    )
    return self._watch(stream, len(jobs), text)

  def _check(self, plan, shard, scores, wanted):
    """Raises ValueError naming pairs whose score is not finite."""
    item = plan.records.item[shard.records]
    there = (np.asarray(self._queries.lengths) > 0)[:, None]
    if wanted is not None:
      there = wanted[:, item]
    bad = there & ~np.isfinite(scores)
    if not bad.any():
      return
    q, v = np.nonzero(bad)
    names = ', '.join(
      f'{self._queries.ids[a]!r} with {self._items.ids[item[b]]!r}: '
      f'{scores[a, b]}'
      for a, b in list(zip(q, v))[:3]
    )
    raise ValueError(
      f'{bad.sum()} scores are not finite ({len(set(q))} queries, '
      f'{len(set(item[v]))} items): {names}. Look for NaN or huge values in '
      'the features of these videos and in the weights.'
    )

  def _merge(self, name, plan, host, kept) -> np.ndarray:
    """Scores of all records, float32 [q, n]; this process has `kept`."""
    q, n = len(self._queries.ids), len(plan.records)
    out = np.full((q, n), np.nan, np.float32)
    while kept:
      number, scores = kept.popitem()
      out[:, plan.shards[number].records] = scores
    if self._shards is not None:

      def read():
        for shard in plan.shards:
          out[:, shard.records] = self._shards.read(name, shard, q)

      copy_together.together(f'reading the scores of the {name} stage', read)
    elif jax.process_count() > 1:
      every = multihost_utils.process_allgather(out)
      for shard in plan.shards:
        out[:, shard.records] = every[host[shard.number]][:, shard.records]
    return out
