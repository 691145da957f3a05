# SPDX-License-Identifier: Apache-2.0
"""Groups of videos that are copies of each other, from scores of pairs.

A score is one of a query with a target and not the same the other way round:
all of a short clip is found in the film it was cut from, but little of the film
in the clip.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

# What two scores of a pair become.
BOTH = {'mean': np.mean, 'max': np.max}
_STRIP = 256  # Videos whose pairs are looked for at a time.


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Pairs of videos, each once.

  Attributes:
    first: int32 [p], numbers of videos, ascending.
    second: int32 [p], larger than `first`.
    forth: float32 [p], score of the first one as query; NaN: not compared.
    back: float32 [p], of the second one as query; NaN: not compared.
    score: float32 [p], both together; the one there is where one is NaN.
  """

  first: np.ndarray
  second: np.ndarray
  forth: np.ndarray
  back: np.ndarray
  score: np.ndarray


@dataclasses.dataclass(frozen=True)
class Member:
  """A video of a group.

  Attributes:
    number: of the video.
    score: with the first one of its group, or with `through`; NaN: of the
      first one.
    forth: score of that one as query.
    back: score of this video as query.
    through: None if the pair with the first one reaches the threshold;
      otherwise the video of the group that this one is most like.
  """

  number: int
  score: float
  forth: float
  back: float
  through: int | None


def pairs(
  scores: np.ndarray, visited: np.ndarray | None, both: str = 'mean'
) -> Pairs:
  """Pairs of which at least one direction was compared.

  Args:
    scores: float [n, n], queries are rows; NaN: a video is missing.
    visited: bool [n, n], what was compared; None: all.
    both: key of `BOTH`.

  Raises:
    ValueError: an unknown way.
  """
  if both not in BOTH:
    raise ValueError(f'both={both!r}: expected one of {", ".join(BOTH)}.')
  n = len(scores)
  strips = [
    _strip(scores, visited, start, BOTH[both]) for start in range(0, n, _STRIP)
  ]
  return Pairs(*(np.concatenate(x) for x in zip(*strips)))


def _strip(scores, visited, start, both):
  """Fields of `Pairs` whose first video is one of some."""
  rows, rest = slice(start, start + _STRIP), slice(start, None)
  forth, back = scores[rows, rest], scores[rest, rows].T
  there, there_back = ~np.isnan(forth), ~np.isnan(back)
  if visited is not None:
    there &= visited[rows, rest]
    there_back &= visited[rest, rows].T
  first, second = np.nonzero(np.triu(there | there_back, 1))
  forth, back = (
    np.where(known[first, second], x[first, second], np.nan).astype(np.float32)
    for known, x in ((there, forth), (there_back, back))
  )
  # With one of them alone, the mean is that one.
  two = np.stack(
    [np.where(np.isnan(a), b, a) for a, b in ((forth, back), (back, forth))]
  )
  numbers = ((x + start).astype(np.int32) for x in (first, second))
  return (*numbers, forth, back, both(two, axis=0))


def groups(
  found: Pairs, threshold: float, worth: Sequence[Any]
) -> list[tuple[Member, ...]]:
  """Connected components of the pairs that reach a threshold.

  The first one of a group is the best representative: the video that is most
  like the others on average, to two decimals; of equal ones that of the most
  worth. Pairs that were not compared count as -1. The others follow by their
  score with it.

  Args:
    found: see `pairs`.
    threshold: least score.
    worth: [n], anything that can be compared, as (seconds, bytes).

  Returns:
    Groups of two and more, the largest first.
  """
  root = _components(found, threshold, len(worth))
  inside = np.flatnonzero(root[found.first] == root[found.second])
  within = _by(root[found.first[inside]], inside)
  members = _by(root, np.arange(len(worth)))
  out = [
    _ordered(found, threshold, worth, members[i], within[i]) for i in within
  ]
  return sorted(out, key=lambda group: (-len(group), group[0].number))


def _components(found, threshold, count) -> np.ndarray:
  """int64 [count], the smallest number in each video's component."""
  near = found.score >= threshold
  a, b = found.first[near], found.second[near]
  root = np.arange(count)
  while len(a):
    # Each component joins the least of those that it touches.
    np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
    while (root[root] != root).any():
      root = root[root]
    a, b = root[a], root[b]
    a, b = a[a != b], b[a != b]
  return root


def _by(keys, values) -> dict[int, np.ndarray]:
  """{key: its values, in order}."""
  order = np.argsort(keys, kind='stable')
  names, starts = np.unique(keys[order], return_index=True)
  return dict(zip(names.tolist(), np.split(values[order], starts[1:])))


def _ordered(found, threshold, worth, numbers, pairs_) -> tuple[Member, ...]:
  """Members of one group, the representative first.

  Args:
    found: all pairs.
    threshold: least score.
    worth: of all videos.
    numbers: int [n], ascending, the members.
    pairs_: int [p], the pairs among them; lists, as most were not compared.
  """
  n = len(numbers)
  one, two = (
    np.searchsorted(numbers, x[pairs_]) for x in (found.first, found.second)
  )
  forth, back = found.forth[pairs_], found.back[pairs_]
  # Every pair from both sides: `mine` is as like `other` as `score` says.
  mine, other = np.r_[one, two], np.r_[two, one]
  score = np.tile(found.score[pairs_].astype(np.float64), 2)
  as_target, as_query = np.r_[back, forth], np.r_[forth, back]
  total = np.bincount(mine, score, n) - (n - 1 - np.bincount(mine, None, n))
  like = (total / (n - 1)).round(2).tolist()
  best = max(range(n), key=lambda i: (like[i], worth[numbers[i]], -numbers[i]))
  # The pair that a member is shown with: with the first one, else its best.
  direct = (other == best) & (score >= threshold)
  order = np.lexsort((other, -score, ~direct, mine))
  chosen = order[np.unique(mine[order], return_index=True)[1]]
  rest = [
    Member(
      number=int(numbers[mine[p]]),
      score=float(score[p]),
      forth=float(as_target[p]),
      back=float(as_query[p]),
      through=None if direct[p] else int(numbers[other[p]]),
    )
    for p in chosen
    if mine[p] != best
  ]
  rest.sort(key=lambda m: (m.through is not None, -m.score, m.number))
  nan = float('nan')
  return (Member(int(numbers[best]), nan, nan, nan, None), *rest)


def table(
  found: Pairs, count: int, thresholds: Sequence[float]
) -> list[tuple[float, int, int, int]]:
  """[(threshold, pairs, groups, videos in them)], to choose by."""
  out = []
  for threshold in thresholds:
    sizes = np.bincount(_components(found, threshold, count))
    sizes = sizes[sizes > 1]
    near = int((found.score >= threshold).sum())
    out.append((threshold, near, len(sizes), int(sizes.sum())))
  return out
