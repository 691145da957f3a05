# SPDX-License-Identifier: Apache-2.0
"""A cheap score finds k candidates per query, a dear one puts them in order.

The first stage is `exact.top_k` on what `model.COARSE` names. The second scores
only the pairs of the short lists, in one of two ways. For few queries, the
items of each query are gathered and given to `rescore`. For many, every item
meets all queries that want it at once: 1000 queries with 50 of 1000 items each
would gather 60 GB of patches, this way each item is read about once. Both give
the same values up to rounding.
"""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any, Protocol

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.models import base
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import exact
from vidret_jax.search import programs as programs_lib
from vidret_jax.search import row_layout as layout_lib

# Bytes of items that one call of a compiled program is given.
UNIT_BYTES = 2**26
# Calls given to the devices before the oldest is waited for: they compute while
# the next items are read.
_AHEAD = 2
# An item meets at most so many queries at a time.
_MOST_QUERIES = 64
# Short lists that hold each item so often are scored item by item.
_OFTEN = 0.5


class Items(Protocol):
  """What the second stage needs: `store.FineStore` or `rows.RowFile`."""

  rows: int
  layout: layout_lib.Layout
  resident: Any

  def take(self, rows: np.ndarray) -> dict[str, Any]: ...


def split(
  emb: Mapping[str, Any], coarse: Sequence[str] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits embeddings of items.

  Args:
    emb: all of them.
    coarse: `model.COARSE`; None: the first stage reads everything.

  Returns:
    (what the first stage reads, the rest).

  Raises:
    ValueError: a key of `coarse` is absent.
  """
  if coarse is None:
    return dict(emb), {}
  absent = [key for key in coarse if key not in emb]
  if absent:
    raise ValueError(
      f'COARSE names {absent[0]!r}, but encode_item makes {sorted(emb)}.'
    )
  rest = {key: x for key, x in emb.items() if key not in coarse}
  return {key: emb[key] for key in coarse}, rest


def shortlist(
  model: base.Retriever,
  mesh: Mesh,
  variables: Any,
  queries: Any,
  coarse: bank_lib.Bank,
  k: int,
  *,
  has_score: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The k best items of every query by the first stage; see `exact.top_k`."""
  return exact.top_k(
    model, mesh, variables, queries, coarse, k, has_score=has_score
  )


def fine_scores(
  model: base.Retriever,
  mesh: Mesh,
  variables: Any,
  queries: Any,
  store: Items,
  numbers: np.ndarray,
  *,
  by: str | None = None,
  unit_bytes: int = UNIT_BYTES,
) -> np.ndarray:
  """Fine scores of chosen pairs.

  Nothing is compiled again for another block of as many queries and as long
  lists.

  Args:
    model: scores the pairs.
    mesh: the devices; the pairs are split over them.
    variables: of the model.
    queries: embeddings of a block of queries, leading axis [q], on the devices
      or (the same in every process) as numpy.
    store: the items.
    numbers: int [q, k], which items to score with each query; negative: none.
    by: 'item' or 'query', which of the two ways; default: the cheaper one.
    unit_bytes: items that a device program is given at a time.

  Returns:
    float32 [q, k] on every host; -inf where there is no item.

  Raises:
    ValueError: a number beyond the items, or lists for other queries.
  """
  numbers = np.asarray(numbers)
  rows = len(jax.tree.leaves(queries)[0])
  if numbers.ndim != 2 or len(numbers) != rows:
    raise ValueError(
      f'item numbers of shape {numbers.shape} for {rows} queries: expected '
      f'({rows}, k).'
    )
  if numbers.size and numbers.max() >= store.rows:
    raise ValueError(
      f'item {numbers.max()} is wanted of a store of {store.rows} items.'
    )
  out = np.full(numbers.size, -np.inf, np.float32)
  if not (numbers >= 0).any():
    return out.reshape(numbers.shape)
  if by is None:
    by = 'item' if numbers.size >= _OFTEN * store.rows else 'query'
  plan = _by_item if by == 'item' else _by_query
  units = plan(numbers, store, mesh, unit_bytes)
  program = programs_lib.pairs(model, mesh, store.layout.dtypes)
  if store.resident is not None:
    score = program.of_items_at if by == 'item' else program.of_queries_at
  else:
    score = program.of_items if by == 'item' else program.of_queries
  queries = _on_devices(queries, mesh)
  mine = source_lib.local_rows(
    units.size, jax.process_index(), jax.process_count()
  )
  pending = collections.deque()

  def finish():
    place, values = pending.popleft()
    values = sharding.fetch(values)
    out[place[place >= 0]] = values[place >= 0]

  for start in range(0, len(units.place), units.size):
    # Padding repeats a unit: no other item has to be read for it.
    index = np.arange(start, start + units.size)
    real = index < len(units.place)
    index = np.where(real, index, len(units.place) - 1)
    place = np.where(real[:, None], units.place[index], -1)
    item, query = units.item[index[mine]], units.query[index[mine]]
    if store.resident is not None:
      args = (store.resident, *sharding.put_batch((item, query), mesh))
    else:
      args = sharding.put_batch((_read(store, item), query), mesh)
    pending.append((place, score(variables, queries, *args)))
    if len(pending) > _AHEAD:
      finish()
  while pending:
    finish()
  return out.reshape(numbers.shape)


def order(
  fine: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Sorts short lists.

  Args:
    fine: float [q, k].
    numbers: int [q, k], the items they belong to; negative: none.

  Returns:
    (scores, numbers), best first, equal scores by item number, no item last.
  """
  absent = numbers < 0
  place = np.lexsort((numbers, -fine, absent), axis=-1)
  return (
    np.take_along_axis(fine, place, -1),
    np.take_along_axis(numbers, place, -1),
  )


def rerank(
  model: base.Retriever,
  mesh: Mesh,
  variables: Any,
  queries: Any,
  store: Items,
  numbers: np.ndarray,
  **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
  """Short lists in the order of the fine score: `order` of `fine_scores`."""
  numbers = np.asarray(numbers)
  return order(
    fine_scores(model, mesh, variables, queries, store, numbers, **options),
    numbers,
  )


@dataclasses.dataclass(frozen=True)
class _Units:
  """Work of one kind, to be done in calls of one shape.

  Attributes:
    item: int32 [n] or, query by query, [n, c].
    query: int32 [n, c] or [n].
    place: int64 [n, c], where each score goes; -1: nowhere.
    size: units of a call.
  """

  item: np.ndarray
  query: np.ndarray
  place: np.ndarray
  size: int


def _by_item(numbers, store, mesh, unit_bytes) -> _Units:
  """Units of one item and up to c of the queries that want it."""
  often = numbers.size / store.rows
  c = min(_MOST_QUERIES, len(numbers), 2 ** math.ceil(math.log2(max(often, 1))))
  flat = numbers.reshape(-1)
  pairs = np.argsort(flat, kind='stable')
  pairs = pairs[flat[pairs] >= 0]
  item = flat[pairs]
  at, first = np.arange(len(item)), np.r_[True, item[1:] != item[:-1]]
  # Place of each pair among those of its item.
  slot = (at - np.maximum.accumulate(np.where(first, at, 0))) % c
  unit = np.cumsum(slot == 0) - 1
  place = np.full((unit[-1] + 1, c), -1, np.int64)
  place[unit, slot] = pairs
  query = np.where(place >= 0, place // numbers.shape[1], 0)
  size = max(1, unit_bytes // max(store.layout.row_bytes, 1))
  return _Units(
    item=item[slot == 0].astype(np.int32),
    query=query.astype(np.int32),
    place=place,
    size=bank_lib.round_up(min(size, numbers.size), mesh),
  )


def _by_query(numbers, store, mesh, unit_bytes) -> _Units:
  """Units of one query and up to c of the items that it wants."""
  q, k = numbers.shape
  items = max(1, unit_bytes // max(store.layout.row_bytes, 1))
  parts = bank_lib.round_up(1, mesh)
  # A long list is split, for the bytes and to give every device some.
  c = max(1, min(k, items, -(-q * k // parts)))
  pieces = -(-k // c)
  padded = np.full((q, pieces * c), -1, numbers.dtype)
  padded[:, :k] = numbers
  place = np.arange(q)[:, None] * k + np.arange(pieces * c)
  place = np.where(padded >= 0, place, -1).reshape(q * pieces, c)
  # No item: the first of the unit again, which needs no further reading.
  item = padded.reshape(q * pieces, c)
  best = np.maximum(item.max(1, keepdims=True), 0)
  return _Units(
    item=np.where(item >= 0, item, best).astype(np.int32),
    query=np.repeat(np.arange(q, dtype=np.int32), pieces),
    place=place,
    size=bank_lib.round_up(min(max(1, items // c), q * pieces), mesh),
  )


def _read(store: Items, item: np.ndarray) -> dict[str, Any]:
  """Items [u, ...] or [u, c, ...] of a store that is not on the devices."""
  flat = store.take(item.reshape(-1))
  return jax.tree.map(lambda x: x.reshape(*item.shape, *x.shape[1:]), flat)


def _on_devices(queries: Any, mesh: Mesh) -> Any:
  where = sharding.replicated(mesh)
  return jax.tree.map(
    lambda x: (
      x
      if isinstance(x, jax.Array)
      else jax.make_array_from_process_local_data(where, np.asarray(x))
    ),
    queries,
  )
