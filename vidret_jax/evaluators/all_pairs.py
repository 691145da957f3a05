# SPDX-License-Identifier: Apache-2.0
"""Every pair of a collection scored at every level, as EERCF's evaluation does.

Whole matrices on the host: for numbers that must equal upstream's. A collection
of any size is evaluated by short lists instead, see `two_stage`.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import base, counting, non_finite
from vidret_jax.evaluators.collecting import Collection
from vidret_jax.metrics import caption_ranks, rerank
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.models.base import Retriever
from vidret_jax.search import bank as bank_lib
from vidret_jax.search.programs import programs

# Scores of an item that could not be read: below all others, and its own
# caption's lower still, so that it is ranked last and ties with none. Finite:
# upstream's metrics leave captions with an infinite own score out.
_LAST, _OWN_LAST = -1e30, -2e30


def score(
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  queries: source_lib.Source,
  items: Collection,
  names: tuple[str, ...],
  block: int,
) -> dict[str, np.ndarray]:
  """Scores of all pairs.

  Args:
    model: has `levels(q, v, names)`.
    mesh: the devices.
    variables: of the model.
    queries: all of them.
    items: whose bank holds whole embeddings.
    names: levels wanted.
    block: queries at a time.

  Returns:
    level -> float32 [q, v], rows in the order of `queries`.

  Raises:
    non_finite.NonFiniteScore: of an item that has a score.
  """
  program = _levels(model, mesh, names)
  out = {n: np.empty((len(queries), len(items.ids)), np.float32) for n in names}
  size = bank_lib.block_size(block, len(queries), mesh)
  stream = bank_lib.encode(
    programs(model, mesh).encode_query, variables, queries, size, mesh
  )
  for first, emb in base.progress(stream, -(-len(queries) // size), 'pairs'):
    for i in range(len(items.bank)):
      found = sharding.fetch(program(variables, emb, items.bank.block(i)))
      for name, sim_qv in found.items():
        part = out[name][first : first + size, items.bank.slice(i)]
        part[:] = sim_qv[: part.shape[0], : part.shape[1]]
  for sim_qv in out.values():
    if not np.isfinite(sim_qv[:, items.has_score]).all():
      raise non_finite.NonFiniteScore(
        non_finite.explain(
          sim_qv,
          np.broadcast_to(items.has_score, sim_qv.shape),
          queries.ids,
          items.ids,
          items.available,
        )
      )
  return out


@functools.lru_cache(maxsize=16)
def _levels(model: Retriever, mesh: Mesh, names: tuple[str, ...]):
  def levels(variables, queries, items):
    return model.apply(variables, queries, items, names, method='levels')

  return jax.jit(levels, out_shardings=sharding.batch_sharding(mesh))


@dataclasses.dataclass(frozen=True)
class Upstream:
  """Matrices of one evaluation as upstream has them; [q, v] each.

  Attributes:
    levels: name -> scores.
    coarse: scores before re-ranking, what upstream saves as `sim_matrix.npy`.
    fused: what the first pass of re-ranking writes.
    final: after re-ranking.
    item_of_query: int64 [q].
    unreadable: int [n], items ranked last.
  """

  levels: Mapping[str, np.ndarray]
  coarse: np.ndarray
  fused: np.ndarray
  final: np.ndarray
  item_of_query: np.ndarray
  unreadable: np.ndarray

  def dual_softmax(self, k: int, tau: float) -> np.ndarray:
    """Re-ranked once, coarse and fused scores weighed by `dual_softmax`."""
    coarse, fused = (
      _sunk(rerank.dual_softmax(x, tau), self.item_of_query, self.unreadable)
      for x in (self.coarse, self.fused)
    )
    return rerank.put(coarse, fused + np.float32(rerank.LIFT), k)


def groups_of(model: Retriever):
  """Weights of the first pass: those of the model's loss (upstream's flags)."""
  given = dict(getattr(model, 'loss_weights', ()))
  if not given:
    return rerank.FIRST
  return tuple(
    (given[name], {level: given[level] for level in weights})
    for name, (_, weights) in zip(('weak', 'strong'), rerank.FIRST)
  )


def weights_of(model: Retriever) -> dict[str, float]:
  """Weights of the second pass: those that order the model's short lists."""
  given = dict(getattr(model, 'rank_weights', ())) or rerank.FINAL
  # Upstream's order of summation.
  names = sorted(given, key=lambda n: (n not in rerank.FINAL, *_place(n)))
  return {n: given[n] for n in names if given[n]}


def _place(name):
  known = list(rerank.FINAL)
  return (known.index(name),) if name in known else (len(known), name)


def levels_of(model: Retriever) -> tuple[str, ...]:
  """The levels that the two passes read."""
  used = {'video', *weights_of(model)}
  for weight, weights in groups_of(model):
    used |= {n for n, w in weights.items() if w and weight}
  return tuple(n for n in rerank.LEVELS if n in used)


def evaluate(
  levels: Mapping[str, np.ndarray],
  item_of_query: np.ndarray,
  unreadable: np.ndarray,
  k: int,
  model: Retriever,
  general: bool,
) -> Upstream:
  """Re-ranks as upstream does.

  Args:
    levels: see `score`.
    item_of_query: int64 [q].
    unreadable: int [n], items to be ranked last.
    k: length of the short lists, 0 for all.
    model: weights of the levels.
    general: see `rerank.two_pass`.
  """
  levels = {n: _sunk(x, item_of_query, unreadable) for n, x in levels.items()}
  fused = _sunk(
    rerank.fuse_groups(levels, groups_of(model)), item_of_query, unreadable
  )
  final = rerank.two_pass(
    levels['video'],
    fused,
    levels,
    k,
    weights=weights_of(model),
    general=general,
  )
  return Upstream(
    levels, levels['video'], fused, final, item_of_query, unreadable
  )


def _sunk(sim_qv, item_of_query, unreadable):
  if not len(unreadable):
    return sim_qv
  sim_qv = sim_qv.copy()
  sim_qv[:, unreadable] = _LAST
  own = np.flatnonzero(np.isin(item_of_query, unreadable))
  sim_qv[own, item_of_query[own]] = _OWN_LAST
  return sim_qv


def results(
  matrices: Mapping[str, np.ndarray], item_of_query: np.ndarray, form: str
) -> dict[str, float]:
  """Metrics of some matrices: {'<prefix><direction>_<metric>': value}."""
  out = {}
  for prefix, sim_qv in matrices.items():
    rows = caption_ranks.evaluate(sim_qv, item_of_query, form)
    for direction, row in rows.items():
      for name, value in row.items():
        out[f'{prefix}{direction}_{name}'] = value
  return out


def ranks(sim_qv: np.ndarray, item_of_query: np.ndarray) -> counting.Ranks:
  """Ranks of each query and each item, for charts; ties at their mean place."""
  stacked = caption_ranks.by_video(sim_qv, item_of_query)
  return counting.Ranks(
    ranks_lib.text_to_video(sim_qv, item_of_query),
    caption_ranks.diagonal_ranks(caption_ranks.video_to_text(stacked)),
  )
