# SPDX-License-Identifier: Apache-2.0
"""Pairs of vectors made from a seed, with the faults a test asks for."""

import numpy as np


class Pairs:
  """Video vectors and, seen through a fixed map with noise, their texts."""

  def __init__(self, rows, seed, nan_row=None, fail_row=None):
    rng = np.random.default_rng(seed)
    self.video = rng.normal(size=(rows, 6)).astype(np.float32)
    turn = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    self.text = self.video @ turn
    self.ids = [f'v{i}' for i in range(rows)]
    self.fail_row = fail_row
    if nan_row is not None:
      self.text[nan_row] = np.nan
    self.spec = {
      'text': ((5,), np.float32),
      'video': ((6,), np.float32),
      '_mask': ((), np.bool_),
    }

  def __len__(self):
    return len(self.ids)

  def gather(self, index, seeds):
    if self.fail_row is not None and self.fail_row in index:
      raise OSError(f'record {self.fail_row} cannot be read')
    mask = index >= 0
    noise = np.stack(
      [np.random.default_rng(s).normal(size=5) for s in seeds]
    ).astype(np.float32)
    return {
      'text': np.where(mask[:, None], self.text[index] + 0.1 * noise, 0),
      'video': np.where(mask[:, None], self.video[index], 0),
      '_mask': mask,
    }


def make(view, rows=40, seed=0, nan_row=None, fail_row=None):
  del view
  return Pairs(rows, seed, nan_row, fail_row)
