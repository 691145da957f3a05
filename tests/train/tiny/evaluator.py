# SPDX-License-Identifier: Apache-2.0
"""Recall at one over blocks, as small as an evaluator can be."""

import os

import jax
import numpy as np

from vidret_jax import config_lib, sharding
from vidret_jax.data import source as source_lib


class Evaluator:
  """Ranks every text against every video of a source."""

  def __init__(self, model, mesh, *, data, block=16, fail=False):
    data = dict(data)
    make = config_lib.find('data', data.pop('name'), 'make')
    self._source = make(view='pairs', **data)
    self._mesh, self._block, self._fail = mesh, block, fail

    def scores(variables, batch):
      q = model.apply(variables, batch, method='encode_query')
      v = model.apply(variables, batch, method='encode_item')
      return q['emb'], v['emb']

    self._encode = jax.jit(scores, out_shardings=sharding.replicated(mesh))

  def run(self, variables):
    if self._fail:
      raise ValueError('no such thing')
    parts = []
    for _, block in source_lib.blocks(
      self._source,
      self._block,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    ):
      block = sharding.put_batch(block, self._mesh)
      parts.append(sharding.fetch(self._encode(variables, block)))
    n = len(self._source)
    q, v = (np.concatenate(x)[:n] for x in zip(*parts))
    sim_qv = q @ v.T
    ranks = (sim_qv > np.diag(sim_qv)[:, None]).sum(1)
    return {
      't2v_R@1': 100 * float((ranks == 0).mean()),
      't2v_MnR': 1 + float(ranks.mean()),
    }

  def report(self, variables, folder):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, 'index.html'), 'w') as f:
      f.write(str(self.run(variables)))
