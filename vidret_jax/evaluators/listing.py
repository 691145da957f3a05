# SPDX-License-Identifier: Apache-2.0
"""Makes short lists of queries and of items, and ranks by them.

Per query (or item) k numbers and k scores are kept, nothing for all pairs.
Queries are numbered by their places in the counter's layout, in which captions
of one item stand side by side.
"""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import (
  arrange,
  base,
  counting,
  non_finite,
  short_lists,
)
from vidret_jax.evaluators.collecting import Collection
from vidret_jax.evaluators.counting import Queries
from vidret_jax.models.base import Retriever
from vidret_jax.search import exact, two_stage
from vidret_jax.search import store as store_lib
from vidret_jax.search.bank import Bank
from vidret_jax.search.programs import programs


@dataclasses.dataclass(frozen=True)
class Ranked:
  """What `rank` finds.

  Attributes:
    coarse: ranks by the first stage alone.
    final: ranks by both.
    listed: bool [q], queries whose own item is on their list.
    asked: the queries, encoded.
  """

  coarse: counting.Ranks
  final: counting.Ranks
  listed: np.ndarray
  asked: Queries


def rank(
  counter: counting.Counter,
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  items: Collection,
  queries: source_lib.Source,
  item_of_query: np.ndarray,
  k: int,
  item_k: int = 0,
  bank_bytes: int = 0,
) -> Ranked:
  """Ranks all queries and items by one stage and by two.

  Args:
    counter: of ranks, for this model and mesh.
    model: scores the pairs.
    mesh: the devices.
    variables: of the model.
    items: with a store.
    queries: what to rank.
    item_of_query: int64 [q].
    k: candidates of a query.
    item_k: candidates of an item; 0: the queries whose candidate it is.
    bank_bytes: of embeddings of queries, if items have candidates.

  Raises:
    non_finite.NonFiniteScore: a score without a place.
  """
  layout = counter.layout(item_of_query)
  texts = None
  if item_k:
    texts = store_lib.FineStore(len(layout), mesh, bank_bytes)
  found = []

  def look(first, emb):
    del first
    _, numbers = two_stage.shortlist(
      model, mesh, variables, emb, items.bank, k, has_score=items.has_score
    )
    found.append(score(model, mesh, variables, items, emb, numbers))
    if texts is not None:
      texts.append(emb)

  asked = counter.ask(
    variables, items, queries, item_of_query, layout, None, look
  )
  rows = short_lists.Lists(
    np.concatenate([x.numbers for x in found])[: len(layout)],
    np.concatenate([x.fine for x in found])[: len(layout)],
  )
  rows.numbers[~asked.mask] = -1
  _check(rows, asked.ids, items.ids)
  columns = None
  if texts is not None:
    columns = of_items(model, mesh, variables, items, asked, item_k, texts)
  own = rows.of(asked.column)
  # Own fine scores as the items see them.
  seen = own
  if columns is not None:
    seen = columns.back(asked.column)
  best = np.full(len(items.ids), -np.inf, np.float32)
  np.maximum.at(best, asked.column[asked.mask], seen[asked.mask])
  stages = short_lists.Stages(asked, items, rows, columns, own, best)
  coarse, final = counter.count(variables, items, asked, layout, (None, stages))
  listed = np.zeros(len(item_of_query), bool)
  listed[layout[asked.mask]] = own[asked.mask] > -np.inf
  return Ranked(coarse, final, listed, asked)


def score(
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  items: Collection,
  queries: Any,
  numbers: np.ndarray,
) -> short_lists.Lists:
  """Fine scores of the candidates of one block of queries.

  Args:
    model: scores the pairs.
    mesh: the devices.
    variables: of the model.
    items: with a store.
    queries: embeddings, leading axis [q].
    numbers: int32 [q, k], candidates; -1: none.

  Returns:
    The lists, without candidates that have no score.
  """
  scored = (numbers >= 0) & items.has_score[np.maximum(numbers, 0)]
  numbers = np.where(scored, numbers, -1)
  fine = two_stage.fine_scores(
    model, mesh, variables, queries, items.store, numbers
  )
  return short_lists.Lists(numbers, fine)


def of_items(
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  items: Collection,
  asked: Queries,
  k: int,
  texts: store_lib.FineStore,
) -> short_lists.Lists:
  """Short lists of the items: the k queries nearest to each.

  Args:
    model: scores the pairs.
    mesh: the devices.
    variables: of the model.
    items: with a store.
    asked: the queries.
    k: length of the lists.
    texts: embeddings of the queries, by place.

  Raises:
    non_finite.NonFiniteScore: a fine score without a place.
  """
  p, bank = programs(model, mesh), items.bank
  k = min(k, int(asked.mask.sum()))
  numbers, fine = [], []
  blocks = base.progress(range(len(bank)), len(bank), 'lists of videos')
  for i in blocks:
    emb, part, best = bank.block(i), bank.slice(i), None
    everyone = np.ones(asked.bank.size, bool)
    for b in range(len(asked.bank)):
      sim_vq = p.score(variables, asked.bank.block(b), emb).T
      if best is None:
        best = exact.start_top(len(sim_vq), k, mesh)
      first = np.int32(asked.bank.first(b))
      mask = arrange.cut(
        asked.mask, asked.bank.slice(b), asked.bank.size, False
      )
      best = p.merge_top(best, sim_vq, first, mask, everyone, False)
    _, found = sharding.fetch(best)
    scored = arrange.cut(items.has_score, part, bank.size, False)
    found = np.where(scored[:, None], found, -1)
    numbers.append(found)
    fine.append(
      _score_lists(model, mesh, variables, items, bank, i, found, texts)
    )
  v = len(items.ids)
  lists = short_lists.Lists(
    np.concatenate(numbers)[:v], np.concatenate(fine)[:v]
  )
  _check(lists, items.ids, asked.ids)
  return lists


def _score_lists(
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  items: Collection,
  bank: Bank,
  i: int,
  found: np.ndarray,
  texts: store_lib.FineStore,
) -> np.ndarray:
  """Fine scores [size, k] of block i of the items with the texts on its lists.

  Every place of a list becomes a query with one item, which the search scores
  item by item.
  """
  place = np.maximum(found, 0).reshape(-1)
  item = np.arange(bank.first(i), bank.first(i) + bank.size)
  item = np.where(found >= 0, item[:, None], -1).reshape(-1, 1)
  queries = jax.tree.map(
    lambda x, dtype: x.astype(dtype),
    texts.take(place),
    texts.layout.tree(texts.layout.dtypes),
  )
  fine = two_stage.fine_scores(
    model, mesh, variables, queries, items.store, item, by='item'
  )
  return fine.reshape(found.shape)


def _check(lists: short_lists.Lists, row_ids, candidate_ids) -> None:
  bad = (lists.numbers >= 0) & ~np.isfinite(lists.fine)
  if bad.any():
    n, j = (int(x[0]) for x in np.nonzero(bad))
    candidate = candidate_ids[lists.numbers[n, j]]
    raise non_finite.NonFiniteScore(
      f'fine score of {row_ids[n]!r} and {candidate!r} is '
      f'{lists.fine[n, j]}; it has no place ({bad.sum()} such scores). Look '
      'for NaN in the weights (a diverged run?) and in the data of these two.'
    )
