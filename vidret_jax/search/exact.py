# SPDX-License-Identifier: Apache-2.0
"""Exact top-k of a collection of any size: memory is O(block + k)."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.models import base
from vidret_jax.search.bank import Bank
from vidret_jax.search.programs import programs

Score = Callable[[Any, Any, Any, int], jax.Array]


def start_top(rows: int, k: int, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
  """An empty top-k: scores -inf and item numbers -1, both [rows, k]."""
  share = rows // jax.process_count()
  return sharding.put_batch(
    (
      np.full((share, k), -np.inf, np.float32),
      np.full((share, k), -1, np.int32),
    ),
    mesh,
  )


def top_k(
  model: base.Retriever,
  mesh: Mesh,
  variables: Any,
  queries: Any,
  items: Bank,
  k: int,
  *,
  has_score: np.ndarray | None = None,
  approximate: bool = False,
  score: Score | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The best k items of every query of one block.

  Args:
    model: scores the pairs.
    mesh: the devices.
    variables: of the model.
    queries: embeddings of a block of queries, rows over the devices.
    items: the collection.
    k: how many; fewer come back if the collection is smaller.
    has_score: bool [items.rows], False puts an item last; default all True.
    approximate: see `ops.ranking.merge_top`.
    score: (variables, queries, block of items, its number) -> [q, v], in place
      of the model's.

  Returns:
    (scores float32 [q, k], item numbers int32 [q, k]), best first, equal scores
    by item number, on every host.

  Raises:
    ValueError: k is not positive.
  """
  if k < 1:
    raise ValueError(f'k={k}: expected at least 1.')
  p = programs(model, mesh)
  k = min(k, items.rows)
  best = None
  for i in range(len(items)):
    block = items.block(i)
    if score is None:
      sim_qv = p.score(variables, queries, block)
    else:
      sim_qv = score(variables, queries, block, i)
    if best is None:
      best = start_top(len(sim_qv), k, mesh)
    best = p.merge_top(
      best,
      sim_qv,
      np.int32(items.first(i)),
      items.mask(i),
      padded(has_score, items, i),
      approximate,
    )
  scores, numbers = sharding.fetch(best)
  if has_score is not None:
    scores = np.where(has_score[numbers], scores, -np.inf)
  return scores, numbers


def own_scores(
  model: base.Retriever,
  mesh: Mesh,
  variables: Any,
  queries: Any,
  items: Bank,
  column: np.ndarray,
  *,
  has_score: np.ndarray | None = None,
) -> np.ndarray:
  """Scores of one block of queries with one item each.

  Args:
    model: scores the pairs.
    mesh: the devices.
    variables: of the model.
    queries: embeddings of a block of queries, rows over the devices.
    items: the collection.
    column: int [q], number of each query's item; negative where there is none.
    has_score: see `top_k`.

  Returns:
    [q] on every host, exactly the values that `score` has in these places;
    -inf where there is no item.
  """
  p, own = programs(model, mesh), None
  for i in np.unique(column[column >= 0] // items.size).tolist():
    sim_qv = p.score(variables, queries, items.block(i))
    if own is None:
      own = np.full(len(column), -np.inf, sim_qv.dtype)
    here = np.where(column // items.size == i, column % items.size, -1)
    own = p.take_own(
      sim_qv, padded(has_score, items, i), here.astype(np.int32), own
    )
  if own is None:
    raise ValueError('none of these queries has an item.')
  return sharding.fetch(own)


def padded(has_score: np.ndarray | None, items: Bank, i: int) -> np.ndarray:
  """bool [items.size]: block i of `has_score`; padding counts as scored."""
  out = np.ones(items.size, bool)
  if has_score is not None:
    part = has_score[items.first(i) : items.first(i) + items.size]
    out[: len(part)] = part
  return out
