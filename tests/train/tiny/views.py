# SPDX-License-Identifier: Apache-2.0
"""Pairs of views of clips as frames, for a model with frozen networks."""

import numpy as np

FRAMES, SIDE, MIX = 4, 64, 5


class Pairs:
  """Random pixels."""

  def __init__(self, rows):
    rng = np.random.default_rng(0)
    clips = (rows, FRAMES, SIDE, SIDE, 3)
    self.rows = {
      'weak': rng.integers(0, 256, clips, dtype=np.uint8),
      'strong': rng.integers(0, 256, clips, dtype=np.uint8),
      'mix': rng.uniform(0.3, 0.7, (rows, MIX)).astype(np.float32),
    }
    self.ids = [f'v{i}' for i in range(rows)]
    self.spec = {
      **{k: (x.shape[1:], x.dtype.type) for k, x in self.rows.items()},
      '_mask': ((), np.bool_),
    }

  def __len__(self):
    return len(self.ids)

  def gather(self, index, seeds):
    del seeds
    batch = {k: x[index] for k, x in self.rows.items()}
    return {**batch, '_mask': index >= 0}


def make(view, rows=2):
  del view
  return Pairs(rows)
