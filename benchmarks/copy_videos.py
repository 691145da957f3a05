# SPDX-License-Identifier: Apache-2.0
"""Made-up region features of videos, for the benchmarks of copy search."""

import numpy as np

# Distinct frames; videos are runs of them.
_POOL = 4096


class Videos:
  """Random unit vectors in runs from a pool; see `copy_reading.View`.

  Attributes:
    ids, lengths, regions, dim: of the videos.
  """

  def __init__(self, prefix, lengths, *, regions=9, dim=512, seed=0):
    self.ids = tuple(f'{prefix}{i}' for i in range(len(lengths)))
    self.lengths = np.asarray(lengths, np.int64)
    self.regions, self.dim = regions, dim
    rng = np.random.default_rng(seed)
    most = max(_POOL, int(self.lengths.max()) + 1)
    pool = rng.normal(size=(most, regions, dim)).astype(np.float32)
    self._pool = pool / np.linalg.norm(pool, axis=-1, keepdims=True)
    self._start = rng.integers(0, most - self.lengths)

  def read(self, i):
    start = self._start[i]
    return self._pool[start : start + self.lengths[i]]


def lengths(count, mean, *, spread=0.9, least=8, most=2048, seed=0):
  """Frames of videos, int64 [count]: log-normal with this mean.

  Args:
    count: videos.
    mean: frames of a video, nearly.
    spread: of the logarithm. No published collection was measured; user videos
      are spread about so far.
    least: shorter videos are repeated up to this.
    most: longer ones are cut.
    seed: of the draw.
  """
  rng = np.random.default_rng(seed)
  x = rng.lognormal(np.log(mean) - spread**2 / 2, spread, count)
  return np.clip(np.round(x), least, most).astype(np.int64)
