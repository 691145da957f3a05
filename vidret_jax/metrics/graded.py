# SPDX-License-Identifier: Apache-2.0
"""Metrics where many items answer a query, some better than others.

nDCG and mAP as multi-instance retrieval has them (Damen et al., IJCV 2022;
definitions of Wray et al., ICCV 2019 and CVPR 2021), and recall where any of
several items is right. Relevance lies in [0, 1]. Queries are rows; the other
direction is the transpose. Per query everything is a fraction.

nDCG   gain is the relevance itself, discount log2(place + 1). A query with k
       items of positive relevance is judged by its first k places, both in the
       sum and in its ideal; 0 without such an item. Equal scores: the item of
       HIGHER number first.
mAP    positives are items of relevance 1 exactly. The precision at a positive
       is the mean relevance of the places up to it, so half-right items count
       half ('graded'; with `binary` only positives count). 0 without a
       positive. Equal scores: the item of LOWER number first.
recall the rank of a query is the best place of any of its answers, the number
       of candidates if it has none. Equal scores: LOWER number first.

Where others differ: `sklearn.metrics.ndcg_score` takes all places, or the same
number for all queries, and averages the gains of equal scores: the same numbers
with `k` equal to the number of relevant items and scores that differ. ranx has
`ndcg@k`, also with one k, which agrees on those terms. Average precision of
scikit-learn and of ranx is the binary one; scikit-learn sees equal scores as
one step.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vidret_jax.metrics import blocks, places
from vidret_jax.metrics import ranks as ranks_lib

CUTOFFS = (1, 5, 10)
RECALLS = (*(f'R@{k}' for k in CUTOFFS), 'MdR', 'MnR')


class Judged(NamedTuple):
  """Fractions per query, float64 [n]."""

  ndcg: np.ndarray
  ap: np.ndarray
  ap_binary: np.ndarray


def judge(sim: np.ndarray, relevance: np.ndarray) -> Judged:
  """nDCG and average precision of every query, each row sorted once.

  Args:
    sim: float [n, m], finite; may be mapped into memory.
    relevance: float [n, m] in [0, 1], likewise.

  Raises:
    ValueError: shapes differ, or a value is not allowed.
  """
  return _judge(sim, relevance, False)


def judge_columns(sim: np.ndarray, relevance: np.ndarray) -> Judged:
  """The other direction: columns are the queries; see `judge`."""
  return _judge(sim, relevance, True)


def _judge(sim, relevance, columns):
  if sim.ndim != 2 or sim.shape != relevance.shape:
    raise ValueError(
      f'scores {list(sim.shape)} and relevance {list(relevance.shape)}: '
      'expected two matrices of one shape.'
    )
  m, n = sim.shape if columns else sim.shape[::-1]
  discount = 1 / np.log2(np.arange(2, m + 2))
  out = Judged(*(np.zeros(n) for _ in Judged._fields))

  def work(part, s, r):
    if columns:
      s, r = np.ascontiguousarray(s.T), np.ascontiguousarray(r.T)
    _check(s, r, part.start, columns)
    for to, found in zip(out, _judge_rows(s, r, discount)):
      to[part] = found

  if m:
    blocks.over((sim, relevance), n, m, columns, work)
  return out


def _check(s, r, first, columns):
  for name, x, bad in (
    ('score', s, ~np.isfinite(s)),
    ('relevance', r, ~((r >= 0) & (r <= 1))),
  ):
    if bad.any():
      i, j = (int(k[0]) for k in np.nonzero(bad))
      place = (j, first + i) if columns else (first + i, j)
      wanted = 'finite' if name == 'score' else 'in [0, 1]'
      raise ValueError(
        f'{name} of query {place[0]} and item {place[1]} is {x[i, j]}, '
        f'expected {wanted}.'
      )


def _judge_rows(s, r, discount):
  """(nDCG, AP, binary AP), each [n], of contiguous rows."""
  row, item = np.nonzero(r)
  last, first = places.of_items(s, row, item)
  n, m = r.shape
  k = np.bincount(row, minlength=n)
  gain = r[row, item]
  worth = np.where(last < k[row], discount[last], 0)
  dcg = np.bincount(row, weights=gain * worth, minlength=n)
  # A row for each query: its relevant items, best first.
  order = np.argsort(row * m + first)
  here = row, np.arange(len(row)) - (np.cumsum(k) - k)[row]
  g = np.zeros((n, int(k.max(initial=0))), r.dtype)
  place = np.zeros(g.shape, np.int64)
  g[here], place[here] = gain[order], first[order]
  best = np.sort(g, axis=1)[:, ::-1].astype(np.float64)
  ideal = best @ discount[: g.shape[1]]
  ndcg = np.divide(dcg, ideal, out=np.zeros(n), where=ideal > 0)
  right = g == 1
  below = np.maximum(right.sum(1), 1)
  ap, binary = (
    np.where(right, np.cumsum(x, axis=1) / (place + 1), 0).sum(1) / below
    for x in (g, right)
  )
  return ndcg, ap, binary


def pairs(answers: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """(query numbers, item numbers), int64 [p], of the answers of each query."""
  counts = [len(x) for x in answers]
  query = np.repeat(np.arange(len(answers)), counts)
  item = np.concatenate([np.zeros(0, np.int64), *answers]).astype(np.int64)
  return query, item


def recall_ranks(
  sim_qv: np.ndarray, answers: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
  """Zero-based ranks of queries among items, and of items among queries.

  A rank is counted, not sorted: by the best scored answer, the candidates above
  it and those of the same score and lower number.

  Args:
    sim_qv: [q, v], finite; may be mapped into memory.
    answers: per query, numbers of all right items; may be empty.

  Returns:
    float64 [q] and [v]; v or q, the number of candidates, without an answer.

  Raises:
    ValueError: not one list per query, or an item out of range.
  """
  q, v = sim_qv.shape
  query, item = pairs(answers)
  if len(answers) != q or (item.size and not 0 <= item.min() <= item.max() < v):
    raise ValueError(
      f'answers of {len(answers)} queries with items '
      f'[{item.min(initial=0)}, {item.max(initial=0)}]: expected {q} queries '
      f'and items below {v}.'
    )
  order = np.argsort(query, kind='stable')
  own = np.empty(len(item), sim_qv.dtype)
  own[order] = sim_qv[query[order], item[order]]
  return (
    _count(sim_qv, *_best_answer(query, item, own, q), columns=False),
    _count(sim_qv, *_best_answer(item, query, own, v), columns=True),
  )


def _count(sim, known, best, number, columns):
  n, m = sim.shape[::-1] if columns else sim.shape
  out = np.full(n, float(m))

  def work(part, s):
    if columns:
      s = np.ascontiguousarray(s.T)
    level = best[part, None]
    ahead = np.count_nonzero(s > level, axis=1)
    before = np.arange(m) < number[part, None]
    ahead += np.count_nonzero((s == level) & before, axis=1)
    out[part] = np.where(known[part], ahead, m)

  if m:
    blocks.over((sim,), n, m, columns, work)
  return out


def _best_answer(asked, answer, own, n):
  """Per query: has it an answer, the best score and the first such answer."""
  known = np.bincount(asked, minlength=n) > 0
  best = np.full(n, -np.inf, own.dtype)
  np.maximum.at(best, asked, own)
  number = np.full(n, np.iinfo(np.int64).max)
  here = own == best[asked]
  np.minimum.at(number, asked[here], answer[here])
  return known, best, number


def recalls(ranks: np.ndarray) -> dict[str, float]:
  """Of zero-based ranks: R@1, R@5, R@10 in percent, one-based MdR, MnR."""
  row = ranks_lib.summary(ranks)
  return {name: row[name] for name in RECALLS}


def summary(
  ranks: Sequence[np.ndarray],
  judged: Sequence[Judged] | None = None,
  *,
  binary: bool = False,
) -> dict[str, float]:
  """All numbers of an evaluation, in percent.

  Args:
    ranks: of queries and of items, see `recall_ranks`.
    judged: of queries and of items; None leaves nDCG and mAP out.
    binary: also `mAP_binary`, where only positives count.

  Returns:
    `t2v_` and `v2t_` with R@1, R@5, R@10, MdR, MnR, `nDCG`, `mAP` and
    `mAP_binary`; `rsum` of the six recalls; `nDCG_avg` and so on, the mean of
    both directions.
  """
  out = {}
  for direction, values in zip(('t2v', 'v2t'), ranks, strict=True):
    row = recalls(values)
    out |= {f'{direction}_{name}': value for name, value in row.items()}
  out['rsum'] = sum(value for name, value in out.items() if '@' in name)
  if judged is None:
    return out
  names = dict(nDCG='ndcg', mAP='ap') | (
    dict(mAP_binary='ap_binary') if binary else {}
  )
  for name, field in names.items():
    both = [100 * float(np.mean(getattr(x, field))) for x in judged]
    out[f't2v_{name}'], out[f'v2t_{name}'] = both
    out[f'{name}_avg'] = sum(both) / 2
  return out
