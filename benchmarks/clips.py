# SPDX-License-Identifier: Apache-2.0
"""Videos as sequences of clips at TVR's sizes, with random features.

Lengths matter: a video of TVR has 51 clips on average and is padded to 128.
"""

import numpy as np

from benchmarks import collection

# Clips of the 39 videos of TVR's validation split whose annotations are among
# the stored reference numbers: those of a minute and those of a minute and a
# half. One video in 180 is longer than 100 clips (97 of 17,435 for training).
_CLIPS = (
  *([41] * 8 + [42, 43, 43, 44, 44, 45, 50, 55, 55, 57, 58, 59]),
  *([60] * 4 + [61] * 5 + [62] * 5 + [63, 63, 64, 66, 68]),
)
_LONG = 180
_WORDS = (8, 24)  # Tokens of a sentence, from, to.


class Clips(collection.Drawn):
  """Random rows of one of the views of a dataset of moments.

  Attributes:
    numbers: of the rows.
    durations: seconds of the videos.
    clip_seconds: of a clip.
  """

  clip_seconds = 1.5

  def __init__(self, ids, spec, seed=0):
    super().__init__(ids, spec, seed=seed)
    self.numbers = np.arange(len(self.ids))
    rng = np.random.default_rng(seed)
    self._clips = rng.choice(_CLIPS, len(self.ids))
    long = rng.random(len(self.ids)) < 1 / _LONG
    self._clips[long] = rng.integers(100, 129, long.sum())
    self._words = rng.integers(*_WORDS, len(self.ids))
    self._start = rng.random(len(self.ids))
    self.durations = self._clips * self.clip_seconds

  def gather(self, index, seeds):
    batch = super().gather(index, seeds)
    here = np.maximum(np.asarray(index), 0)
    clips = self._clips[here]
    if 'query' in batch:
      batch['query_mask'] = (
        np.arange(batch['query'].shape[1]) < self._words[here, None]
      )
      batch['query'] *= batch['query_mask'][..., None] * 768**-0.5
    if 'clip_mask' in batch:
      batch['clip_mask'] = (
        np.arange(batch['clip_mask'].shape[1]) < clips[:, None]
      )
      for name in {'video', 'subtitle'} & set(batch):
        width = batch[name].shape[-1]
        batch[name] *= batch['clip_mask'][..., None] * width**-0.5
    if 'span' in batch:
      start = (self._start[here] * (clips - 4)).astype(np.int32)
      batch['span'] = np.stack([start, start + 4], 1)
    return batch


def views(config, videos, queries):
  """(queries, items, number of each query's video) of a split."""
  whole = collection.SPECS['reloclnet'](None, config)
  own = np.arange(queries) * videos // queries
  asked = {k: whole[k] for k in ('query', 'query_mask', '_mask')}
  shown = {
    k: x
    for k, x in whole.items()
    if k in ('clip_mask', 'video', 'subtitle', '_mask')
  }
  return (
    Clips([f'v{v}#{i}' for i, v in enumerate(own)], asked, seed=2),
    Clips([f'v{v}' for v in range(videos)], shown, seed=1),
    own,
  )
