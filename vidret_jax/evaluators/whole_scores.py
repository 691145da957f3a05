# SPDX-License-Identifier: Apache-2.0
"""Scores of all pairs on the host, for metrics that need whole rankings.

Items are encoded once into a bank, queries once as they stream past. Where the
bank is larger than its budget, queries go to a bank as well and the blocks of
items are visited in groups that fit. Every process gets the whole matrix.
"""

import collections
from collections.abc import Iterator
import functools
import os
import tempfile
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import base, non_finite
from vidret_jax.evaluators.collecting import Collection
from vidret_jax.models.base import Retriever
from vidret_jax.search import bank as bank_lib
from vidret_jax.search.programs import programs

# Blocks given to the devices before the oldest is waited for.
_AHEAD = 2
# Of an item that could not be read: below all others.
_LAST = np.finfo(np.float32).min
SCORE = 'score'  # Where the scores that rank stand among those by level.


def collect(
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  items: Collection,
  queries: source_lib.Source,
  *,
  query_block: int,
  bank_bytes: int,
  score_bytes: int,
  levels: bool = False,
) -> dict[str, np.ndarray]:
  """Scores of all pairs.

  Args:
    model: scores the pairs.
    mesh: the devices.
    variables: of the model.
    items: see `collecting.collect`.
    queries: all of them.
    query_block: queries at a time.
    bank_bytes: of the queries that stay on the devices, if a bank is needed.
    score_bytes: matrices kept in memory; what is beyond is mapped from an
      unlinked temporary file.
    levels: also what `model.levels(queries, items)` gives.

  Returns:
    'score' and the levels -> float32 [q, v]; items without a score are last.

  Raises:
    non_finite.NonFiniteScore: of an item that has a score.
    OSError: the disk has no room for the matrices.
  """
  score, of_levels = programs(model, mesh).score, None
  if levels:
    of_levels = _levels(model, mesh)
  shape, out = (len(queries), len(items.ids)), {}
  pending = collections.deque()

  def take():
    rows, i, found = pending.popleft()
    for name, block in sharding.fetch(found).items():
      if name not in out:
        used = sum(x.nbytes for x in out.values())
        out[name] = empty(shape, score_bytes - used)
      part = out[name][rows, items.bank.slice(i)]
      part[:] = block[: part.shape[0], : part.shape[1]]
      has = items.has_score[items.bank.slice(i)]
      if not np.isfinite(part[:, has]).all():
        _raise(part, has, queries, items, rows.start, items.bank.first(i))
      part[:, ~has] = _LAST

  blocks = _blocks(
    model, mesh, variables, items.bank, queries, query_block, bank_bytes
  )
  for rows, emb, i, block in blocks:
    found = {SCORE: score(variables, emb, block)}
    if of_levels is not None:
      found |= of_levels(variables, emb, block)
    pending.append((rows, i, found))
    if len(pending) > _AHEAD:
      take()
  while pending:
    take()
  return out


def _blocks(
  model, mesh, variables, bank, queries, wanted, bank_bytes
) -> Iterator[tuple[slice, Any, int, Any]]:
  """(query rows, embeddings, number of a block of items, embeddings)."""
  size = bank_lib.block_size(wanted, len(queries), mesh)
  stream = bank_lib.encode(
    programs(model, mesh).encode_query, variables, queries, size, mesh
  )
  total = -(-len(queries) // size)
  if bank.group_size >= len(bank):
    (group,) = bank.groups()
    for first, emb in base.progress(stream, total, 'pairs'):
      for i, block in group:
        yield slice(first, first + size), emb, i, block
    return
  asked = bank_lib.Bank(
    size, len(queries), sharding.batch_sharding(mesh), bank_bytes
  )
  for _, emb in base.progress(stream, total, 'queries'):
    asked.append(emb)
  groups = -(-len(bank) // bank.group_size)
  steps = ((g, b) for g in bank.groups() for b in range(len(asked)))
  for group, b in base.progress(steps, groups * len(asked), 'pairs'):
    emb = asked.block(b)
    for i, block in group:
      yield asked.slice(b), emb, i, block


@functools.lru_cache(maxsize=16)
def _levels(model: Retriever, mesh: Mesh):
  def levels(variables, queries, items):
    return model.apply(variables, queries, items, method='levels')

  return jax.jit(levels, out_shardings=sharding.batch_sharding(mesh))


def _raise(part, has, queries, items, first_query, first_item):
  raise non_finite.NonFiniteScore(
    non_finite.explain(
      part,
      np.broadcast_to(has, part.shape),
      queries.ids[first_query:],
      items.ids[first_item:],
      None if items.available is None else items.available[first_item:],
    )
  )


def empty(shape: tuple[int, int], budget: int) -> np.ndarray:
  """A float32 matrix in memory, or mapped if it is larger than the budget.

  Raises:
    OSError: the disk has no room for it.
  """
  size = 4 * shape[0] * shape[1]
  if size <= max(budget, 0):
    return np.empty(shape, np.float32)
  with tempfile.TemporaryFile(prefix='vidret_scores_') as file:
    try:
      # Else a full disk would end the process at the first write.
      os.posix_fallocate(file.fileno(), 0, size)
    except OSError as e:
      raise OSError(
        e.errno,
        f'{e.strerror}: scores of {shape[0]:,} queries and {shape[1]:,} items '
        f'need {size / 2**30:.2f} GiB in {tempfile.gettempdir()}. Point TMPDIR '
        'to a disk with room, or raise score_bytes of the evaluator to keep '
        'them in memory',
      ) from e
    return np.memmap(file, np.float32, 'r+', shape=shape)
