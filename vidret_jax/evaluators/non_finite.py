# SPDX-License-Identifier: Apache-2.0
"""A score that is not finite has no rank: who it belongs to, and what to do."""

from collections.abc import Sequence

import numpy as np


class NonFiniteScore(ValueError):
  """A similarity that is NaN or infinite."""


def explain(
  sim_qv: np.ndarray,
  real: np.ndarray,
  query_ids: Sequence[str],
  item_ids: Sequence[str],
  available: np.ndarray | None,
) -> str:
  """One screen about the bad scores of one block.

  Args:
    sim_qv: [q, v], at least one of them not finite.
    real: bool [q, v], False for padding.
    query_ids: q names or more.
    item_ids: v names or more.
    available: bool [v or more, m] experts of the items, or None.
  """
  bad = real & ~np.isfinite(sim_qv)
  q, v = (int(x[0]) for x in np.nonzero(bad))
  text = (
    f'similarity of query {query_ids[q]!r} and item {item_ids[v]!r} is '
    f'{sim_qv[q, v]}; it has no rank ({bad.sum()} such scores in this block, '
    f'{bad.any(1).sum()} queries, {bad.any(0).sum()} items).'
  )
  if available is None or available[v].any():
    return (
      f'{text} Look for NaN in the weights (a diverged run?) and in the '
      'features of these two.'
    )
  empty = np.flatnonzero(~available.any(1))
  names = ', '.join(repr(item_ids[j]) for j in empty[:5])
  return (
    f'{text} Without any available expert: {names}'
    f'{", ..." if len(empty) > 5 else ""}, {len(empty)} from there on. Give '
    "them one, leave them out of the split, or set no_expert='last' to rank "
    'them behind all others.'
  )
