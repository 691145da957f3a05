# SPDX-License-Identifier: Apache-2.0
"""Ranks of a whole collection in two passes over blocks.

The first pass encodes items, then queries, and scores every query with its own
item. The second pass scores all pairs, block by block, and counts what beats
and what ties with those own scores, per row and per column; only counts leave
the devices. Scores of both passes come from the same compiled function on the
same blocks, so that exact equality of scores means what it says.
"""

import collections
from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, Protocol

from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import arrange, base, non_finite
from vidret_jax.evaluators.collecting import Collection
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
class Queries:
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


class Stages(Protocol):
  """Short lists with dearer scores, cut for one pair of blocks at a time."""

  def block(self, b: int, i: int) -> ranking.TwoStages:
    """What `ops.ranking.count` takes for query block b and item block i."""


class Counter:
  """Counts ranks of one model on one mesh; see the module."""

  def __init__(
    self,
    model: Retriever,
    mesh: Mesh,
    *,
    query_block: int,
    bank_bytes: int,
    v2t: str,
    ties: str,
  ):
    self._p = programs(model, mesh)
    self._model, self._mesh = model, mesh
    self._query_block = query_block
    self._bank_bytes = bank_bytes
    self._ties = ranks_lib.check_option('ties', ties, ranks_lib.TIES)
    self._v2t = ranks_lib.check_option('v2t', v2t, ranks_lib.V2T)

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
    layout = self.layout(item_of_query)
    asked = self.ask(variables, items, queries, item_of_query, layout, change)
    (ranks,) = self.count(variables, items, asked, layout)
    return ranks

  def layout(self, item_of_query: np.ndarray) -> np.ndarray:
    """Order of the queries: int64 [n], -1 for padding; see `arrange.layout`."""
    if not len(item_of_query):
      raise ValueError('there are no queries to rank; is the split empty?')
    return arrange.layout(
      item_of_query, self._query_block, self._v2t == 'max_pool', self._mesh
    )

  def ask(
    self,
    variables: Any,
    items: Collection,
    queries: source_lib.Source,
    item_of_query: np.ndarray,
    layout: np.ndarray,
    change: Change | None,
    look: Callable[[int, Any], None] | None = None,
  ) -> Queries:
    """First pass: encodes the queries and scores each with its own item.

    Args:
      variables: of the model.
      items: see `collecting.collect`.
      queries: what to rank.
      item_of_query: int64 [q].
      layout: see `layout`.
      change: edits local query batches; row numbers are those of `queries`.
      look: gets (number of the first row in `layout`, embeddings) of each block
        in turn.
    """
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
      if change is None:
        return batch
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
      if look is not None:
        look(first, emb)
      bank.append(emb)
    own = np.concatenate(own)[: len(layout)]
    return Queries(bank, source.ids, mask, column, own)

  def count(
    self,
    variables: Any,
    items: Collection,
    asked: Queries,
    layout: np.ndarray,
    ways: Sequence[Stages | None] = (None,),
  ) -> list[Ranks]:
    """Second pass: ranks of all queries and items, once for each of `ways`.

    Args:
      variables: of the model.
      items: see `collecting.collect`.
      asked: see `ask`.
      layout: see `layout`.
      ways: None ranks by `score` alone, `Stages` by short lists first.
    """
    best = np.full(len(items.ids), -np.inf, asked.own.dtype)
    column = asked.column[asked.mask]
    with np.errstate(invalid='ignore'):  # NaN is found while counting.
      np.maximum.at(best, column, asked.own[asked.mask])
    uncaptioned = np.bincount(column, minlength=len(best)) == 0
    ranks = []
    for rows, cols in self._count_all(variables, items, asked, best, ways):
      text = np.empty(asked.mask.sum())
      text[layout[asked.mask]] = ranks_lib.from_counts(
        *rows[:, asked.mask], self._ties
      )
      # The best placed own caption is the one with the highest score, see
      # `metrics.ranks.video_to_text`: its counts are the item's.
      video = ranks_lib.from_counts(*cols, self._ties)
      video[uncaptioned] = np.inf
      ranks.append(Ranks(text, video))
    return ranks

  def _count_all(self, variables, items, asked, best, ways):
    """Per way: counts of all rows, int64 [2, n], and columns, [2, v]."""
    totals = [
      tuple(np.zeros((2, n), np.int64) for n in (len(asked.mask), len(best)))
      for _ in ways
    ]
    bank = asked.bank
    pending = collections.deque()

    def add():
      b, i, found = pending.popleft()
      for (rows, cols), counts in zip(totals, sharding.fetch(found)):
        counts = ranking.Counts(*counts)
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
        counts = [
          self._p.count(
            sim_qv,
            own,
            own_column,
            threshold,
            mask,
            items.bank.mask(i),
            padded(items.has_score, items.bank, i),
            video,
            None if way is None else way.block(b, i),
          )
          for way in ways
        ]
        pending.append((b, i, [tuple(x) for x in counts]))
        if len(pending) > _AHEAD:
          add()
    while pending:
      add()
    return totals

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
