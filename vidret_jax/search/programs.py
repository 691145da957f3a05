# SPDX-License-Identifier: Apache-2.0
"""The compiled functions of one system, shared by evaluation and search.

What is measured is what is served: evaluators, reports and search score with
the same compiled function. Variables are arguments, so new weights never
recompile.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vidret_jax import sharding
from vidret_jax.models import base
from vidret_jax.ops import ranking


class Programs(NamedTuple):
  """Jitted functions; queries are split over devices, items are whole on each.

  Attributes:
    encode_query: (variables, batch) -> embeddings, rows over devices.
    encode_item: (variables, batch) -> embeddings, whole on every device.
    score: (variables, queries, items) -> [q, v], rows over devices.
    fine: likewise, the dear score of all pairs.
    take_own: (sim_qv, has_score_v, column_q, before_q) -> [q].
    count: see `ops.ranking.count`; results are whole on every device.
    merge_top: see `ops.ranking.merge_top`.
  """

  encode_query: Any
  encode_item: Any
  score: Any
  fine: Any
  take_own: Any
  count: Any
  merge_top: Any


@functools.lru_cache(maxsize=16)
def programs(model: base.Retriever, mesh: Mesh) -> Programs:
  """Functions of `model` on `mesh`, compiled once per process."""
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)

  def method(name, out):
    def call(variables, *args):
      keywords = {'train': False} if name.startswith('encode') else {}
      return model.apply(variables, *args, method=name, **keywords)

    call.__name__ = name
    return jax.jit(call, out_shardings=out)

  def take_own(sim_qv, has_score_v, column_q, before_q):
    return ranking.take_own(
      ranking.sink(sim_qv, has_score_v), column_q, before_q
    )

  def merge_top(best, sim_qv, first, item_mask, has_score_v, approximate):
    # Lowest, yet before the -inf of places that hold no item.
    sim_qv = jnp.where(has_score_v, sim_qv, jnp.finfo(sim_qv.dtype).min)
    return ranking.merge_top(best, sim_qv, first, item_mask, approximate)

  return Programs(
    encode_query=method('encode_query', rows),
    encode_item=method('encode_item', whole),
    score=method('score', rows),
    fine=method('fine', rows),
    take_own=jax.jit(take_own, out_shardings=whole),
    count=jax.jit(ranking.count, out_shardings=whole),
    merge_top=jax.jit(
      merge_top, out_shardings=rows, static_argnums=5, donate_argnums=0
    ),
  )


class Pairs(NamedTuple):
  """Jitted fine scores of chosen pairs; the leading axis, of work units, is
  split over the devices, and so is the result.

  `queries` are embeddings of a block of queries, `store` those of all items.

  Attributes:
    of_items: (variables, queries, items [u], query numbers [u, c]) -> [u, c],
      one item with c queries in every unit.
    of_queries: (variables, queries, items [u, c], query numbers [u]) -> [u, c],
      one query with c items in every unit.
    of_items_at: of_items with (store, item numbers [u]) for the items.
    of_queries_at: of_queries with (store, item numbers [u, c]).
  """

  of_items: Any
  of_queries: Any
  of_items_at: Any
  of_queries_at: Any


@functools.lru_cache(maxsize=16)
def pairs(model: base.Retriever, mesh: Mesh, dtypes: tuple[str, ...]) -> Pairs:
  """Fine scores of `model` on `mesh`, compiled once per process and shape.

  Args:
    model: has `fine` and `rescore`.
    mesh: the devices.
    dtypes: of the leaves of an item as `fine` expects them; items may come in
      smaller types.
  """
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)

  def take(tree, index):
    return jax.tree.map(lambda x: x[index], tree)

  def everywhere(queries):
    return jax.lax.with_sharding_constraint(queries, whole)

  def widen(items):
    leaves, treedef = jax.tree.flatten(items)
    wide = [x.astype(jnp.dtype(d)) for x, d in zip(leaves, dtypes, strict=True)]
    return treedef.unflatten(wide)

  def of_items(variables, queries, items, query_uc):
    queries = everywhere(queries)

    def one(query_c, item):
      item = jax.tree.map(lambda x: x[None], widen(item))
      q = take(queries, query_c)
      return model.apply(variables, q, item, method='fine')[:, 0]

    return jax.vmap(one)(query_uc, items)

  def of_queries(variables, queries, items, query_u):
    q = take(everywhere(queries), query_u)
    return model.apply(variables, q, widen(items), method='rescore')['score']

  def at(score):
    def call(variables, queries, store, item, query):
      # Each device gathers the items of its own units.
      items = jax.lax.with_sharding_constraint(take(store, item), rows)
      return score(variables, queries, items, query)

    call.__name__ = f'{score.__name__}_at'
    return call

  def compiled(score):
    return jax.jit(score, out_shardings=rows)

  return Pairs(
    of_items=compiled(of_items),
    of_queries=compiled(of_queries),
    of_items_at=compiled(at(of_items)),
    of_queries_at=compiled(at(of_queries)),
  )
