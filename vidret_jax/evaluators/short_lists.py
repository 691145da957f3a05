# SPDX-License-Identifier: Apache-2.0
"""Short lists with fine scores, and what the counting pass reads of them."""

import dataclasses

import numpy as np

from vidret_jax.evaluators import arrange
from vidret_jax.evaluators.collecting import Collection
from vidret_jax.evaluators.counting import Queries
from vidret_jax.ops import ranking


@dataclasses.dataclass
class Lists:
  """The candidates of n queries (or items).

  Attributes:
    numbers: int32 [n, k], in the order of the first stage; -1: none.
    fine: float32 [n, k], their scores of the second stage; -inf: none.
  """

  numbers: np.ndarray
  fine: np.ndarray

  def of(self, number: np.ndarray) -> np.ndarray:
    """Fine score [n] of one candidate each; -inf if it is not on the list."""
    here = (self.numbers == number[:, None]) & (number >= 0)[:, None]
    return np.where(here, self.fine, -np.inf).max(1)

  def back(self, row: np.ndarray) -> np.ndarray:
    """Fine score [m] of candidate 0, 1, ... on the list `row[i]` of each."""
    lists = self.numbers[np.maximum(row, 0)]
    here = (lists == np.arange(len(row))[:, None]) & (row >= 0)[:, None]
    return np.where(here, self.fine[np.maximum(row, 0)], -np.inf).max(1)

  def cut(self, part: slice, size: int, first: int) -> ranking.ShortLists:
    """Rows `part`, filled up to `size`, as a block that begins at `first`."""
    numbers = _fill(self.numbers[part], size, -1)
    # Lower than any place, wherever the block begins.
    place = np.where(numbers >= 0, numbers - first, -1)
    return ranking.ShortLists(
      place.astype(np.int32), _fill(self.fine[part], size, 0)
    )


def _fill(x: np.ndarray, size: int, fill) -> np.ndarray:
  if len(x) == size:
    return x
  return np.pad(x, ((0, size - len(x)), (0, 0)), constant_values=fill)


@dataclasses.dataclass
class Stages:
  """Implements `counting.Stages`.

  Attributes:
    queries: encoded.
    items: encoded.
    rows: lists of the queries.
    columns: lists of the items, or None: those of the queries hold for them.
    own: [n] fine scores of the queries' own items, -inf where not listed.
    best: [v] best fine score of each item with an own query, likewise.
  """

  queries: Queries
  items: Collection
  rows: Lists
  columns: Lists | None
  own: np.ndarray
  best: np.ndarray

  def block(self, b: int, i: int) -> ranking.TwoStages:
    """What `ops.ranking.count` takes for query block b and item block i."""
    asked, bank = self.queries.bank, self.items.bank
    rows, cols = asked.slice(b), bank.slice(i)
    columns = None
    if self.columns is not None:
      columns = self.columns.cut(cols, bank.size, asked.first(b))
    return ranking.TwoStages(
      rows=self.rows.cut(rows, asked.size, bank.first(i)),
      columns=columns,
      own_q=arrange.cut(self.own, rows, asked.size, -np.inf),
      threshold_v=arrange.cut(self.best, cols, bank.size, -np.inf),
    )
