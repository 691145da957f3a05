# SPDX-License-Identifier: Apache-2.0
"""What evaluators with a page of ranked clips share."""

from collections.abc import Mapping, Sequence
from typing import Any
import weakref

import jax
import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import base, predictions


def open_views(
  data: Mapping[str, Any] | None,
  queries: source_lib.Source | None,
  items: source_lib.Source | None,
  where: str,
) -> tuple[source_lib.Source, source_lib.Source]:
  """(queries, items): the sources given, or those that `data` names.

  Raises:
    ValueError: neither is there.
    FileNotFoundError: the dataset is not there; says how to prepare it.
  """
  if data is None and (queries is None or items is None):
    raise ValueError(
      f'evaluator {where!r} needs `data`, or both `queries` and `items`.'
    )
  if queries is None:
    queries = base.make_source(data, 'queries')
  if items is None:
    items = base.make_source(data, 'items')
  return queries, items


class Seen:
  """Remembers which variables numbers were made with, without keeping them."""

  def __init__(self):
    self._leaves: list[weakref.ref] = []

  def set(self, variables: Any) -> None:
    """Numbers were made with these."""
    self._leaves = [weakref.ref(x) for x in jax.tree.leaves(variables)]

  def same(self, variables: Any) -> bool:
    """Whether the last numbers were made with these very arrays."""
    leaves = jax.tree.leaves(variables)
    return 0 < len(leaves) == len(self._leaves) and all(
      ref() is x for ref, x in zip(self._leaves, leaves)
    )


def choose(
  queries: source_lib.Source,
  ids: Sequence[str] | None,
  count: int,
  seed: int,
) -> np.ndarray:
  """Numbers of the queries to show: int64 [n].

  Args:
    queries: all of them.
    ids: those to show; None: `count` of them are drawn.
    count: at most as many as there are.
    seed: of the draw.

  Raises:
    ValueError: an unknown id.
  """
  if ids is None:
    rng = np.random.default_rng(seed)
    return rng.choice(len(queries), min(count, len(queries)), replace=False)
  number = {name: i for i, name in enumerate(queries.ids)}
  unknown = [name for name in ids if name not in number]
  if unknown:
    raise ValueError(
      f'no query {unknown[0]!r}; ids look like {queries.ids[0]!r}.'
    )
  return np.array([number[name] for name in ids], np.int64)


def data_name(data: Mapping[str, Any] | None) -> str:
  """'<dataset>-<split>', fit for a file name."""
  data = data or {}
  parts = [str(data[key]) for key in ('name', 'split') if data.get(key)]
  return predictions.file_stem('-'.join(parts) or 'retrieval')
