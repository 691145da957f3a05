# SPDX-License-Identifier: Apache-2.0
"""Where some pairs of query and item stand among all scored pairs.

Only annotated pairs need a place, and they are few: 12 thousand of the 22.6
million of FIVR-200K. So rows are sorted by value, and the places of all
measures are looked up in them.

Score and number of a pair share a word of 64 bits: the upper half orders as the
score does, the lower half is the number of the pair. No two words are equal,
and a place is the number of larger words.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_HALF, _LOW, _ONE = np.array([32, 2**32 - 1, 1], np.uint64)
_SIGN = np.uint32(2**31)
_BLOCK = 2**24  # Pairs that are words at a time.
_LOOK = 8  # To look up one pair in a row takes as long as to sort so many.


class Rivals(NamedTuple):
  """Who competes with whom.

  Attributes:
    items: bool [n], those that compete in every row.
    own: int64 [q], an item that does not compete in its row; -1: none.
    queries: int64 [k], rising: rows of further pairs that compete.
    also: int64 [k], their items.
    number: int64 [k], what stands for the numbers of these items where scores
      are equal; all other items come behind. None: they have their own.
  """

  items: np.ndarray
  own: np.ndarray
  queries: np.ndarray
  also: np.ndarray
  number: np.ndarray | None = None


class Field(NamedTuple):
  """A part of the competition.

  Attributes:
    queries: bool [q], rows that belong to the pool.
    without: bool [n], items that do not compete; None: all do.
  """

  queries: np.ndarray
  without: np.ndarray | None = None


class Places(NamedTuple):
  """How many come before each of some pairs, int64 [p] each.

  Attributes:
    above: items of the same query with a higher score.
    later: also those of the same score and a higher number: the place where
      equal scores stand by falling number.
    level: items of the same query with at least this score, itself included.
    pool: pairs of all rows of the field with a higher score, or the same score
      and further behind, in a later row or of a higher number.
  """

  above: np.ndarray
  later: np.ndarray
  level: np.ndarray
  pool: np.ndarray

  @property
  def earlier(self) -> np.ndarray:
    """The place where equal scores stand by rising number."""
    return self.above + self.level - self.later - 1


def ordered(scores: np.ndarray) -> np.ndarray:
  """uint32 that compare as scores do, -0 as 0; 0 where a score is NaN.

  Args:
    scores: float [...]; up to 32 bits are recoded bit by bit, wider ones become
      their rank among all distinct values.
  """
  if scores.dtype.itemsize > 4:
    codes = np.unique(scores, return_inverse=True)[1].reshape(scores.shape)
    out = codes.astype(np.uint32) + np.uint32(1)
  else:
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.int32)
    # Negative floats rise with falling bits.
    out = bits.view(np.uint32) ^ ((bits >> 31).view(np.uint32) | _SIGN)
  out[np.isnan(scores)] = 0
  return out


def find(
  scores: np.ndarray,
  query: np.ndarray,
  item: np.ndarray,
  rivals: Rivals,
  fields: Sequence[Field],
) -> list[Places]:
  """Places of pairs in several fields, for which each row is sorted once.

  Args:
    scores: float [q, n]; what is NaN competes with nothing.
    query: int64 [p], rising, of the pairs; they are scored and compete.
    item: int64 [p].
    rivals: who competes.
    fields: see `Field`.

  Returns:
    One for each field. `level` of an item that is not in the field makes no
    sense, nor does `earlier`.
  """
  out = [Places(*np.zeros((4, len(query)), np.int64)) for _ in fields]
  if scores.dtype.itemsize > 4:
    codes = ordered(scores)
    own = codes[query, item]
  else:
    codes, own = None, ordered(scores[query, item])
  low = own.astype(np.uint64) << _HALF
  for rows in _blocks(*scores.shape, len(query)):
    block = ordered(scores[rows]) if codes is None else codes[rows].copy()
    _sit_out(block, rows, rivals)
    words = _words(block, rows, rivals)
    here = slice(*np.searchsorted(query, (rows.start, rows.stop)))
    row = query[here] - rows.start
    # Equal scores of earlier rows are not ahead, those of later rows are.
    key = low | _LOW
    key[: here.start] = low[: here.start] - _ONE
    key[here] = words[row, item[here]]
    # Sorted needles find their way through the caches.
    asked = np.arange(len(key)) if len(key) < 2 else np.argsort(key)
    for without, sign in _parts(fields):
      some = words if without is None else words[:, without]
      some = np.sort(some, axis=1)
      for to, field in zip(out, fields):
        if without is None or field.without is without:
          pooled = field.queries[rows]
          _count_pool(to.pool, some[pooled], key, asked, sign)
          _count_rows(to, some, key, low, here, row, sign)
  return out


def _blocks(q: int, n: int, pairs: int) -> Iterator[slice]:
  """Rows to handle at a time: one, unless they are short for the pairs."""
  step = min(pairs * _LOOK, _BLOCK) // max(n, 1) + 1
  for start in range(0, q, step):
    yield slice(start, min(start + step, q))


def _parts(fields):
  """Yields (items to leave out, sign): all, less those that are outside."""
  yield None, 1
  seen = {id(f.without): f.without for f in fields if f.without is not None}
  for without in seen.values():
    yield without, -1


def _sit_out(block, rows, rivals):
  """Sets the codes of what does not compete to 0, below all that does."""
  pairs, _ = _further(rows, rivals)
  kept = block[pairs]
  block[:, ~rivals.items] = 0
  block[pairs] = kept
  own = rivals.own[rows]
  there = np.flatnonzero(own >= 0)
  block[there, own[there]] = 0


def _further(rows, rivals):
  """((row in the block, item), their place in `rivals`) of further pairs."""
  ends = np.searchsorted(rivals.queries, (rows.start, rows.stop))
  here = slice(*ends)
  return (rivals.queries[here] - rows.start, rivals.also[here]), here


def _words(block, rows, rivals):
  """uint64 [rows, n]; 0 where the code is."""
  high, n = block.shape
  shift = 0
  if rivals.number is not None:
    shift = int(rivals.number.max(initial=-1)) + 1
  row = np.arange(high, dtype=np.uint64)[:, None] * np.uint64(n + shift)
  out = block.astype(np.uint64) << _HALF
  if shift:
    out |= row + np.arange(shift, shift + n, dtype=np.uint64)
    pairs, here = _further(rows, rivals)
    low = row[pairs[0], 0] + rivals.number[here].astype(np.uint64)
    out[pairs] = block[pairs].astype(np.uint64) << _HALF | low
  else:
    out |= row + np.arange(n, dtype=np.uint64)
  out[block == 0] = 0
  return out


def _larger(rising, keys):
  return len(rising) - np.searchsorted(rising, keys, 'right')


def _count_pool(pool, rows, key, asked, sign):
  if rows.shape[0] > 1:
    rows = np.sort(rows, axis=None)
  pool[asked] += sign * _larger(rows.ravel(), key[asked])


def _count_rows(to, rising, key, low, here, row, sign):
  """Adds to all places but those of the pool."""
  ends = np.searchsorted(row, np.arange(len(rising) + 1)) + here.start
  for i, words in enumerate(rising):
    part = slice(ends[i], ends[i + 1])
    if part.start < part.stop:
      to.above[part] += sign * _larger(words, low[part] | _LOW)
      to.later[part] += sign * _larger(words, key[part])
      to.level[part] += sign * _larger(words, low[part] - _ONE)
