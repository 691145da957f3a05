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
    take_own: (sim_qv, has_score_v, column_q, before_q) -> [q].
    count: see `ops.ranking.count`; results are whole on every device.
    merge_top: see `ops.ranking.merge_top`.
  """

  encode_query: Any
  encode_item: Any
  score: Any
  take_own: Any
  count: Any
  merge_top: Any


@functools.lru_cache(maxsize=16)
def programs(model: base.Retriever, mesh: Mesh) -> Programs:
  """Functions of `model` on `mesh`, compiled once per process."""
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)

  def method(name, out):
    def call(variables, *args):
      keywords = {} if name == 'score' else {'train': False}
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
    take_own=jax.jit(take_own, out_shardings=whole),
    count=jax.jit(ranking.count, out_shardings=whole),
    merge_top=jax.jit(
      merge_top, out_shardings=rows, static_argnums=5, donate_argnums=0
    ),
  )
