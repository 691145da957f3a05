# SPDX-License-Identifier: Apache-2.0
"""Places of some items among all candidates of a query, without a full sort.

FIVR-200K has 225,960 candidates and some hundred relevant ones per query; one
sort of the values and a search in it is all that the relevant ones need.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

TIES = ('later', 'earlier')


@dataclasses.dataclass(frozen=True)
class Ranking:
  """The candidates of one query.

  Attributes:
    scores: float [n] of all items.
    candidate: bool [n], items that are ranked.
    ties: which of two items of equal score comes first: the 'later' one, as
      `argsort` turned round has it (upstream's FIVR evaluation and every
      micro-AP), or the 'earlier' one, as a stable descending sort (its EVVE).
  """

  scores: np.ndarray
  candidate: np.ndarray
  ties: str = 'later'

  @property
  def count(self) -> int:
    """How many are ranked."""
    return int(self.candidate.sum())

  def places(self, columns: np.ndarray) -> np.ndarray:
    """One-based places, int64 [m], of candidates; 0 for other items."""
    columns = np.asarray(columns, np.int64)
    values = np.sort(self.scores[self.candidate])
    wanted = self.scores[columns]
    last = np.searchsorted(values, wanted, 'right')
    equal = last - np.searchsorted(values, wanted, 'left')
    out = len(values) - last + 1
    for i in np.flatnonzero((equal > 1) & self.candidate[columns]):
      same = self.candidate & (self.scores == wanted[i])
      column = columns[i]
      out[i] += same[column + 1 :].sum() if self._later else same[:column].sum()
    return np.where(self.candidate[columns], out, 0)

  def best(self, count: int, where: np.ndarray | None = None) -> np.ndarray:
    """Columns of the best candidates, best first: int64 [count or fewer].

    Args:
      count: how many.
      where: bool [n], to look among these only.
    """
    mask = self.candidate if where is None else self.candidate & where
    columns = np.flatnonzero(mask)
    if not len(columns) or count < 1:
      return np.zeros(0, np.int64)
    scores = self.scores[columns]
    if count < len(columns):
      least = np.partition(scores, -count)[-count]
      columns, scores = columns[scores >= least], scores[scores >= least]
    order = np.lexsort((-columns if self._later else columns, -scores))
    return columns[order[:count]]

  @property
  def _later(self) -> bool:
    return self.ties == 'later'


def recall(
  rankings: Callable[[int], tuple[Ranking, np.ndarray]],
  queries: int,
  cutoffs: np.ndarray,
) -> np.ndarray:
  """Share of the relevant candidates among the first k, in percent.

  Args:
    rankings: query number -> (its ranking, columns of relevant items).
    queries: how many there are; those without a relevant candidate are left
      out of the mean.
    cutoffs: int [m], k.

  Returns:
    float64 [m], the mean over queries; NaN if none has a relevant candidate.
  """
  rows = []
  for query in range(queries):
    ranking, relevant = rankings(query)
    places = ranking.places(relevant)
    places = places[places > 0]
    if len(places):
      rows.append((places[:, None] <= cutoffs).mean(axis=0))
  if not rows:
    return np.full(len(cutoffs), np.nan)
  return 100 * np.mean(rows, axis=0)
