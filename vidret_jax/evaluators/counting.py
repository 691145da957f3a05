# SPDX-License-Identifier: Apache-2.0
"""Ranks of a whole collection in two passes over blocks.

The first pass encodes items, then queries, and scores every query with its own
item. The second pass scores all pairs, block by block, and counts what beats
and what ties with those own scores, per row and per column; only counts leave
the devices. Scores of both passes come from the same compiled function on the
same blocks, so that exact equality of scores means what it says.
"""

import collections
import dataclasses
from typing import Any

from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import arrange, base, non_finite
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.models.base import Retriever
from vidret_jax.ops import ranking
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import exact
from vidret_jax.search.bank import Bank, Change
from vidret_jax.search.exact import padded
from vidret_jax.search.programs import programs

# Pairs of blocks given to the devices before the oldest is waited for: enough
# to keep them busy, few enough to bound the memory that computations hold.
_AHEAD = 2


@dataclasses.dataclass
class Collection:
  """Encoded items.

  Attributes:
    bank: their embeddings.
    ids: their names.
    available: bool [v, m] experts each item has, or None if the data has none.
    has_score: bool [v]; False ranks an item behind all others.
  """

  bank: Bank
  ids: tuple[str, ...]
  available: np.ndarray | None
  has_score: np.ndarray


@dataclasses.dataclass
class _Queries:
  """Encoded queries, the captions of an item side by side.

  Attributes:
    bank: their embeddings.
    ids: names, [n].
    mask: bool [n], False for padding between videos.
    column: int64 [n], own items, -1 for padding.
    own: [n], scores with them.
  """

  bank: Bank
  ids: tuple[str, ...]
  mask: np.ndarray
  column: np.ndarray
  own: np.ndarray


@dataclasses.dataclass(frozen=True)
class Ranks:
  """Zero-based ranks: `text` [q] in query order, `video` [v]."""

  text: np.ndarray
  video: np.ndarray


class Counter:
  """Counts ranks of one model on one mesh; see the module."""

  def __init__(
    self,
    model: Retriever,
    mesh: Mesh,
    *,
    query_block: int,
    item_block: int,
    bank_bytes: int,
    v2t: str,
    ties: str,
  ):
    self._p = programs(model, mesh)
    self._model, self._mesh = model, mesh
    self._query_block = query_block
    self._item_block = item_block
    self._bank_bytes = bank_bytes
    self._ties = ranks_lib.check_option('ties', ties, ranks_lib.TIES)
    self._v2t = ranks_lib.check_option('v2t', v2t, ranks_lib.V2T)

  def collect(
    self,
    variables: Any,
    items: source_lib.Source,
    change: Change,
    rank_empty_last: bool,
  ) -> Collection:
    """Encodes all items.

    Args:
      variables: of the model.
      items: what to encode.
      change: edits local batches before they are encoded.
      rank_empty_last: items without any available expert go last instead of
        leaving their score to the model.
    """
    size = bank_lib.block_size(self._item_block, len(items), self._mesh)
    bank = Bank(
      size, len(items), sharding.replicated(self._mesh), self._bank_bytes
    )
    parts = []

    def look(batch, rows):
      batch = change(batch, rows)
      if 'available' in batch:
        parts.append(np.asarray(batch['available']))
      return batch

    stream = bank_lib.encode(
      self._p.encode_item, variables, items, size, self._mesh, look
    )
    for _, emb in base.progress(stream, -(-len(items) // size), 'items'):
      bank.append(emb)
    available = None
    has_score = np.ones(len(items), bool)
    if parts:
      # Every process read its share of each block: put them together.
      whole = [sharding.fetch(sharding.put_batch(p, self._mesh)) for p in parts]
      available = np.concatenate(whole)[: len(items)]
      if rank_empty_last:
        has_score = available.any(1)
    return Collection(bank, tuple(items.ids), available, has_score)

  def rank(
    self,
    variables: Any,
    items: Collection,
    queries: source_lib.Source,
    item_of_query: np.ndarray,
    change: Change,
  ) -> Ranks:
    """Ranks every query among the items and every item among the queries.

    Args:
      variables: of the model.
      items: see `collect`.
      queries: what to rank, in any order.
      item_of_query: int64 [q].
      change: edits local query batches; row numbers are those of `queries`.

    Raises:
      non_finite.NonFiniteScore: names the first queries and items concerned.
      ValueError: no queries, or (max_pool) an item with more captions than a
        block of queries holds.
    """
    if not len(item_of_query):
      raise ValueError('there are no queries to rank; is the split empty?')
    layout = arrange.layout(
      item_of_query, self._query_block, self._v2t == 'max_pool', self._mesh
    )
    asked = self._ask(variables, items, queries, item_of_query, layout, change)
    best = np.full(len(items.ids), -np.inf, asked.own.dtype)
    with np.errstate(invalid='ignore'):  # NaN is found by the counting pass.
      np.maximum.at(best, asked.column[asked.mask], asked.own[asked.mask])
    rows, cols = self._count_all(variables, items, asked, best)

    text = np.empty(len(item_of_query))
    text[layout[asked.mask]] = ranks_lib.from_counts(
      *rows[:, asked.mask], self._ties
    )
    # The best placed own caption is the one with the highest score, see
    # `metrics.ranks.video_to_text`: its counts are the item's.
    video = ranks_lib.from_counts(*cols, self._ties)
    video[np.bincount(item_of_query, minlength=len(video)) == 0] = np.inf
    return Ranks(text, video)

  def _ask(self, variables, items, queries, item_of_query, layout, change):
    """First pass: encodes the queries and scores each with its own item."""
    mask, column = layout >= 0, bank_lib.lookup(item_of_query, layout)
    size = bank_lib.block_size(self._query_block, len(layout), self._mesh)
    # What the items have left of the budget; reading queries back is cheap.
    bank = Bank(
      size,
      len(layout),
      sharding.batch_sharding(self._mesh),
      max(0, self._bank_bytes - items.bank.resident_bytes),
    )

    def place(batch, rows):
      return change(batch, bank_lib.lookup(layout, rows))

    source = bank_lib.Reordered(queries, layout)
    stream = bank_lib.encode(
      self._p.encode_query, variables, source, size, self._mesh, place
    )
    own = []
    for first, emb in base.progress(stream, -(-len(layout) // size), 'queries'):
      part = slice(first, first + size)
      scores = exact.own_scores(
        self._model,
        self._mesh,
        variables,
        emb,
        items.bank,
        arrange.cut(column, part, size, -1),
        has_score=items.has_score,
      )
      own.append(scores)
      bank.append(emb)
    own = np.concatenate(own)[: len(layout)]
    return _Queries(bank, source.ids, mask, column, own)

  def _count_all(self, variables, items, asked, best):
    """Second pass: counts of all rows, int64 [2, n], and columns, [2, v]."""
    rows = np.zeros((2, len(asked.mask)), np.int64)
    cols = np.zeros((2, len(items.ids)), np.int64)
    bank = asked.bank
    pending = collections.deque()

    def add():
      b, i, counts = pending.popleft()
      counts = ranking.Counts(*sharding.fetch(tuple(counts)))
      if counts.bad:
        self._raise_non_finite(variables, items, asked, b, i)
      in_rows = counts.row_greater, counts.row_equal
      in_cols = counts.col_greater, counts.col_equal
      for j in range(2):
        part = rows[j, bank.slice(b)]
        part += in_rows[j][: len(part)]
        part = cols[j, items.bank.slice(i)]
        part += in_cols[j][: len(part)]

    total = -(-len(items.bank) // items.bank.group_size) * len(bank)
    steps = ((g, b) for g in items.bank.groups() for b in range(len(bank)))
    for group, b in base.progress(steps, total, 'ranks'):
      emb, part = bank.block(b), bank.slice(b)
      own = arrange.cut(asked.own, part, bank.size, 0)
      column = arrange.cut(asked.column, part, bank.size, -1).astype(np.int32)
      mask = arrange.cut(asked.mask, part, bank.size, False)
      video = None
      if self._v2t == 'max_pool':
        video = arrange.numbered(column)
      for i, v in group:
        threshold = arrange.cut(best, items.bank.slice(i), items.bank.size, 0)
        sim_qv = self._p.score(variables, emb, v)
        # Outside [0, size) where the own item lies in another block.
        own_column = column - np.int32(items.bank.first(i))
        counts = self._p.count(
          sim_qv,
          own,
          own_column,
          threshold,
          mask,
          items.bank.mask(i),
          padded(items.has_score, items.bank, i),
          video,
        )
        pending.append((b, i, counts))
        if len(pending) > _AHEAD:
          add()
    while pending:
      add()
    return rows, cols

  def _raise_non_finite(self, variables, items, asked, b, i):
    """Finds the bad scores of one pair of blocks again, and names them."""
    bank, part = asked.bank, asked.bank.slice(b)
    sim_qv = sharding.fetch(
      self._p.score(variables, bank.block(b), items.bank.block(i))
    )
    real = arrange.cut(asked.mask, part, bank.size, False)[:, None]
    real = real & items.bank.mask(i) & padded(items.has_score, items.bank, i)
    first = items.bank.first(i)
    raise non_finite.NonFiniteScore(
      non_finite.explain(
        sim_qv,
        real,
        asked.ids[part],
        items.ids[first:],
        None if items.available is None else items.available[first:],
      )
    )
