# SPDX-License-Identifier: Apache-2.0
"""What programs get of copies: groups and scores as JSON values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidret_jax.tools import copy_groups


def member(one: copy_groups.Member, names: Sequence[str]) -> dict[str, Any]:
  """A member of a group; `names` are those of all videos."""
  through = None if one.through is None else names[one.through]
  return dict(
    video=names[one.number],
    score=one.score,
    as_query=one.back,
    as_target=one.forth,
    through=through,
  )


def by_query(
  names: Sequence[str], scores: np.ndarray, visited: np.ndarray | None
) -> dict[str, dict[str, float]]:
  """{query: {video: score}} of what was compared, best first.

  Args:
    names: of the videos.
    scores: float [n, n], queries are rows; NaN: a video is missing.
    visited: bool [n, n], what was compared; None: all.

  Returns:
    All videos; none is among those of itself.
  """
  out = {}
  for query, row in enumerate(scores):
    there = ~np.isnan(row)
    if visited is not None:
      there &= visited[query]
    there[query] = False
    order = np.flatnonzero(there)
    order = order[np.argsort(-row[order], kind='stable')]
    out[names[query]] = {names[i]: float(row[i]) for i in order}
  return out
