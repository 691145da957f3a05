# SPDX-License-Identifier: Apache-2.0
"""Average precision of annotated pairs, by each of three sums.

See `copies` for which protocol has which, and for what counts.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vidret_jax.metrics import copy_places

STEPS = 20  # Of recall in an interpolated curve.


class Truth(NamedTuple):
  """What is annotated, by rows and columns of the scores.

  Attributes:
    query: int64 [p], of the annotated pairs, which are sorted by query and item
      and all distinct.
    item: int64 [p].
    label: uint8 [p], `copies.BITS` of all labels of the pair.
    own: int64 [q], the item that is the query itself; -1: none.
    asked: uint8 [q], bits of the labels that the query has at all, also for
      videos outside of the database (FIVR); None: those of its pairs.
    easy: bool [n], easy duplicates (FIVR); None: there is no such list.
    unlabelled: bool [n], items that are wrong for every query (SVD).
    order: int64 [p], places of the pairs of a query in its annotations, by
      which equal scores are pooled instead of by the numbers of the items, all
      unlabelled items coming behind (SVD); None: by the numbers.
  """

  query: np.ndarray
  item: np.ndarray
  label: np.ndarray
  own: np.ndarray
  asked: np.ndarray | None = None
  easy: np.ndarray | None = None
  unlabelled: np.ndarray | None = None
  order: np.ndarray | None = None


class There(NamedTuple):
  """Which videos could be scored.

  Attributes:
    queries: bool [q].
    items: bool [n].
  """

  queries: np.ndarray
  items: np.ndarray


class Task(NamedTuple):
  """The numbers of one task.

  Attributes:
    ap: float64 [q], fractions; NaN for queries that are left out.
    uap: fraction; 0 if there is no right item.
    right: int64 [q], right items that count; 0 for queries that are left out.
    expected: int64 [q], right items of the database, whether they and the query
      are there or not.
    curve: float64 [21], precision at a recall of 0, 0.05, ..., 1 or more, mean
      over queries with right items; None if not asked for.
  """

  ap: np.ndarray
  uap: float
  right: np.ndarray
  expected: np.ndarray
  curve: np.ndarray | None = None

  @property
  def mean(self) -> float:
    """mAP, a fraction; 0 if every query is left out."""
    counted = ~np.isnan(self.ap)
    return float(self.ap[counted].mean()) if counted.any() else 0.0


def rectangles(
  rank: np.ndarray, place: np.ndarray, level: np.ndarray, row: np.ndarray
) -> np.ndarray:
  """What each right item adds to the sum: the precision at its place.

  Args:
    rank: int64 [k], right items of its query before it.
    place: int64 [k], items before it; rising within a query.
    level: int64 [k], items with at least its score.
    row: int64 [k], its query; rising.

  Returns:
    float64 [k].
  """
  del level, row
  return (rank + 1) / (place + 1)


def trapezoids(rank, place, level, row):
  """As `rectangles`: the mean of the precision before the item and at it."""
  before = np.where(place == 0, 1, rank / np.maximum(place, 1))
  return (before + rectangles(rank, place, level, row)) / 2


def steps(rank, place, level, row):
  """As `rectangles`: the precision behind the last of all equal scores."""
  del rank, place
  return _up_to(row, level) / level


class Pairs:
  """Annotated pairs with their places.

  Attributes:
    places: `copy_places.Places` for each field; 0 of pairs without a score.
  """

  def __init__(
    self,
    scores: np.ndarray,
    truth: Truth,
    found: There,
    items: np.ndarray,
    fields: Sequence[copy_places.Field],
    missing: str,
  ):
    """Looks the places up.

    Args:
      scores: float [q, n].
      truth: the annotations.
      found: videos that are there.
      items: bool [n], what competes for every query if it is there.
      fields: see `copy_places.find`.
      missing: 'ignore' or 'penalise'.
    """
    self._truth, self._found, self._items = truth, found, items
    self._penalise = missing == 'penalise'
    query, item = truth.query, truth.item
    self._foreign = item != truth.own[query]
    self._there = found.queries[query] & found.items[item] & self._foreign
    scored = self._scored = self._there & ~np.isnan(scores[query, item])
    rivals = copy_places.Rivals(
      *(items & found.items, truth.own, query[scored], item[scored]),
      None if truth.order is None else truth.order[scored],
    )
    known = copy_places.find(
      scores, query[scored], item[scored], rivals, fields
    )
    self.places = [copy_places.Places(*map(self._spread, x)) for x in known]

  def labelled(self, bits: int) -> np.ndarray:
    """bool [p], pairs with any label of some bits."""
    return ((self._truth.label & bits) > 0) & self._foreign

  def judge(
    self,
    right: np.ndarray,
    rows: np.ndarray,
    places: copy_places.Places,
    place: np.ndarray,
    precision: Callable[..., np.ndarray] = rectangles,
    *,
    empty: float,
  ) -> Task:
    """The numbers of a task.

    Args:
      right: bool [p], pairs that are right.
      rows: bool [q], queries that are asked.
      places: of all pairs.
      place: int64 [p], which of these places ranks.
      precision: see `rectangles`.
      empty: AP of a query without right items.
    """
    query, q = self._truth.query, len(rows)
    ours = np.flatnonzero(right & self._scored & rows[query])
    ours = ours[np.lexsort((place[ours], query[ours]))]
    row = query[ours]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    at = precision(rank, place[ours], places.level[ours], row)
    total = self._total(right, rows)
    ap = np.bincount(row, at, q) / np.maximum(total, 1)
    ap = np.where(total > 0, ap, empty)
    pool = np.sort(places.pool[ours])
    pooled = (np.arange(1, len(pool) + 1) / (pool + 1)).sum()
    return Task(
      ap=np.where(rows, ap, np.nan),
      uap=float(pooled) / max(int(total.sum()), 1),
      right=total,
      expected=np.bincount(query[right], minlength=q),
    )

  def curve(
    self,
    right: np.ndarray,
    rows: np.ndarray,
    places: copy_places.Places,
    without: np.ndarray | None = None,
  ) -> np.ndarray:
    """Interpolated precision [21], the best at each recall or beyond.

    Equal scores are one step, and what has no score is the last one.

    Args:
      right: bool [p].
      rows: bool [q].
      places: of all pairs.
      without: bool [n], items that are outside of the field.
    """
    ours = np.flatnonzero(right & self._scored & rows[self._truth.query])
    row, level = self._truth.query[ours], places.level[ours]
    order = np.lexsort((level, row))
    row, level = row[order], level[order]
    hits, total = _up_to(row, level), self._total(right, rows)
    last = np.maximum(self._competitors(without), total)
    # As scikit-learn's `precision_recall_curve` has it before the first item.
    curves, recalls = [], np.arange(STEPS + 1) * (1 / STEPS)
    for q in np.flatnonzero(total):
      part = slice(*np.searchsorted(row, (q, q + 1)))
      hit = np.array([0, *hits[part], total[q]])
      precision = hit / np.array([1, *level[part], last[q]])
      precision[0] = 1
      best = np.maximum.accumulate(precision[::-1])[::-1]
      curves.append(best[np.searchsorted(hit / total[q], recalls)])
    return np.mean(curves, axis=0) if curves else np.zeros(STEPS + 1)

  def _spread(self, values):
    """[p], 0 where there is no score."""
    out = np.zeros(len(self._scored), values.dtype)
    out[self._scored] = values
    return out

  def _total(self, right, rows):
    """int64 [q], right items that count."""
    counted = right if self._penalise else right & self._there
    total = np.bincount(self._truth.query[counted], minlength=len(rows))
    return np.where(rows, total, 0)

  def _competitors(self, without):
    """int64 [q], items that each query is compared with, scored or not."""
    truth, items, labelled = self._truth, self._items, self._foreign
    if not self._penalise:
      items, labelled = items & self._found.items, self._there
    if without is not None:
      items, labelled = items & ~without, labelled & ~without[truth.item]
    itself = (truth.own >= 0) & items[truth.own]
    more = truth.query[labelled & ~items[truth.item]]
    return items.sum() - itself + np.bincount(more, minlength=len(itself))


def _up_to(row, level):
  """Right items of the same query with at least the same score, int64 [k].

  Args:
    row: int64 [k], rising.
    level: int64 [k], rising within a row.
  """
  key = row * (int(level.max(initial=0)) + 1) + level
  return np.searchsorted(key, key, 'right') - np.searchsorted(row, row)
