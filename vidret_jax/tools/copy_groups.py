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


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Pairs of videos, each once.

  Attributes:
    first: int64 [p], numbers of videos.
    second: int64 [p], larger than `first`.
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
  there = ~np.isnan(scores)
  if visited is not None:
    there &= visited
  first, second = np.nonzero(np.triu(there | there.T, 1))
  forth, back = (
    np.where(there[i, j], scores[i, j], np.nan).astype(np.float32)
    for i, j in ((first, second), (second, first))
  )
  # With one of them alone, the mean is that one.
  two = np.stack(
    [np.where(np.isnan(a), b, a) for a, b in ((forth, back), (back, forth))]
  )
  return Pairs(first, second, forth, back, BOTH[both](two, axis=0))


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
  near = np.flatnonzero(found.score >= threshold)
  parent = np.arange(len(worth))

  def root(i):
    while parent[i] != i:
      parent[i] = parent[parent[i]]
      i = parent[i]
    return i

  for a, b in zip(found.first[near].tolist(), found.second[near].tolist()):
    a, b = root(a), root(b)
    parent[max(a, b)] = min(a, b)
  members: dict[int, list[int]] = {}
  for i in sorted({*found.first[near].tolist(), *found.second[near].tolist()}):
    members.setdefault(root(i), []).append(i)
  within: dict[int, list[int]] = {i: [] for i in members}
  roots = np.array([root(i) for i in range(len(worth))], np.int64)
  same = np.flatnonzero(roots[found.first] == roots[found.second])
  for pair in same.tolist():
    within[int(roots[found.first[pair]])].append(pair)
  out = [
    _ordered(found, threshold, worth, members[i], within[i]) for i in members
  ]
  return sorted(out, key=lambda group: (-len(group), group[0].number))


def _ordered(found, threshold, worth, numbers, pairs_) -> tuple[Member, ...]:
  """Members of one group, the representative first."""
  place = {number: i for i, number in enumerate(numbers)}
  n = len(numbers)
  score, forth = np.full((n, n), -1.0), np.full((n, n), np.nan)
  for pair in pairs_:
    i, j = place[int(found.first[pair])], place[int(found.second[pair])]
    score[i, j] = score[j, i] = found.score[pair]
    forth[i, j], forth[j, i] = found.forth[pair], found.back[pair]
  np.fill_diagonal(score, 0)
  like = (score.sum(1) / (n - 1)).round(2).tolist()
  best = max(range(n), key=lambda i: (like[i], worth[numbers[i]], -numbers[i]))
  np.fill_diagonal(score, -np.inf)
  rest = []
  for i in range(n):
    if i == best:
      continue
    to = best if score[best, i] >= threshold else int(score[i].argmax())
    rest.append(
      Member(
        number=numbers[i],
        score=float(score[to, i]),
        forth=float(forth[to, i]),
        back=float(forth[i, to]),
        through=None if to == best else numbers[to],
      )
    )
  rest.sort(key=lambda m: (m.through is not None, -m.score, m.number))
  nan = float('nan')
  return (Member(numbers[best], nan, nan, nan, None), *rest)


def table(
  found: Pairs, count: int, thresholds: Sequence[float]
) -> list[tuple[float, int, int, int]]:
  """[(threshold, pairs, groups, videos in them)], to choose by."""
  out = []
  for threshold in thresholds:
    some = groups(found, threshold, np.zeros(count))
    near = int((found.score >= threshold).sum())
    out.append((threshold, near, len(some), sum(map(len, some))))
  return out
