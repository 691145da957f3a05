# SPDX-License-Identifier: Apache-2.0
"""Compares query videos with a large collection, each pair by the network.

The loop of S2VS and HAP-VR (`evaluation.py`) scores one pair at a time. Here
queries are encoded once and are on every device, targets stream past in batches
of like length, each device compares its own with all queries, and every shard
of scores is a file, so that a killed search goes on (`copy_shards`). Hosts take
different shards and never wait for each other before the end.
"""

import dataclasses
import os
from typing import Any

from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.models import base
from vidret_jax.search import copy_pruning, copy_shards, copy_together
from vidret_jax.search import copy_reading as reading
from vidret_jax.search import copy_stages as stages
from vidret_jax.search.copy_plan import Options
from vidret_jax.search.moment_corpus import Watch


@dataclasses.dataclass(frozen=True)
class Found:
  """Scores of all pairs.

  Attributes:
    scores: float32 [q, v], larger is nearer; NaN: the query or the item is
      missing. Pairs that were not visited lie below all that were.
    visited: bool [q, v], pairs that the network compared; None: all there are.
    share: of the pairs with both videos, how many were visited.
  """

  scores: np.ndarray
  visited: np.ndarray | None
  share: float


def find(
  model: base.Retriever,
  mesh: Mesh,
  variables: Any,
  queries: reading.View,
  items: reading.View,
  options: Options | None = None,
  *,
  folder: str | os.PathLike | None = None,
  watch: Watch | None = None,
) -> Found:
  """Scores of all queries with all items; all processes call it together.

  Args:
    model: has `encode_query`, `encode_item`, `fine`, and `score` for `visit`
      below 1.
    mesh: the devices; each process uses its own.
    variables: of the model.
    queries: videos.
    items: videos.
    options: how they are compared.
    folder: keeps the scores of finished shards, for this search only; a killed
      search goes on from there. All processes must see it. None: scores are in
      memory only.
    watch: shows progress.

  Returns:
    The same on every process, to the bit for any number of devices and
    processes of one kind. (The compiler for GPUs tries algorithms and takes the
    fastest: sums may be added in another order in another process, unless
    XLA_FLAGS has `--xla_gpu_deterministic_ops=true`.)

  Raises:
    ValueError: videos that cannot be compared, or a score that is not finite.
    copy_shards.StaleScores: the folder is of another search, or damaged.
    copy_together.OthersFailed: another process has an error.
  """
  options = options or Options()
  reading.check(queries, 'queries')
  reading.check(items, 'items')
  sizes = [(x.regions, x.dim) for x in (queries, items)]
  if sizes[0][1] != sizes[1][1]:
    raise ValueError(
      f'queries have regions of {sizes[0][1]} values, items of {sizes[1][1]}: '
      'they come from different extractors.'
    )
  variables = sharding.fetch(variables)
  shards = None
  if folder is not None:
    about = copy_together.together(
      'looking at the videos',
      lambda: copy_shards.describe(model, variables, queries, items, options),
    )
    shards = copy_shards.Shards(folder, about)
  try:
    search = copy_together.together(
      'encoding queries',
      lambda: stages.Search(
        model, mesh, variables, queries, items, options, shards, watch
      ),
    )
    return _found(search, options)
  finally:
    if shards is not None:
      shards.close()


def _found(search: stages.Search, options: Options) -> Found:
  if options.visit == 1:
    return Found(search.stage('fine'), None, 1.0)
  coarse = search.stage('coarse')
  visited = copy_pruning.choose(coarse, options.visit)
  fine = search.stage('fine', visited)
  return Found(
    copy_pruning.fill(fine, coarse, visited),
    visited,
    float(visited.sum() / (~np.isnan(coarse)).sum()),
  )
