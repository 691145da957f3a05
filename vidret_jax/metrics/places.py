# SPDX-License-Identifier: Apache-2.0
"""Where items stand in rankings, by either rule for equal scores."""

import numpy as np

FEW = 8  # Looking up pays for the places of fewer than one item in eight.


def orders(s):
  """Best first, int [n, m] twice: equal scores by falling, rising number.

  Both are the same array where no two scores of the block are equal.
  """
  if s.dtype != np.float32:
    first = np.argsort(-s, axis=1, kind='stable')
    last = np.argsort(s, axis=1, kind='stable')[:, ::-1]
    return last, first
  # Values sort faster than an argsort: score and number share a word. A float
  # keeps its order as a signed integer once the other bits of the negative ones
  # are flipped; taken from 0 there is no -0.
  bits = (np.float32(0) - s).view(np.int32)
  bits ^= (bits >> 31) & 0x7FFFFFFF
  keys = np.empty(s.shape, '<i8')
  halves = keys.view('<i4')
  halves[:, 0::2] = np.arange(s.shape[1], dtype=np.int32)
  halves[:, 1::2] = bits
  keys.sort(axis=1)
  first, scores = halves[:, 0::2], halves[:, 1::2]
  tied = (scores[:, 1:] == scores[:, :-1]).any(1)
  if not tied.any():
    return first, first
  last = first.copy()
  rows = np.flatnonzero(tied)
  last[rows] = np.argsort(s[rows], axis=1, kind='stable')[:, ::-1]
  return last, first


def of_items(s, row, item):
  """Zero-based places of some items, equal scores by falling, rising number.

  Args:
    s: [n, m] scores.
    row: int [p], rows of the items, in order.
    item: int [p], their columns.

  Returns:
    (int [p], int [p]).
  """
  found = None
  if len(row) * FEW < s.size:
    found = _looked_up(s, row, item)
  if found is None:
    found = _sorted(s, row, item)
  return found


def _sorted(s, row, item):
  """`of_items` by sorting all items."""
  n, m = s.shape
  out, place = [], np.empty(s.shape, np.int64)
  for order in orders(s):
    np.put_along_axis(place, order, np.arange(m)[None], axis=1)
    out.append(place[row, item])
  return out


def _looked_up(s, row, item):
  """`of_items` by sorting scores only; None where many of them are equal."""
  n, m = s.shape
  rising, own = np.sort(s, axis=1), s[row, item]
  ends = np.cumsum(np.bincount(row, minlength=n))
  low, high = np.empty((2, len(row)), np.int64)
  for i, (start, end) in enumerate(zip([0, *ends[:-1]], ends)):
    low[start:end] = np.searchsorted(rising[i], own[start:end], 'left')
    high[start:end] = np.searchsorted(rising[i], own[start:end], 'right')
  last, first = m - high, m - high
  tied = np.flatnonzero(high - low > 1)
  # One by one below.
  if len(tied) * FEW > len(row):
    return None
  for i in tied.tolist():
    equal = np.flatnonzero(s[row[i]] == own[i])
    first[i] += np.searchsorted(equal, item[i])
    last[i] += len(equal) - 1 - np.searchsorted(equal, item[i])
  return last, first
