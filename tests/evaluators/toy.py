# SPDX-License-Identifier: Apache-2.0
"""A tiny CE network and expert features, drawn from a seed."""

import functools
import json
import pathlib
import sys

import jax
import numpy as np

from tests.evaluators.two_stage_problem import Problem
from tests.search import toy_moments
from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import (
  graded,
  mean_loss,
  moments,
  retrieval,
  two_stage_options,
)
from vidret_jax.models import ce

EXPERTS = (
  ('audio', dict(dim=5, max_tokens=3, clusters=2)),
  ('face', dict(dim=4)),
  ('scene.net', dict(dim=6)),
  ('scene.other', dict(dim=3)),
)
TEXT = dict(dim=7, max_tokens=4, clusters=2, ghosts=1)
NAMES = tuple(name for name, _ in EXPERTS)


class Items:
  """Videos with experts, some of them missing."""

  def __init__(self, n=23, seed=0, missing=0.3, videos=None, captions=None):
    rng = np.random.default_rng(seed)
    self.ids = tuple(f'clip{i}' for i in range(n))
    self.videos = videos or [None] * n
    self._captions = captions or [[f'about {i}', f'on {i}'] for i in range(n)]
    self.available = rng.random((n, len(NAMES))) >= missing
    self.available[:, 1] |= ~self.available.any(1)
    shape = {
      k: (d['max_tokens'],) if 'max_tokens' in d else () for k, d in EXPERTS
    }
    self.experts = {
      k: rng.normal(size=(n, *shape[k], d['dim'])).astype(np.float32)
      for k, d in EXPERTS
    }
    self.spec = {
      'experts': {k: (x.shape[1:], x.dtype) for k, x in self.experts.items()},
      'available': ((len(NAMES),), np.dtype(bool)),
      '_mask': ((), np.dtype(bool)),
    }

  def __len__(self):
    return len(self.ids)

  def captions(self, i):
    return self._captions[i]

  def gather(self, index, seeds):
    index = np.asarray(index)
    row, real = np.maximum(index, 0), index >= 0
    return {
      'experts': {k: x[row] for k, x in self.experts.items()},
      'available': self.available[row] & real[:, None],
      '_mask': real,
    }


class Queries:
  """One to four captions per video, in shuffled order."""

  def __init__(self, items, seed=1, leaky=False):
    rng = np.random.default_rng(seed)
    self.item = np.repeat(np.arange(len(items)), rng.integers(1, 5, len(items)))
    rng.shuffle(self.item)
    self.ids = tuple(f'{items.ids[v]}#{i}' for i, v in enumerate(self.item))
    self.texts = [f'query {i}' for i in range(len(self.ids))]
    self.text = rng.normal(size=(len(self.item), 4, 7)).astype(np.float32)
    self._items, self._leaky = items, leaky
    self.spec = {
      'text': ((4, 7), np.dtype(np.float32)),
      '_mask': ((), np.dtype(bool)),
    }

  def __len__(self):
    return len(self.ids)

  def ground_truth(self, items):
    # Half relevant: the items next to the right one.
    gap = np.abs(self.item[:, None] - np.arange(len(items.ids)))
    relevance = np.float32([1, 0.5, 0])[np.minimum(gap, 2)]
    return source_lib.GroundTruth(self.ids, items.ids, self.item, relevance)

  def gather(self, index, seeds):
    index = np.asarray(index)
    row = np.maximum(index, 0)
    batch = {'text': self.text[row], '_mask': index >= 0}
    if self._leaky:
      batch['available'] = self._items.available[self.item[row]]
    return batch


class Pairs:
  """One row per video: its experts and its first caption."""

  def __init__(self, items, queries):
    self._items, self._queries = items, queries
    self._first = np.array(
      [np.flatnonzero(queries.item == v)[0] for v in range(len(items))]
    )
    self.ids = items.ids
    self.spec = {**items.spec, **queries.spec}

  def __len__(self):
    return len(self.ids)

  def gather(self, index, seeds):
    index = np.asarray(index)
    query = np.where(index >= 0, self._first[np.maximum(index, 0)], -1)
    return {
      **self._queries.gather(query, seeds),
      **self._items.gather(index, seeds),
    }


def build(seed=0, **options):
  """(model, variables, queries, items) of a small problem."""
  leaky = options.get('availability') == 'legacy_2019'
  model = ce.make(experts=EXPERTS, text=TEXT, dim=8, **options)
  items = Items()
  queries = Queries(items, leaky=leaky)
  return model, _initial(model, leaky, seed), queries, items


@functools.cache
def _initial(model, leaky, seed):
  items, index = Items(), np.arange(4)
  batch = Pairs(items, Queries(items, leaky=leaky)).gather(index, index)
  init = functools.partial(model.init, step=0, train=False, method='loss')
  return jax.jit(init)(jax.random.key(seed), batch)


def two_stages(mesh, folder):
  """Results and ranks of two-stage evaluations; writes their pages."""
  p, out = Problem(), {}
  variables = jax.device_put(p.variables, sharding.replicated(mesh))
  for v2t in two_stage_options.V2T:
    for fine_bytes in (0, 10**6):
      judge = p.judge(
        k=4,
        v2t=v2t,
        query_block=16,
        item_block=8,
        bank_bytes=300,
        fine_bytes=fine_bytes,
        dual_softmax=2.0,
      )
      result = judge.run(variables)
      ranks = [x.tolist() for x in (judge.ranks.text, judge.ranks.video)]
      # Those with a softmax are not whole numbers.
      exact = {k: x for k, x in result.items() if not k.startswith('dual')}
      out[f'stages_{v2t}_{fine_bytes}'] = exact
      out[f'stages_{v2t}_{fine_bytes}_ranks'] = ranks
    judge.report(variables, folder / v2t)
  return out


def moments_in_videos(mesh, folder):
  """Results of a search for moments, and what it found; writes its page."""
  p = toy_moments.Problem()
  variables = jax.device_put(p.variables, sharding.replicated(mesh))
  judge = moments.Evaluator(
    p.model,
    mesh,
    queries=p.queries,
    items=p.items,
    search=dict(videos=4, alpha=3.0, keep=20, max_length=6, nms=0.5),
    query_block=16,
    item_block=8,
    bank_bytes=0,
    predictions='json',
  )
  result = judge.run(variables)
  judge.report(variables, folder)
  found = judge.found
  places = (found.videos, found.items, found.spans, found.own_spans)
  return {
    'moments': result,
    'moments_found': [x.tolist() for x in places],
    'moment_scores': [
      x.round(4).tolist() for x in (found.scores, found.own_scores)
    ],
  }


def main():
  """Evaluates on all devices of all processes; the first one writes."""
  sharding.start_processes()
  mesh = sharding.make_mesh()
  model, variables, queries, items = build()
  variables = jax.device_put(variables, sharding.replicated(mesh))
  pairs = Pairs(items, queries)
  out = {'devices': jax.device_count()}
  for v2t in ('best_caption', 'max_pool'):
    judge = retrieval.Evaluator(
      model,
      mesh,
      queries=queries,
      items=items,
      query_block=16,
      item_block=8,
      bank_bytes=2000,
      v2t=v2t,
      predictions=10,
    )
    out[v2t] = judge.run(variables)
    out[f'{v2t}_ranks'] = [
      x.tolist() for x in (judge.ranks.text, judge.ranks.video)
    ]
  judge.report(variables, sys.argv[1])
  judge = graded.Evaluator(
    model,
    mesh,
    queries=queries,
    items=items,
    query_block=16,
    item_block=8,
    bank_bytes=2000,
    score_bytes=0,
    predictions='npz',
  )
  out['graded'] = judge.run(variables)
  judge.report(variables, pathlib.Path(sys.argv[1]) / 'graded')
  out.update(two_stages(mesh, pathlib.Path(sys.argv[1])))
  out.update(moments_in_videos(mesh, pathlib.Path(sys.argv[1]) / 'moments'))
  out['loss'] = mean_loss.Evaluator(model, mesh, pairs=pairs, batch_size=8).run(
    variables
  )
  if jax.process_index() == 0:
    folder = pathlib.Path(sys.argv[1])
    (folder / 'numbers.json').write_text(json.dumps(out))


if __name__ == '__main__':
  main()
