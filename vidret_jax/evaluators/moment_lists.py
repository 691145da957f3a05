# SPDX-License-Identifier: Apache-2.0
"""Lists of videos and moments, between files, the search and the measures."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from vidret_jax.evaluators import moment_files, moment_truth
from vidret_jax.metrics import moments as metrics
from vidret_jax.search import moments as search

LIST_SCORES = ('similarity', 'weight')


def of_found(
  found: search.Found, own: np.ndarray | None
) -> dict[str, metrics.Lists]:
  """What a search found, by task.

  Args:
    found: of all queries.
    own: int [q], the video of each query; for SVMR.
  """
  out = {}
  if found.items is not None:
    out['VCMR'] = metrics.Lists(
      found.items, found.items >= 0, found.spans, found.scores
    )
  if found.own_spans is not None:
    items = np.broadcast_to(own[:, None], found.own_scores.shape)
    out['SVMR'] = metrics.Lists(
      items, found.own_scores > 0, found.own_spans, found.own_scores
    )
  if found.videos is not None:
    out['VR'] = metrics.Lists(
      found.videos, found.videos >= 0, scores=found.video_scores
    )
  return out


def read(
  path: str | pathlib.Path,
  ids: Sequence[str],
  items: Any,
  *,
  count: int,
  alpha: float | None,
) -> tuple[np.ndarray, np.ndarray]:
  """Reads the VR lists of a file of predictions, to search these videos.

  Upstream's XML does so with `--external_inference_vr_res_path`.

  Args:
    path: of the file, see `moment_files`.
    ids: of the queries, all of which need a list.
    items: the view 'items' of the same data.
    count: how many videos of each list to take.
    alpha: scores count as exp(alpha * score); None: as they are.

  Returns:
    (numbers int32 [q, k] of rows of `items`, -1: none; weights float32 [q, k]),
    as `search.moments.find` takes them.

  Raises:
    ValueError: no such lists, other queries or videos, or scores that overflow.
  """
  content = moment_files.read(path, limit=count)
  if 'VR' not in content.tasks:
    raise ValueError(
      f'{path}: has lists for {", ".join(content.tasks)}, expected VR: videos '
      'for each query.'
    )
  content = content._replace(tasks={'VR': content.tasks['VR']})
  lists = moment_files.aligned(content, ids, str(path))['VR']
  names = np.asarray(items.numbers)
  order = np.argsort(names)
  place = np.searchsorted(names, lists.items, sorter=order)
  numbers = order[np.minimum(place, len(names) - 1)]
  strange = lists.valid & (names[numbers] != lists.items)
  if strange.any():
    some = np.unique(lists.items[strange]).tolist()
    raise ValueError(
      f'{path}, VR: {len(some)} of the listed videos are not in this split: '
      f'video_idx {moment_truth.a_few(some)}. Give lists of the same split.'
    )
  scores = np.where(lists.valid, lists.scores, 0).astype(np.float32)
  weights = scores
  if alpha is not None:
    with np.errstate(over='ignore'):
      weights = np.exp(np.float32(alpha) * scores)
  good = np.isfinite(weights) & (weights >= 0)
  if not good.all():
    q, k = np.argwhere(~good)[0].tolist()
    raise ValueError(
      f'{path}, VR, desc_id {ids[q]}: a score of {scores[q, k]:g} gives the '
      f'video a weight of {weights[q, k]:g}, expected a finite one from 0. '
      "Scores that are weights already need list_scores='weight', other large "
      'ones a smaller search.alpha.'
    )
  numbers = np.where(lists.valid, numbers, -1).astype(np.int32)
  return numbers, np.where(lists.valid, weights, 0)
