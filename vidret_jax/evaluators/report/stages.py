# SPDX-License-Identifier: Apache-2.0
"""What a ranking report shows of two stages: the order before and after."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from jax.sharding import Mesh
import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import arrange, costs, listing
from vidret_jax.evaluators.collecting import Collection
from vidret_jax.evaluators.report import asking
from vidret_jax.metrics import rerank
from vidret_jax.models.base import Retriever
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import exact, two_stage
from vidret_jax.search.programs import programs

# Of the table that compares the stages.
METRICS = ('R@1', 'R@5', 'R@10', 'MdR', 'MnR')


@dataclasses.dataclass(frozen=True)
class Stage:
  """A line of the table: accuracy after a stage, and what it costs.

  Attributes:
    name: what is scored with what.
    metrics: text to video, after this stage; None if it was not run.
    cost: of this stage alone, or None if it was not counted.
  """

  name: str
  metrics: Mapping[str, float] | None
  cost: costs.Cost | None


def rows(
  results: Mapping[str, float], cost: costs.Costs | None, k: int, items: int
) -> tuple[Stage, ...]:
  """Stages of an evaluation.

  Args:
    results: of the evaluator.
    cost: of each stage, or None.
    k: candidates per query.
    items: how many there are.
  """

  def metrics(prefix):
    return {n: results[f'{prefix}t2v_{n}'] for n in METRICS}

  part = [None] * 3
  if cost is not None:
    part = [cost.coarse, cost.rerank, cost.all_pairs]
  best = f'fine score of the best {min(k, items):,}'
  return (
    Stage(f'coarse score of all {items:,}', metrics('coarse_'), part[0]),
    Stage(best, metrics(''), part[1]),
    Stage(f'instead: fine score of all {items:,}', None, part[2]),
  )


def table(results: Mapping[str, float]) -> dict[str, dict[str, float]]:
  """direction -> metric -> value, of both stages together."""
  out = {}
  for direction in ('t2v', 'v2t'):
    start = f'{direction}_'
    out[direction] = {
      name.removeprefix(start): value
      for name, value in results.items()
      if name.startswith(start) and name != 't2v_shortlisted'
    }
    out[direction].pop('rsum', None)
  return out


def search(
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  items: Collection,
  queries: source_lib.Source,
  chosen: np.ndarray,
  item_of_query: np.ndarray,
  block: int,
  k: int,
) -> asking.Found:
  """Finds the best items of some queries; see `asking.search`.

  Args:
    model: scores the pairs.
    mesh: the devices.
    variables: of the model.
    items: with a store.
    queries: all of them.
    chosen: int64 [n], which to show.
    item_of_query: int64 [q].
    block: queries at a time.
    k: candidates per query.
  """
  source = bank_lib.Reordered(queries, chosen)
  size = bank_lib.block_size(block, len(queries), mesh)
  stream = bank_lib.encode(
    programs(model, mesh).encode_query, variables, source, size, mesh
  )
  parts = []
  for first, emb in stream:
    part = slice(first, first + size)
    column = arrange.cut(item_of_query[chosen], part, size, -1)
    given = (model, mesh, variables, emb, items.bank)
    own = exact.own_scores(*given, column, has_score=items.has_score)
    coarse, numbers = two_stage.shortlist(
      *given, max(k, asking.TOP), has_score=items.has_score
    )
    lists = listing.score(model, mesh, variables, items, emb, numbers[:, :k])
    own_fine = lists.of(column)
    listed = own_fine > -np.inf
    parts.append(
      (
        *order(numbers, coarse, lists.fine),
        np.where(listed, own_fine, own),
        listed,
      )
    )
  n = len(chosen)
  scores, best, place, own, listed = (
    np.concatenate(x)[:n] for x in zip(*parts)
  )
  return asking.Found(chosen, scores, best, own, None, place, listed)


def order(
  numbers: np.ndarray, coarse: np.ndarray, fine: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The first of both stages: candidates, then the others.

  Args:
    numbers: int [n, m], items in the order of the first stage; -1: none.
    coarse: [n, m], their coarse scores.
    fine: [n, k <= m], fine scores of the first k; -inf: not a candidate.

  Returns:
    (scores, item numbers, one-based places by the first stage), each [n, TOP]
    or fewer columns.
  """
  score = coarse.copy()
  later = np.ones(numbers.shape, np.int8)
  k = fine.shape[1]
  later[:, :k] = fine == -np.inf
  score[:, :k] = np.where(later[:, :k], coarse[:, :k], fine)
  later[numbers < 0] = 2
  best = np.lexsort((numbers, -score, later), axis=-1)[:, : asking.TOP]
  return (
    np.take_along_axis(score, best, 1),
    np.take_along_axis(numbers, best, 1),
    best + 1,
  )


def of_matrices(
  coarse: np.ndarray,
  final: np.ndarray,
  chosen: np.ndarray,
  item_of_query: np.ndarray,
  k: int,
) -> asking.Found:
  """The same from matrices [q, v] before and after re-ranking.

  Re-ranked scores are shown without the constant that lifts them.

  Args:
    coarse: before.
    final: after.
    chosen: int64 [n], queries to show.
    item_of_query: int64 [q].
    k: candidates per query.
  """
  place = np.argsort(np.argsort(-coarse[chosen], 1, kind='stable'), 1) + 1
  shown = final[chosen] - np.where(place <= k, np.float32(rerank.LIFT), 0)
  best = np.argsort(-final[chosen], 1, kind='stable')[:, : asking.TOP]
  own = item_of_query[chosen][:, None]
  return asking.Found(
    chosen,
    np.take_along_axis(shown, best, 1),
    best,
    np.take_along_axis(shown, own, 1)[:, 0],
    None,
    np.take_along_axis(place, best, 1),
    np.take_along_axis(place, own, 1)[:, 0] <= k,
  )
