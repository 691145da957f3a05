# SPDX-License-Identifier: Apache-2.0
"""What a query costs at each stage, as the compiler counts it.

Numbers come from compiled programs (`Compiled.cost_analysis`) for one query
asked alone: operations, and bytes read and written, those of fused operations
once. Encoding is not in them. Queries asked together share what is read of the
items, so an evaluation moves fewer bytes than the sum. Programs are compiled
for the CPU wherever there is one beside the accelerators: there the compiler
sees matrix products that on GPUs are calls into libraries, which it cannot
count.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from vidret_jax.models.base import Retriever
from vidret_jax.search import two_stage

# (device kind, method, shapes) -> (operations, bytes); compiling takes seconds.
_KNOWN: dict[Any, tuple[float, float]] = {}


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of one query.

  Attributes:
    mflop: million floating-point operations.
    mb: million bytes read and written.
  """

  mflop: float
  mb: float

  def __add__(self, other: 'Cost') -> 'Cost':
    return Cost(self.mflop + other.mflop, self.mb + other.mb)

  def __mul__(self, factor: float) -> 'Cost':
    return Cost(self.mflop * factor, self.mb * factor)


@dataclasses.dataclass(frozen=True)
class Costs:
  """Of a query among all items.

  Attributes:
    coarse: the cheap score of all items.
    rerank: the fine score of the short list.
    all_pairs: the fine score of all items, which two stages save.
  """

  coarse: Cost
  rerank: Cost
  all_pairs: Cost

  def results(self) -> dict[str, float]:
    """As an evaluator reports them; the shares are in percent."""
    out = {}
    for field in dataclasses.fields(self):
      cost = getattr(self, field.name)
      out[f'{field.name}_mflop_per_query'] = cost.mflop
      out[f'{field.name}_mb_per_query'] = cost.mb
    spent = self.coarse + self.rerank
    out['mflop_share'] = 100 * spent.mflop / max(self.all_pairs.mflop, 1e-30)
    out['mb_share'] = 100 * spent.mb / max(self.all_pairs.mb, 1e-30)
    return out


def measure(
  model: Retriever,
  variables: Any,
  query: Any,
  item: Any,
  items: int,
  k: int,
) -> Costs:
  """Costs of one query, from the shapes of embeddings.

  Args:
    model: scores the pairs.
    variables: of the model.
    query: shapes of the embedding of one query, without an axis of queries.
    item: likewise of one item.
    items: how many there are.
    k: length of a short list.
  """
  query = _stacked(query, (1,))
  coarse_item = two_stage.split(item, model.COARSE)[0]
  cost = functools.partial(_cost, model, _device(), variables)
  # Fine scores are counted for one item and multiplied: some systems go through
  # items in a loop, whose body the compiler counts once.
  return Costs(
    coarse=cost('score', query, _stacked(coarse_item, (items,))),
    rerank=cost('rescore', query, _stacked(item, (1, 1))) * k,
    all_pairs=cost('fine', query, _stacked(item, (1,))) * items,
  )


def embedding(
  model: Retriever, variables: Any, spec: Mapping[str, Any], method: str
) -> Any:
  """Shapes of the embedding of one example, without the axis of examples.

  Args:
    model: encodes it.
    variables: of the model.
    spec: of the source, see `data.source`.
    method: 'encode_query' or 'encode_item'.
  """
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((1, *x[0]), x[1]),
    dict(spec),
    is_leaf=lambda x: isinstance(x, tuple),
  )
  emb = jax.eval_shape(
    functools.partial(model.apply, method=method, train=False),
    variables,
    batch,
  )
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), emb)


def _device() -> jax.Device:
  try:
    return jax.local_devices(backend='cpu')[0]
  except RuntimeError:  # JAX_PLATFORMS leaves the CPU out.
    return jax.local_devices()[0]


def _cost(model, device, variables, method, queries, items) -> Cost:
  def call(variables, queries, items):
    out = model.apply(variables, queries, items, method=method)
    return out['score'] if method == 'rescore' else out

  shapes = _shapes((variables, queries, items))
  leaves, treedef = jax.tree.flatten(shapes)
  key = (
    model,
    device.device_kind,
    method,
    treedef,
    tuple((x.shape, str(x.dtype)) for x in leaves),
  )
  if key not in _KNOWN:
    where = jax.sharding.SingleDeviceSharding(device)
    compiled = jax.jit(call, out_shardings=where).lower(*shapes).compile()
    found = compiled.cost_analysis() or {}
    _KNOWN[key] = found.get('flops', 0.0), found.get('bytes accessed', 0.0)
  flops, read = _KNOWN[key]
  return Cost(flops / 1e6, read / 1e6)


def _stacked(tree, axes):
  """Shapes of one item as those of many."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype), tree
  )


def _shapes(tree):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      np.shape(x), jax.dtypes.canonicalize_dtype(x.dtype)
    ),
    tree,
  )
