# SPDX-License-Identifier: Apache-2.0
"""What a ranking report shows where many clips answer a query."""

from collections.abc import Mapping
import dataclasses

import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.evaluators.report import asking
from vidret_jax.metrics import graded as graded_lib

# Of the table; what is missing in the results is left out.
METRICS = (*graded_lib.RECALLS, 'nDCG', 'mAP', 'mAP_binary')


@dataclasses.dataclass(frozen=True)
class Relevance:
  """What is known of all queries.

  Attributes:
    answers: per query, numbers of the right items.
    graded: float [q, v] in [0, 1], or None.
    ndcg: float [q], fractions, or None.
    levels: name -> scores [q, v].
  """

  answers: tuple[np.ndarray, ...]
  graded: np.ndarray | None
  ndcg: np.ndarray | None
  levels: Mapping[str, np.ndarray]

  def of(self, query: int, item: int) -> float | None:
    """Relevance of one pair."""
    return None if self.graded is None else float(self.graded[query, item])

  def scores(self, query: int, item: int) -> tuple[tuple[str, float], ...]:
    """(level, score) of one pair."""
    return tuple((k, float(x[query, item])) for k, x in self.levels.items())


def search(
  sim_qv: np.ndarray,
  chosen: np.ndarray,
  relevance: Relevance,
  truth: source_lib.GroundTruth,
) -> tuple[asking.Found, source_lib.GroundTruth]:
  """The best items of some queries, from the scores of all.

  Args:
    sim_qv: [q, v].
    chosen: int64 [n], queries to show.
    relevance: of all queries.
    truth: of all queries.

  Returns:
    (see `asking.search`, the truth whose items of the chosen queries are their
    best scored answers).
  """
  sims = np.asarray(sim_qv[chosen])
  right = truth.item_of_query.copy()
  for row, query in zip(sims, chosen.tolist()):
    items = relevance.answers[query]
    if len(items):
      right[query] = items[np.argmax(row[items])]
  best = np.argsort(-sims, axis=1, kind='stable')[:, : asking.TOP]
  found = asking.Found(
    query=chosen,
    scores=np.take_along_axis(sims, best, 1),
    items=best,
    own=sims[np.arange(len(chosen)), right[chosen]],
    weights=None,
  )
  return found, dataclasses.replace(truth, item_of_query=right)


def table(results: Mapping[str, float]) -> dict[str, dict[str, float]]:
  """direction -> metric -> value."""
  return {
    direction: {
      name: results[f'{direction}_{name}']
      for name in METRICS
      if f'{direction}_{name}' in results
    }
    for direction in ('t2v', 'v2t')
  }
