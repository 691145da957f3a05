# SPDX-License-Identifier: Apache-2.0
"""A corpus whose scores and logits are drawn, and its decoding in plain numpy.

The system looks everything up, so a search can be compared with a sort of all
L x L cells of all videos.
"""

import jax.numpy as jnp
import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.models import base


class Lookup(base.Retriever):
  """Scores and logits of numbered queries and videos."""

  def encode_query(self, batch, *, train=False):
    return {'number': batch['number']}

  def encode_item(self, batch, *, train=False):
    return {'number': batch['number'], 'mask': batch['clip_mask']}

  def _of(self, name, q, v):
    table = self.get_variable('params', name)
    return table[q['number'][:, None], v['number'][None]]

  def score(self, q, v):
    return self._of('score', q, v)

  def similarity(self, q, v):
    # Room for both logits.
    start, end = (self._of(name, q, v) for name in ('start', 'end'))
    return jnp.concatenate([start, end], -1)

  def boundaries(self, sim, mask):
    start, end = jnp.split(sim, 2, -1)
    return tuple(jnp.where(mask, x, -1e10) for x in (start, end))


class _Numbered:
  def __len__(self):
    return len(self.ids)

  def gather(self, index, seeds):
    index = np.asarray(index)
    out = {'number': np.maximum(index, 0).astype(np.int32), '_mask': index >= 0}
    if hasattr(self, 'mask'):
      out['clip_mask'] = self.mask[out['number']] & out['_mask'][:, None]
    return out


class Items(_Numbered):
  """Videos of given numbers of clips."""

  clip_seconds = 1.5

  def __init__(self, clips, length):
    n = len(clips)
    self.ids = tuple(f'clip_{i}' for i in range(n))
    self.numbers = np.arange(n) + 700
    self.durations = np.asarray(clips) * self.clip_seconds - 0.3
    self.mask = np.arange(length) < np.asarray(clips)[:, None]
    self.videos = [None] * n
    self.spec = {
      'number': ((), np.dtype(np.int32)),
      'clip_mask': ((length,), np.dtype(bool)),
      '_mask': ((), np.dtype(bool)),
    }

  def captions(self, i):
    return [f'about {i}']


class Queries(_Numbered):
  """Sentences about known moments, or about unknown ones."""

  spec = {'number': ((), np.dtype(np.int32)), '_mask': ((), np.dtype(bool))}

  def __init__(self, own, items, answered=True, seed=0):
    rng = np.random.default_rng(seed)
    n = len(own)
    self.numbers = np.arange(n) * 3 + 10
    self.ids = tuple(map(str, self.numbers))
    self.texts = [f'what happens in {i}' for i in range(n)]
    self.kinds = tuple(np.array(('v', 't', 'vt'))[rng.integers(0, 3, n)])
    self.answered, self.own = answered, np.asarray(own)
    start = rng.random(n) * 0.5 * items.durations[self.own]
    self.spans = np.stack([start, start * 2 + 1], 1).round(2)
    self.rows = [
      {'desc_id': int(i), 'desc': text}
      for i, text in zip(self.numbers, self.texts)
    ]
    if answered:
      for row, v, kind, span in zip(
        self.rows, self.own, self.kinds, self.spans
      ):
        row |= dict(
          vid_name=items.ids[v],
          type=str(kind),
          ts=span.tolist(),
          duration=float(items.durations[v]),
        )

  def ground_truth(self, items):
    if not self.answered:
      raise ValueError('this split has no answers')
    return source_lib.GroundTruth(
      self.ids, items.ids, self.own, spans=self.spans
    )


class Problem:
  """Queries, a corpus, and a system that knows them.

  Attributes:
    clips: int [v], how long videos are.
  """

  def __init__(self, queries=19, clips=(9, 1, 20, 13, 2, 20, 5), seed=0):
    rng = np.random.default_rng(seed)
    length, v = max(clips), len(clips)
    self.clips, self.length = np.array(clips), length
    self.items = Items(clips, length)
    self.queries = Queries(rng.integers(0, v, queries), self.items)
    self.params = {
      'score': rng.uniform(0, 0.3, (queries, v)).astype(np.float32),
      'start': rng.normal(0, 2, (queries, v, length)).astype(np.float32),
      'end': rng.normal(0, 2, (queries, v, length)).astype(np.float32),
    }
    self.model, self.variables = Lookup(), {'params': self.params}

  def cells(self, q, v, options, weight=1.0):
    """[(score, start, end)] of all pairs of clips that are a moment."""
    n = self.clips[v]
    start, end = (
      np.exp(x - x.max()) / np.exp(x - x.max()).sum()
      for x in (self.params[name][q, v, :n] for name in ('start', 'end'))
    )
    return [
      (start[s] * np.float32(weight) * end[e], s, e)
      for s in range(n)
      for e in range(n)
      if options.min_length <= e - s < options.max_length
      and s % options.grid == e % options.grid == 0
    ]

  def expected(self, q, options):
    """(videos, weights, rows (video, start, end, score), own rows): lists."""
    scores = self.params['score'][q]
    videos = np.argsort(-scores, kind='stable')[: options.videos]
    weights = np.exp(np.float32(options.alpha) * scores[videos])
    rows = []
    for v, weight in zip(videos, weights):
      rows += [(v, s, e, p) for p, s, e in self.cells(q, v, options, weight)]
    own = self.queries.own[q]
    mine = [(own, s, e, p) for p, s, e in self.cells(q, own, options)]
    both = (self._best(x, options) for x in (rows, mine))
    return videos, weights, *both

  def _best(self, rows, o):
    seconds = self.items.clip_seconds
    rows = sorted(rows, key=lambda row: -row[3])[: o.before_nms]
    rows = [
      (v, s * seconds, (e + o.end_offset) * seconds, p) for v, s, e, p in rows
    ]
    if o.nms is not None:
      rows = greedy(rows, o.nms)
    return rows[: o.keep]


def iou(a, b):
  """Overlap of two (start, end) in parts of their hull."""
  hull = max(a[1], b[1]) - min(a[0], b[0])
  shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
  return shared / hull if hull else 0


def greedy(rows, threshold):
  """Rows (group, start, end, ...), best first, that no better one excludes."""
  stays = []
  for row in rows:
    if all(x[0] != row[0] or iou(x[1:3], row[1:3]) <= threshold for x in stays):
      stays.append(row)
  return stays
