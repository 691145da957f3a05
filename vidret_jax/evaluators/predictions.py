# SPDX-License-Identifier: Apache-2.0
"""Top-k tables in the form that challenge servers take (CE spec: 'Challenge').

A CSV file of integers: one row per query in the order of the split, the numbers
of the k most similar videos, best first.
"""

import csv
import os
import pathlib
import re
from typing import Any

import jax
from jax.sharding import Mesh

from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import base
from vidret_jax.models.base import Retriever
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import exact
from vidret_jax.search.programs import programs


def file_stem(text: str) -> str:
  """A file name without surprises: letters, digits, dot, dash, underscore."""
  return re.sub(r'[^A-Za-z0-9._-]+', '-', text).strip('.-') or 'retrieval'


def write(
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  path: str | pathlib.Path,
  k: int,
  *,
  items: Any,
  queries: source_lib.Source,
  block: int,
  change: Any,
) -> None:
  """Searches all queries, block by block, and writes the table.

  Args:
    model: scores the pairs.
    mesh: the devices.
    variables: of the model.
    path: of the CSV file; replaced only when the new one is complete.
    k: columns; fewer if there are fewer items.
    items: `collecting.Collection`.
    queries: what to search.
    block: queries at a time.
    change: edits local query batches.
  """
  path = pathlib.Path(path)
  size = bank_lib.block_size(block, len(queries), mesh)
  stream = bank_lib.encode(
    programs(model, mesh).encode_query, variables, queries, size, mesh, change
  )
  first_process = jax.process_index() == 0
  draft = path.with_name(path.name + '.part')
  if first_process:
    path.parent.mkdir(parents=True, exist_ok=True)
  with open(draft if first_process else os.devnull, 'w', newline='') as f:
    table = csv.writer(f)
    for start, emb in base.progress(
      stream, -(-len(queries) // size), 'predictions'
    ):
      _, numbers = exact.top_k(
        model, mesh, variables, emb, items.bank, k, has_score=items.has_score
      )
      table.writerows(numbers[: len(queries) - start].tolist())
  if first_process:
    draft.replace(path)
