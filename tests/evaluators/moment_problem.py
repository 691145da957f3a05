# SPDX-License-Identifier: Apache-2.0
"""A small set of annotations with predictions for it."""

import json

import numpy as np

from vidret_jax.metrics import moments

VIDEO2IDX = {'a': 7, 'b': 19_614, 'é c': 3}
NUMBERS = np.array(list(VIDEO2IDX.values()))


def rows(q=6):
  """Annotation rows."""
  names = list(VIDEO2IDX)
  return [
    dict(
      desc_id=100 + i,
      desc=f'query "{i}" é ',
      vid_name=names[i % 3],
      ts=[i, i + 4.5],
      type=moments.KINDS[i % 3],
    )
    for i in range(q)
  ]


def lists(q=6, n=5, seed=0):
  """Task -> lists; `items` are positions in `VIDEO2IDX`."""
  rng = np.random.default_rng(seed)
  out = {}
  for task in moments.TASKS:
    start = rng.random((q, n), np.float32) * 10
    scores = -np.sort(-(rng.random((q, n), np.float32) ** 9), axis=1)
    out[task] = moments.Lists(
      items=rng.integers(0, 3, (q, n)),
      valid=rng.random((q, n)) < 0.8,
      spans=None if task == 'VR' else np.stack([start, start + 3], -1),
      scores=scores,
    )
  return out


def content(q=6):
  """A submission as plain objects."""
  entry = [[7, 0.5, 4.5, 0.9], [3, 1, 2, 0.5]]
  entries = [
    dict(desc_id=row['desc_id'], desc='', predictions=[list(x) for x in entry])
    for row in rows(q)
  ]
  return dict(video2idx=dict(VIDEO2IDX), VCMR=entries)


def write_rows(path, some=None):
  """Annotations as a file, no newline at its end, as upstream's are."""
  lines = [json.dumps(row) for row in (some or rows())]
  path.write_text('\n'.join(lines))
  return path
