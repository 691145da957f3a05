# SPDX-License-Identifier: Apache-2.0
"""Asks the model for what a report shows of some queries."""

import dataclasses
from typing import Any

from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import arrange
from vidret_jax.models.base import Retriever
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import exact
from vidret_jax.search.programs import programs

TOP = 5


@dataclasses.dataclass(frozen=True)
class Found:
  """What the model says of some queries.

  Attributes:
    query: int64 [n], their numbers.
    scores: [n, k] of the best items, best first.
    items: int [n, k], their numbers.
    own: [n], scores of the right items.
    weights: float [n, m] over experts, or None if the system has none.
    coarse_place: int [n, k], one-based places of the items by a first stage; or
      None if there is one stage.
    own_listed: bool [n], the right item is a candidate of the second stage; or
      None.
  """

  query: np.ndarray
  scores: np.ndarray
  items: np.ndarray
  own: np.ndarray
  weights: np.ndarray | None
  coarse_place: np.ndarray | None = None
  own_listed: np.ndarray | None = None


def search(
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  items: Any,
  queries: source_lib.Source,
  chosen: np.ndarray,
  item_of_query: np.ndarray,
  change: Any,
  block: int,
) -> Found:
  """Finds the best items of some queries, and the scores of the right ones.

  Args:
    model: scores the pairs.
    mesh: the devices.
    variables: of the model.
    items: `evaluators.collecting.Collection`.
    queries: all of them.
    chosen: int64 [n], which to show.
    item_of_query: int64 [q].
    change: edits local query batches; gets numbers among all queries.
    block: queries at a time; that of the evaluation needs no compilation.
  """
  p, bank = programs(model, mesh), items.bank
  source = bank_lib.Reordered(queries, chosen)
  size = bank_lib.block_size(block, len(queries), mesh)

  def place(batch, rows):
    return change(batch, bank_lib.lookup(chosen, rows))

  scores, numbers, own, weights = [], [], [], []
  stream = bank_lib.encode(p.encode_query, variables, source, size, mesh, place)
  for first, emb in stream:
    found = exact.top_k(
      model, mesh, variables, emb, bank, TOP, has_score=items.has_score
    )
    scores.append(found[0])
    numbers.append(found[1])
    part = slice(first, first + size)
    column = arrange.cut(item_of_query[chosen], part, size, -1)
    own.append(
      exact.own_scores(
        model, mesh, variables, emb, bank, column, has_score=items.has_score
      )
    )
    if 'weights' in emb:
      whole = sharding.fetch(emb['weights'])
      # Several captions per query, averaged by the score: average them here.
      weights.append(whole.reshape(size, -1, whole.shape[-1]).mean(1))
  n = len(chosen)
  return Found(
    query=chosen,
    scores=np.concatenate(scores)[:n],
    items=np.concatenate(numbers)[:n],
    own=np.concatenate(own)[:n],
    weights=np.concatenate(weights)[:n] if weights else None,
  )
