# SPDX-License-Identifier: Apache-2.0
"""Captions of a vocabulary whose size the source tells, and clip features."""

import numpy as np

WORDS, FRAMES, WIDTH = 4, 2, 7


class Pairs:
  """Random pairs of word ids and features."""

  def __init__(self, rows, vocabulary, width, tell):
    rng = np.random.default_rng(0)
    self.words = rng.integers(vocabulary, size=(rows, WORDS), dtype=np.int32)
    self.features = rng.normal(size=(rows, FRAMES, width)).astype(np.float32)
    self.ids = [f'v{i}' for i in range(rows)]
    self.sizes = {'num_words': vocabulary} if tell else {}
    self.spec = {
      'words': ((WORDS,), np.int32),
      'word_mask': ((WORDS,), np.bool_),
      'features': ((FRAMES, width), np.float32),
      'feature_mask': ((FRAMES,), np.bool_),
      '_mask': ((), np.bool_),
    }

  def __len__(self):
    return len(self.ids)

  def gather(self, index, seeds):
    del seeds
    mask = index >= 0
    return {
      'words': self.words[index],
      'word_mask': np.ones((len(index), WORDS), bool),
      'features': self.features[index],
      'feature_mask': np.ones((len(index), FRAMES), bool),
      '_mask': mask,
    }


def make(view, rows=8, vocabulary=9, width=WIDTH, tell=True):
  del view
  return Pairs(rows, vocabulary, width, tell)
