# SPDX-License-Identifier: Apache-2.0
"""Evaluates a similarity matrix that was made elsewhere.

A matrix dressed as a system: the evaluator, its tables and its report then
work on the output of any other program.

  model, variables = matrix.retriever(sim_qv)
  queries, items = matrix.sources(item_of_query, ...)
  retrieval.Evaluator(model, mesh, queries=queries, items=items).run(variables)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.models import base as models_base


class MatrixRetriever(models_base.Retriever):
  """Looks similarities up; the matrix [q, v] is its only parameter."""

  def encode_query(self, batch, *, train=False):
    return {'number': batch['number']}

  def encode_item(self, batch, *, train=False):
    return {'number': batch['number']}

  def score(self, q, v):
    sim_qv = self.get_variable('params', 'sims')
    return sim_qv[q['number'][:, None], v['number'][None]]


def retriever(sim_qv: np.ndarray) -> tuple[MatrixRetriever, dict[str, Any]]:
  """The system and its variables."""
  return MatrixRetriever(), {'params': {'sims': np.asarray(sim_qv)}}


class _Numbered:
  """A source of row numbers."""

  spec = {'number': ((), np.dtype(np.int32)), '_mask': ((), np.dtype(bool))}

  def __init__(self, ids: Sequence[str]):
    self.ids = tuple(ids)

  def __len__(self) -> int:
    return len(self.ids)

  def gather(self, index, seeds):
    del seeds
    index = np.asarray(index)
    return {
      'number': np.maximum(index, 0).astype(np.int32),
      '_mask': index >= 0,
    }


class Items(_Numbered):
  """Columns of the matrix.

  Attributes:
    videos: a file per item, or None.
  """

  def __init__(self, ids, videos=None, captions=None):
    super().__init__(ids)
    self.videos = list(videos or [None] * len(self.ids))
    self._captions = captions or [[] for _ in self.ids]

  def captions(self, i: int) -> list[str]:
    return list(self._captions[i])


class Queries(_Numbered):
  """Rows of the matrix.

  Attributes:
    texts: what was asked.
  """

  def __init__(self, ids, texts, item_of_query, answers=None, graded=None):
    super().__init__(ids)
    self.texts = list(texts)
    self._item_of_query = np.asarray(item_of_query, np.int64)
    self._answers, self._graded = answers, graded

  def ground_truth(self, items: Items) -> source_lib.GroundTruth:
    return source_lib.GroundTruth(
      self.ids, items.ids, self._item_of_query, self._graded
    )

  def answers(self, items: Items) -> tuple[np.ndarray, ...]:
    """Per query, all right columns."""
    del items
    if self._answers is None:
      return tuple(self._item_of_query[:, None])
    return tuple(np.asarray(x, np.int64) for x in self._answers)


def sources(
  item_of_query: np.ndarray,
  item_ids: Sequence[str],
  *,
  texts: Sequence[str] | None = None,
  videos: Sequence[str | None] | None = None,
  captions: Sequence[Sequence[str]] | None = None,
  answers: Sequence[Sequence[int]] | None = None,
  graded: np.ndarray | None = None,
) -> tuple[Queries, Items]:
  """Sources for a matrix.

  Args:
    item_of_query: int [q], the right column of each row.
    item_ids: v names.
    texts: q queries; default: the item's caption in the same place.
    videos: v files, None where there is none.
    captions: v lists, all captions of each item.
    answers: q lists, all right columns of each row; default: `item_of_query`.
    graded: float [q, v], relevance in [0, 1].

  Returns:
    (queries, items); query ids are '<item id>#<place among its captions>'.
  """
  slot = np.zeros(len(item_of_query), np.int64)
  used = np.zeros(len(item_ids), np.int64)
  for q, item in enumerate(item_of_query):
    slot[q] = used[item]
    used[item] += 1
  ids = [f'{item_ids[v]}#{s}' for v, s in zip(item_of_query, slot)]
  if texts is None:
    known = captions or [[] for _ in item_ids]
    texts = [
      known[v][s] if s < len(known[v]) else name
      for v, s, name in zip(item_of_query, slot, ids)
    ]
  queries = Queries(ids, texts, item_of_query, answers, graded)
  return queries, Items(item_ids, videos, captions)
