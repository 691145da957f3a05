# SPDX-License-Identifier: Apache-2.0
"""A small problem for the two-stage evaluator, in whole numbers."""

import numpy as np

from tests.search import toy_two_stage as toy
from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import two_stage


class Arrays:
  """A source of rows of arrays."""

  def __init__(self, arrays, ids, **attributes):
    self.arrays = {}
    self.ids = tuple(ids)
    self.spec = {'_mask': ((), np.dtype(bool))}
    for name, x in arrays.items():
      self.add(name, x)
    self.__dict__.update(attributes)

  def __len__(self):
    return len(self.ids)

  def add(self, name, x):
    self.arrays[name] = x
    self.spec[name] = x.shape[1:], x.dtype

  def captions(self, i):
    return [f'about {self.ids[i]}']

  def ground_truth(self, items):
    return source_lib.GroundTruth(self.ids, items.ids, self.item)

  def gather(self, index, seeds):
    index = np.asarray(index)
    row = np.maximum(index, 0)
    return {'_mask': index >= 0, **{k: x[row] for k, x in self.arrays.items()}}


class Problem:
  """Whole numbers, so that most scores tie; every item has captions but one."""

  def __init__(self, q=37, v=17, seed=0, model=None):
    rng = np.random.default_rng(seed)
    self.model = model or toy.Tokens()
    queries, items = toy.draw(q, v, seed=seed, width=self.model.width)
    self.item = rng.permutation(np.arange(q) % (v - 1))
    self.queries = Arrays(
      queries,
      [f'q{i}' for i in range(q)],
      item=self.item,
      texts=[f'text {i}' for i in range(q)],
    )
    self.items = Arrays(items, [f'v{i}' for i in range(v)], videos=[None] * v)
    self.variables = toy.variables(self.model)
    q_emb, v_emb = toy.embed(self.model, queries, items)
    score = lambda m: np.asarray(  # noqa: E731
      self.model.apply(self.variables, q_emb, v_emb, method=m)
    )
    self.coarse, self.fine = score('score'), score('fine')

  def judge(self, **options):
    options = dict(count_costs=False) | options
    return two_stage.Evaluator(
      self.model,
      sharding.make_mesh(),
      queries=self.queries,
      items=self.items,
      **options,
    )
