# SPDX-License-Identifier: Apache-2.0
"""The compiled functions of a copy search; targets are split over devices.

Every device has all queries and compares them with its own targets: nothing is
sent between devices. Shapes are those of a block of queries and of a batch of
targets, so there is one program per pair of length buckets. Features may come
in 16 bit; models get float32.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vidret_jax import sharding
from vidret_jax.models import base


class Programs(NamedTuple):
  """Jitted functions of one model on the devices of one process.

  Attributes:
    queries: (variables, batch) -> embeddings, whole on every device.
    coarse: (variables, batch) -> what `score` reads of items, rows over
      devices.
    items: (variables, batch) -> embeddings, rows over devices.
    score: (variables, queries, items) -> coarse scores [v, q], rows over
      devices.
    fine: likewise, scores of the network.
    some: (variables, queries, items, query, item, count) -> [v, q]: `fine` for
      chosen pairs only, NaN elsewhere. Per device: unit u < count [] compares
      query [u] with the items [u, c] (places in the device's part); only units
      that are used cost time.
  """

  queries: Any
  coarse: Any
  items: Any
  score: Any
  fine: Any
  some: Any


@functools.lru_cache(maxsize=16)
def programs(model: base.Retriever, mesh: Mesh) -> Programs:
  """Functions of `model` on `mesh`, compiled once per process and shape.

  Args:
    model: the system.
    mesh: devices of this process.
  """
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)

  def wide(batch):
    return jax.tree.map(
      lambda x: (
        x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
      ),
      batch,
    )

  def apply(variables, *args, method, **options):
    return model.apply(variables, *args, method=method, **options)

  def per_device(call, *ins):
    return jax.jit(
      jax.shard_map(
        call,
        mesh=mesh,
        in_specs=tuple(x.spec for x in ins),
        out_specs=rows.spec,
        check_vma=False,
      )
    )

  def queries(variables, batch):
    return apply(variables, wide(batch), method='encode_query', train=False)

  def items(variables, batch):
    return apply(variables, wide(batch), method='encode_item', train=False)

  def coarse(variables, batch):
    emb = items(variables, batch)
    return {k: emb[k] for k in model.COARSE} if model.COARSE else emb

  def pairs(method):
    def call(variables, q, v):
      return apply(variables, q, v, method=method).T

    call.__name__ = method
    return per_device(call, whole, whole, rows)

  def some(variables, q, v, query, item, count):
    query, item, count = query[0], item[0], count[0]
    take = lambda tree, index: jax.tree.map(lambda x: x[index], tree)  # noqa: E731
    n = (len(jax.tree.leaves(v)[0]), len(jax.tree.leaves(q)[0]))

    def unit(u, out):
      one = jax.lax.dynamic_slice_in_dim(query, u, 1)
      found = apply(variables, take(q, one), take(v, item[u]), method='fine')
      return out.at[item[u], one[0]].set(found[0].astype(out.dtype))

    return jax.lax.fori_loop(0, count, unit, jnp.full(n, jnp.nan))

  return Programs(
    queries=jax.jit(queries, out_shardings=whole),
    coarse=per_device(coarse, whole, rows),
    items=per_device(items, whole, rows),
    score=pairs('score'),
    fine=pairs('fine'),
    some=per_device(some, whole, whole, rows, rows, rows, rows),
  )
