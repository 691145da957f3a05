# SPDX-License-Identifier: Apache-2.0
"""Relevance of captions to clips, from the classes of their verbs and nouns.

The relevance of RANP (Falcon et al., ICIAP 2022), for EPIC-Kitchens-100 that
of its multi-instance retrieval: the mean of two overlaps of sets. In NumPy and
float64, for the matrices that an evaluation reads; `ops/relevance.py` does the
same inside a training step.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

_CELLS = 1 << 17  # Pairs at a time: a block stays in the caches.

Classes = Sequence[Any]  # One int, or a sequence of hashable classes, per row.


def matrix(
  video_verbs: Classes,
  video_nouns: Classes,
  caption_verbs: Classes,
  caption_nouns: Classes,
  *,
  out: Any = None,
  report: Callable[[int], Any] | None = None,
) -> Any:
  """Mean overlap of verbs and of nouns for every clip and caption.

  For a side of n captions against themselves give the same lists twice.

  Args:
    video_verbs: v rows, each an int or a sequence of classes.
    video_nouns: v rows.
    caption_verbs: q rows, ints if and only if `video_verbs` are: then the
      overlap is 1 for the same class and 0 for another.
    caption_nouns: q rows.
    out: [v, q], anything whose rows can be assigned (a file); default: a new
      float64 array.
    report: called with the number of rows done, block by block.

  Returns:
    `out`, values in [0, 1]. Two empty sets overlap by 0.

  Raises:
    ValueError: sides of unequal length, or single classes against lists.
  """
  _check_verbs(video_verbs, caption_verbs)
  pairs = ((video_verbs, caption_verbs), (video_nouns, caption_nouns))
  for name, i in (('clips', 0), ('captions', 1)):
    sizes = [len(pair[i]) for pair in pairs]
    if sizes[0] != sizes[1]:
      raise ValueError(f'{name}: verbs of {sizes[0]}, nouns of {sizes[1]}')
  parts = [(_sets(v), _Captions(q)) for v, q in pairs]
  return _blocks(parts, out, report)


def iou(left: Classes, right: Classes, *, out=None, report=None) -> Any:
  """Overlap of one kind of sets, |a & b| / max(1, |a | b|); see `matrix`."""
  return _blocks([(_sets(left), _Captions(right))], out, report)


class _Captions:
  """Which captions have a class, and how many classes a caption has."""

  def __init__(self, rows):
    sets = _sets(rows)
    self.sizes = np.array([len(s) for s in sets], np.int32)
    where: dict[Hashable, list[int]] = {}
    for j, one in enumerate(sets):
      for c in one:
        where.setdefault(c, []).append(j)
    self.where = {c: np.array(js, np.intp) for c, js in where.items()}

  def __len__(self):
    return len(self.sizes)


def _blocks(parts, out, report):
  """Rows of the mean of the parts, a block of clips at a time."""
  num_clips, num_captions = len(parts[0][0]), len(parts[0][1])
  if out is None:
    out = np.empty((num_clips, num_captions))
  step = max(1, _CELLS // max(1, num_captions))
  for first in range(0, num_clips, step):
    rows = slice(first, min(first + step, num_clips))
    total = sum(_overlap(sets[rows], captions) for sets, captions in parts)
    out[rows] = total / len(parts)
    if report:
      report(rows.stop)
  return out


def _overlap(sets, captions):
  """[rows, q] float64: a product of multi-hot matrices, both sparse."""
  inter = np.zeros((len(sets), len(captions)), np.int32)
  for row, one in zip(inter, sets):
    for c in one:
      if (js := captions.where.get(c)) is not None:
        row[js] += 1
  sizes = np.array([len(s) for s in sets], np.int32)
  union = sizes[:, None] + captions.sizes - inter
  return inter / np.maximum(union, 1, out=union)


def _is_one(row):
  return isinstance(row, (int, np.integer))


def _sets(rows):
  return [{row} if _is_one(row) else set(row) for row in rows]


def _check_verbs(clips, captions):
  kinds = {_is_one(row) for row in (*clips, *captions)}
  if len(kinds) > 1:
    raise ValueError(
      'some rows have one verb class, others a list; expected the same kind '
      'for all clips and captions'
    )
