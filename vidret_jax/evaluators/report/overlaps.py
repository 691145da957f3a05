# SPDX-License-Identifier: Apache-2.0
"""How well found spans agree with the truth, as numbers to show."""

import dataclasses
from typing import Any

import numpy as np

from vidret_jax.metrics import moments as moments_lib

HIT = moments_lib.THRESHOLDS[0]  # The least overlap that counts.


@dataclasses.dataclass(frozen=True)
class Judged:
  """What is known of all queries.

  Attributes:
    listed: float32 [q, n], IoU of the rows of all videos, 0 in other videos
      and where there is no row; or None.
    own: float32 [q, n], IoU of the rows of the right video, or None.
    video_ranks: float [q], zero-based places of the right videos; infinite if
      not listed; or None.
    best: (name, best IoU [q] of the first rows) of each list and depth.
  """

  listed: np.ndarray | None = None
  own: np.ndarray | None = None
  video_ranks: np.ndarray | None = None
  best: tuple[tuple[str, np.ndarray], ...] = ()

  def first(self, query: int) -> tuple[float | None, int | None]:
    """(IoU of the first row, one-based place of the first hit) of a query."""
    rows = self.own if self.listed is None else self.listed
    if rows is None or not rows.shape[1]:
      return None, None
    hits = np.flatnonzero(reaches(rows[query], HIT))
    return float(rows[query, 0]), int(hits[0]) + 1 if len(hits) else None


def judge(found: Any, truth: moments_lib.Truth | None) -> Judged:
  """Compares all rows with the truth.

  Args:
    found: `search.moments.Found`.
    truth: of all queries, or None where it is hidden.
  """
  if truth is None:
    return Judged()
  right, ranks = np.asarray(truth.items)[:, None], None
  if found.videos is not None:
    here = found.videos == right
    ranks = np.where(here.any(1), here.argmax(1), np.inf)
  if truth.spans is None:
    return Judged(video_ranks=ranks)
  listed = own = None
  best = []
  if found.items is not None:
    listed = np.where(found.items == right, iou(found.spans, truth), 0)
    best += [('VCMR R@1', listed[:, :1]), ('VCMR R@10', listed[:, :10])]
  if found.own_spans is not None:
    own = np.where(found.own_scores > 0, iou(found.own_spans, truth), 0)
    best.append(('SVMR R@1', own[:, :1]))
  best = tuple((name, x.max(1, initial=0)) for name, x in best)
  return Judged(listed, own, ranks, best)


def reaches(overlap: Any, threshold: float) -> Any:
  """Whether IoUs make a hit: compared in float32, equal is enough."""
  return np.asarray(overlap, np.float32) >= np.float32(threshold)


def true_spans(truth: moments_lib.Truth | None, query: int) -> np.ndarray:
  """float [a, 2], what each annotator of a query says, in seconds."""
  if truth is None or truth.spans is None:
    return np.zeros((0, 2))
  spans = np.asarray(truth.spans[query])
  return spans if truth.annotators is None else spans[truth.annotators[query]]


def iou(spans: np.ndarray, truth: moments_lib.Truth) -> np.ndarray:
  """Overlap that decides whether a span is a hit.

  Of several annotators two have to agree, so it is the second best one.

  Args:
    spans: float [q, n, 2], seconds.
    truth: of the same queries.

  Returns:
    float32 [q, n].
  """
  spans = np.asarray(spans, np.float32)
  true = np.asarray(truth.spans, np.float32)
  valid = truth.annotators
  if valid is None:
    valid = np.ones(true.shape[:2], bool)
  best = second = np.zeros(spans.shape[:2], np.float32)
  for i in range(true.shape[1]):
    one = moments_lib.hull_iou(spans, true[:, None, i])
    one = np.where(valid[:, None, i], np.nan_to_num(one), 0)
    second = np.maximum(second, np.minimum(best, one))
    best = np.maximum(best, one)
  return np.where(valid.sum(1)[:, None] > 1, second, best)
