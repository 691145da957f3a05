# SPDX-License-Identifier: Apache-2.0
"""From similarities to ranks, from ranks to the table that papers print.

Ranks are zero-based floats: the number of candidates ahead of the right one,
ties counted by the chosen rule. Queries are rows, items are columns. The
functions on whole matrices are for small cases and tests; collections are
ranked in blocks by `evaluators.retrieval`, which counts the same quantities.
"""

from collections.abc import Mapping

import numpy as np

TIES = ('mean', 'best', 'worst')
V2T = ('best_caption', 'max_pool')
CUTOFFS = (1, 5, 10, 50)


def check_option(name: str, value: str, known: tuple[str, ...]) -> str:
  """Returns `value`, or raises ValueError that lists the known ones."""
  if value not in known:
    raise ValueError(f'{name}={value!r}: expected one of {", ".join(known)}.')
  return value


def from_counts(
  greater: np.ndarray, equal: np.ndarray, ties: str = 'mean'
) -> np.ndarray:
  """Ranks from the counts of better and of equal candidates.

  Args:
    greater: int [n], candidates that score higher than the right one.
    equal: int [n], candidates that score the same, the right one included.
    ties: 'mean' gives a tied group its middle position, as the CE code does;
      'best' and 'worst' its first and its last one.

  Returns:
    float64 [n], zero-based.
  """
  check_option('ties', ties, TIES)
  share = {'mean': 0.5, 'best': 0.0, 'worst': 1.0}[ties]
  return greater.astype(np.float64) + share * (equal.astype(np.float64) - 1)


def _rank_rows(scores: np.ndarray, own: np.ndarray, ties: str) -> np.ndarray:
  """Ranks of `own` [n] within the rows of `scores` [n, k] that hold it."""
  own = own[:, None]
  return from_counts((scores > own).sum(1), (scores == own).sum(1), ties)


def text_to_video(
  sim_qv: np.ndarray, item_of_query: np.ndarray, ties: str = 'mean'
) -> np.ndarray:
  """Ranks of every query's own item among all items: float64 [q]."""
  own = sim_qv[np.arange(len(sim_qv)), item_of_query]
  return _rank_rows(sim_qv, own, ties)


def video_to_text(
  sim_qv: np.ndarray,
  item_of_query: np.ndarray,
  ties: str = 'mean',
  v2t: str = 'best_caption',
) -> np.ndarray:
  """Ranks of every item's own captions among all captions: float64 [v].

  'best_caption' (the CE protocol): captions compete one by one, other captions
  of the same video included, and the best placed own caption counts. A rank
  never grows with the score: if x < y, then everything at or above y is above
  x, so worst(y) = greater(y) + equal(y) - 1 < greater(x) = best(x). The best
  place is therefore that of the highest own score.

  'max_pool': the captions of each video are reduced to their maximum first and
  videos compete with videos.

  An item without captions has an infinite rank.
  """
  check_option('v2t', v2t, V2T)
  q, v = sim_qv.shape
  best = np.full((v, v), -np.inf, sim_qv.dtype)  # [captioned video, item]
  np.maximum.at(best, item_of_query, sim_qv)
  captioned = np.bincount(item_of_query, minlength=v) > 0
  own = np.diagonal(best)[captioned]
  rivals = sim_qv if v2t == 'best_caption' else best[captioned]
  ranks = np.full(v, np.inf)
  ranks[captioned] = _rank_rows(rivals.T[captioned], own, ties)
  return ranks


def as_classification(
  sim_qv: np.ndarray, positive: np.ndarray, ties: str = 'mean'
) -> np.ndarray:
  """Ranks of every right label of every item (CE, retrieval_as_classification).

  Labels are rows. Each item ranks all labels; from the ranks of its right ones,
  taken in label order, 0, 1, 2, ... are subtracted so that one right label does
  not push down the next. As upstream subtracts in label order and not in rank
  order, a value may be negative; it then counts in R@5 and on, not in R@1.

  Args:
    sim_qv: [labels, items].
    positive: bool [labels, items].
    ties: see `from_counts`.

  Returns:
    float64 [number of right labels], item by item.
  """
  out = []
  for scores, right in zip(sim_qv.T, np.asarray(positive, bool).T):
    own = scores[right]
    ranks = _rank_rows(
      np.broadcast_to(scores, (len(own), len(scores))), own, ties
    )
    out.append(ranks - np.arange(len(own)))
  return np.concatenate(out)


def summary(ranks: np.ndarray) -> dict[str, float]:
  """The usual table row: recalls in percent, one-based median and mean rank.

  R@1 counts ranks that are exactly 0: who ties for the first place has not won
  it. R@k counts ranks below k.

  Args:
    ranks: [n], zero-based, may be fractional or infinite.

  Returns:
    R@1, R@5, R@10, R@50, MdR, MnR and geom, the geometric mean of the first
    three recalls (0 as soon as one of them is 0).

  Raises:
    ValueError: no ranks at all, or one that is not a number.
  """
  ranks = np.asarray(ranks, np.float64)
  if not ranks.size or np.isnan(ranks).any():
    raise ValueError(
      f'Cannot summarise {ranks.size} ranks, {np.isnan(ranks).sum()} of them '
      'NaN; a split without queries, or scores that were never checked?'
    )
  n = len(ranks)
  out = {
    f'R@{k}': float(100 * ((ranks == 0) if k == 1 else (ranks < k)).sum() / n)
    for k in CUTOFFS
  }
  out['MdR'] = float(np.median(ranks) + 1)
  out['MnR'] = float(ranks.mean() + 1)
  out['geom'] = geometric_mean(out)
  return out


def geometric_mean(recalls: Mapping[str, float]) -> float:
  """Geometric mean of R@1, R@5 and R@10, the usual selection criterion."""
  values = np.array([recalls['R@1'], recalls['R@5'], recalls['R@10']])
  if not values.all():
    return 0.0
  return float(np.exp(np.log(values).mean()))


def recall_curve(ranks: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
  """Percent of ranks below each cutoff: float64 like `cutoffs`."""
  ordered = np.sort(ranks)
  return 100 * np.searchsorted(ordered, cutoffs, side='left') / len(ordered)
