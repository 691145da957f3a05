# SPDX-License-Identifier: Apache-2.0
"""Verb and noun classes of captions: as files have them, pooled, as arrays."""

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

ABSENT = -1  # Fills up rows of classes.
_LARGEST = 2**31 - 1


def parse(value: Any, limit: int | None = None) -> list[int]:
  """Classes of one caption.

  Args:
    value: an int, a list of ints, or a string such as '[3, 17]' (annotations
      of EPIC-Kitchens-100 have all three).
    limit: number of classes there are, if known.

  Returns:
    Class ids in their order, repetitions kept. An empty list is no class.

  Raises:
    ValueError: something else, a negative id, or one beyond the limit.
  """
  found = value
  if isinstance(value, str):
    inner = value.strip()
    if inner[:1] + inner[-1:] != '[]':
      raise _wrong(value)
    inner = inner[1:-1].strip()
    parts = [part.strip() for part in inner.split(',')] if inner else []
    if not all(part.isdecimal() and len(part) < 11 for part in parts):
      raise _wrong(value)
    found = [int(part) for part in parts]
  if type(found) is int:
    found = [found]
  if not isinstance(found, (list, tuple)):
    raise _wrong(value)
  for i in found:
    if type(i) is not int or not 0 <= i <= _LARGEST:
      raise _wrong(value)
    if limit is not None and i >= limit:
      raise ValueError(f'class {i}, expected one from 0 to {limit - 1}')
  return list(found)


def _wrong(value):
  return ValueError(
    f'classes {str(value)[:60]!r}, expected an integer from 0 on, a list of '
    "such, or a string such as '[3, 17]'"
  )


def pooled(
  captions_classes: Sequence[Sequence[int]], share: float = 0.25
) -> list[int]:
  """Classes of a clip from those of its captions.

  Args:
    captions_classes: classes of each caption.
    share: a class is kept if it occurs, over all captions and with repetitions
      inside a caption, at least share * (number of captions) times.

  Returns:
    The kept classes in order of first appearance.
  """
  count = collections.Counter(c for one in captions_classes for c in one)
  least = share * len(captions_classes)
  return [c for c, n in count.items() if n >= least]


def padded(
  rows: Iterable[Iterable[int]], width: int | None = None
) -> np.ndarray:
  """Classes as rows of an array.

  Args:
    rows: n lists of classes.
    width: c, columns of the result; default: the largest number of distinct
      classes, at least 1.

  Returns:
    int32 [n, c], each row sorted and distinct, filled up with -1.

  Raises:
    ValueError: a row with more classes than `width`.
  """
  rows = [sorted(set(row)) for row in rows]
  longest = max(map(len, rows), default=0)
  width = max(longest, 1) if width is None else width
  if longest > width:
    raise ValueError(f'{longest} classes in a row, expected at most {width}')
  out = np.full((len(rows), width), ABSENT, np.int32)
  for i, row in enumerate(rows):
    out[i, : len(row)] = row
  return out
