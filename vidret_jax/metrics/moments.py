# SPDX-License-Identifier: Apache-2.0
"""Recall of moments: video corpus, single video and video retrieval (TVR).

The protocol of TVR (Lei et al., arXiv 2001.09099; upstream's
`standalone_eval/eval.py`, which ReLoCLNet took over):

VCMR  find video and moment: a row is right if it names the video of the query
      and its span overlaps the true one enough.
SVMR  find the moment: rows of other videos are left out FIRST, then the k best
      of the rest count.
VR    find the video.

Overlap is intersection over hull: the union where spans overlap, 0 otherwise.
It is computed and compared in float32, and an overlap equal to the threshold
is enough. With several annotators (DiDeMo) two of them have to agree. Only the
first `LIMIT` rows of a query are looked at; a query without rows is a miss.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

TASKS = ('VCMR', 'SVMR', 'VR')
KINDS = ('v', 't', 'vt')  # A query is about the video, the subtitle, or both.
THRESHOLDS = (0.5, 0.7)
CUTOFFS = (1, 10, 100)
LIMIT = 100
RATIO = 'desc_type_ratio'
_AGREE = 2  # Annotators, where there are that many.
_NEVER = np.iinfo(np.int64).max


class Lists(NamedTuple):
  """What was found for each query, best first.

  Attributes:
    items: int [q, n], videos, numbered as those of the truth are.
    valid: bool [q, n], False where there is no row.
    spans: float32 [q, n, 2], start and end in seconds; None for VR.
    scores: float32 [q, n], only written and read, never judged.
    counted: bool [q], queries to average over; None for all.
  """

  items: np.ndarray
  valid: np.ndarray
  spans: np.ndarray | None = None
  scores: np.ndarray | None = None
  counted: np.ndarray | None = None


class Truth(NamedTuple):
  """What is right.

  Attributes:
    items: int [q], the video of each query.
    spans: float32 [q, a, 2], seconds, of each annotator; None: videos only.
    annotators: bool [q, a], False where a query has fewer; None: all valid.
  """

  items: np.ndarray
  spans: np.ndarray | None = None
  annotators: np.ndarray | None = None


def hull_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Intersection over hull of spans, 0 where the hull is a point.

  Args:
    a: [..., 2], start and end.
    b: [..., 2], broadcast against `a`.

  Returns:
    [...], in the precision of the arguments.
  """
  inner = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
  hull = np.maximum(a[..., 1], b[..., 1]) - np.minimum(a[..., 0], b[..., 0])
  inner = np.maximum(inner, 0)
  return np.divide(inner, hull, out=np.zeros_like(inner), where=hull != 0)


def overlaps(
  spans: np.ndarray, truth: Truth, thresholds: Sequence[float]
) -> np.ndarray:
  """Whether spans overlap the true moment enough.

  Args:
    spans: float32 [q, n, 2].
    truth: with `spans`.
    thresholds: of the overlap.

  Returns:
    bool [thresholds, q, n].
  """
  spans = np.asarray(spans, np.float32)
  true = np.asarray(truth.spans, np.float32)
  valid = truth.annotators
  if valid is None:
    valid = np.ones(true.shape[:2], bool)
  agree = np.zeros((len(thresholds), *spans.shape[:2]), np.int16)
  for i in range(true.shape[1]):
    iou = hull_iou(spans, true[:, None, i])
    for count, threshold in zip(agree, thresholds):
      count += (iou >= np.float32(threshold)) & valid[:, None, i]
  return agree >= np.clip(valid.sum(1), 1, _AGREE)[:, None]


def first_places(
  task: str, lists: Lists, truth: Truth, thresholds: Sequence[float]
) -> np.ndarray:
  """Zero-based place of the first right row of every query.

  Args:
    task: one of `TASKS`.
    lists: of that task.
    truth: of the same queries.
    thresholds: of the overlap; VR has none.

  Returns:
    int64 [thresholds, q], [1, q] for VR; the largest int64 where no row is
    right.
  """
  found = (lists.items == truth.items[:, None]) & lists.valid
  right = found[None]
  if task != 'VR':
    right = overlaps(lists.spans, truth, thresholds) & found
  if not found.shape[1]:
    return np.full(right.shape[:2], _NEVER)
  first = right.argmax(-1)
  place = first
  if task == 'SVMR':
    among = np.cumsum(found, axis=1) - 1
    place = among[np.arange(len(found)), first]
  return np.where(right.any(-1), place, _NEVER)


def evaluate(
  predictions: Mapping[str, Lists],
  truth: Truth,
  *,
  kinds: Sequence[str] | None = None,
  thresholds: Sequence[float] = THRESHOLDS,
  cutoffs: Sequence[int] = CUTOFFS,
) -> dict[str, dict[str, float | str]]:
  """All recalls, nested and named as upstream's file, not rounded.

  Args:
    predictions: task -> what was found.
    truth: of the same queries.
    kinds: kind of each query, one of `KINDS` or something else; None leaves
      out the blocks by kind.
    thresholds: least overlaps, in (0, 1].
    cutoffs: the k of recall at k.

  Returns:
    {'VCMR': {'0.5-r1': percent, ...}, ..., 'VR': {'r1': ...}, and with kinds
    'VCMR_by_type': {'v-0.5-r1': ..., 'desc_type_ratio': text}, ...}. Recall of
    a kind that no query has is NaN.

  Raises:
    ValueError: shapes, tasks, thresholds or cutoffs that make no sense, or no
      queries.
  """
  _check(predictions, truth, kinds, thresholds, cutoffs)
  out, by_kind = {}, {}
  for task in (t for t in TASKS if t in predictions):
    lists = _limited(predictions[task])
    counted = lists.counted
    if counted is None:
      counted = np.ones(len(truth.items), bool)
    if not counted.any():
      raise ValueError(f'{task}: no queries to evaluate.')
    places = first_places(task, lists, truth, thresholds)
    names = [''] if task == 'VR' else [f'{t}-' for t in thresholds]
    out[task] = _recalls(names, places, cutoffs, counted)
    if kinds is None:
      continue
    block = by_kind[f'{task}_by_type'] = {}
    ratio = []
    for kind in KINDS:
      of_kind = counted & (np.asarray(kinds) == kind)
      prefixed = [f'{kind}-{name}' for name in names]
      block |= _recalls(prefixed, places, cutoffs, of_kind)
      ratio.append(f'{kind} {_rounded(_percent(of_kind, counted))}')
    block[RATIO] = ' '.join(ratio)
  return out | by_kind


def summary(
  table: Mapping[str, Mapping[str, float | str]],
) -> dict[str, float]:
  """What `evaluate` found as flat names of numbers.

  Returns:
    'VCMR_0.5-r1', by kind 'VCMR_v-0.5-r1' (kinds that exist), and what upstream
    selects by where its parts are there: 'VCMR_stop' and 'SVMR_stop', the sum
    of recall at 1 for overlaps of 0.5 and 0.7, and 'VR_stop', recall at 1.
  """
  out = {}
  for block, row in table.items():
    task = block.removesuffix('_by_type')
    for name, value in row.items():
      if name != RATIO and not np.isnan(value):
        out[f'{task}_{name}'] = value
  for task in TASKS:
    parts = ['r1'] if task == 'VR' else ['0.5-r1', '0.7-r1']
    parts = [f'{task}_{part}' for part in parts]
    if all(part in out for part in parts):
      out[f'{task}_stop'] = sum(out[part] for part in parts)
  return out


def as_upstream(
  table: Mapping[str, Mapping[str, float | str]],
) -> dict[str, dict[str, float | str]]:
  """What `evaluate` found, rounded to two decimals as upstream does."""
  return {
    block: {
      name: value if name == RATIO else _rounded(value)
      for name, value in row.items()
    }
    for block, row in table.items()
  }


def _recalls(names, places, cutoffs, where):
  return {
    f'{name}r{k}': _percent((row < k) & where, where)
    for name, row in zip(names, places)
    for k in cutoffs
  }


def _percent(part, whole):
  n = int(whole.sum())
  return int(part.sum()) / n * 100 if n else float('nan')


def _rounded(value):
  """By NumPy's rule, which differs from Python's near a half."""
  return float(np.round(np.float64(value), 2))


def _limited(lists):
  cut = {k: getattr(lists, k) for k in ('items', 'valid', 'spans')}
  return lists._replace(
    **{k: x if x is None else x[:, :LIMIT] for k, x in cut.items()}
  )


def _check(predictions, truth, kinds, thresholds, cutoffs):
  unknown = [task for task in predictions if task not in TASKS]
  if unknown or not predictions:
    raise ValueError(
      f'tasks are {list(predictions)}, expected some of {", ".join(TASKS)}.'
    )
  if not thresholds or any(not 0 < t <= 1 for t in thresholds):
    raise ValueError(f'thresholds are {thresholds}, expected some in (0, 1].')
  if not cutoffs or any(k < 1 for k in cutoffs):
    raise ValueError(f'cutoffs are {cutoffs}, expected whole numbers from 1.')
  q = len(truth.items)
  if kinds is not None and len(kinds) != q:
    raise ValueError(f'{len(kinds)} kinds of {q} queries.')
  for task, lists in predictions.items():
    shape = lists.items.shape
    if len(shape) != 2 or shape[0] != q or lists.valid.shape != shape:
      raise ValueError(
        f'{task}: items {list(shape)} and valid {list(lists.valid.shape)}, '
        f'expected [{q}, n] twice: a row for each query of the truth.'
      )
    if task == 'VR':
      continue
    spans = None if lists.spans is None else lists.spans.shape
    if truth.spans is None or spans != (*shape, 2):
      raise ValueError(
        f'{task}: needs true spans, and found ones [{q}, {shape[1]}, 2]; '
        f'found {spans and list(spans)}.'
      )
