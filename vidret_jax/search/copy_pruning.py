# SPDX-License-Identifier: Apache-2.0
"""Coarse to fine: which pairs the network compares, and what the others get.

The network's score has no cheap bound, so a share of the items is visited and
the figures of such a search say which. What is not visited stays in the
ranking, behind all that is.
"""

import math

import numpy as np


def choose(coarse: np.ndarray, visit: float) -> np.ndarray:
  """The best items of each query.

  Args:
    coarse: float32 [q, v]; NaN: there is no such pair.
    visit: share of a query's items, rounded up, at least one.

  Returns:
    bool [q, v]; among equal scores the items that come first.
  """
  there = ~np.isnan(coarse)
  out = np.zeros(coarse.shape, bool)
  for q, row in enumerate(coarse):
    found = int(there[q].sum())
    # 0.05 * 20 is a little more than one.
    count = min(found, max(1, math.ceil(visit * found - 1e-9)))
    order = np.argsort(np.where(there[q], -row, np.inf), kind='stable')
    out[q, order[:count]] = True
  return out


def fill(
  fine: np.ndarray, coarse: np.ndarray, visited: np.ndarray
) -> np.ndarray:
  """Scores of all pairs: `fine` where visited, behind them by `coarse`.

  Pairs that were not visited keep the order of their coarse scores over the
  whole matrix and lie below its least fine score, as micro-AP compares scores
  of different queries.

  Args:
    fine: float32 [q, v], where visited.
    coarse: float32 [q, v]; NaN: there is no such pair.
    visited: bool [q, v].

  Returns:
    float32 [q, v].
  """
  out = np.full(fine.shape, np.nan, np.float32)
  least, top = np.inf, -np.inf
  # By query: copies of all scores may not fit.
  for row, chosen, cheap in zip(fine, visited, coarse):
    rest = cheap[~chosen & ~np.isnan(cheap)]
    least = min(least, float(row[chosen].min(initial=np.inf)))
    top = max(top, float(rest.max(initial=-np.inf)))
  for row, chosen, cheap, into in zip(fine, visited, coarse, out):
    into[:] = np.where(chosen, row, least - 1 - (top - np.float64(cheap)))
  return out


def lanes(wanted: int, blocks: int, rows: int) -> int:
  """Items that a unit of work compares with its query: a power of two near
  the mean.

  Args:
    wanted: pairs of a bucket.
    blocks: (query, batch of a device) that share them.
    rows: items of a device's batch.
  """
  mean = max(1.0, wanted / max(1, blocks))
  return min(rows, 1 << math.ceil(math.log2(mean)))


def units(
  wanted: np.ndarray, lanes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Units of work for a batch of one device.

  Args:
    wanted: bool [q, v], v items of the batch.
    lanes: c, items of a unit.

  Returns:
    (query int32 [u], item int32 [u, c], count int32 []): count units are used.
    A unit with fewer items repeats its last one.
  """
  q, v = wanted.shape
  query = np.zeros(q * -(-v // lanes), np.int32)
  item = np.zeros((len(query), lanes), np.int32)
  count = 0
  for i in np.flatnonzero(wanted.any(1)):
    found = np.flatnonzero(wanted[i])
    n = -(-len(found) // lanes)
    found = np.pad(found, (0, n * lanes - len(found)), mode='edge')
    query[count : count + n] = i
    item[count : count + n] = found.reshape(n, lanes)
    count += n
  return query, item, np.int32(count)
