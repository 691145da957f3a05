# SPDX-License-Identifier: Apache-2.0
"""SplitMix64: well-spread numbers from plain ones, the same everywhere.

Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA
2014. Everything drawn for a row is a function of its seed, so the numbers must
not depend on a library's version.
"""

import numpy as np

_STRIDE = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
  """The next state, finalised: uint64 -> uint64, a bijection."""
  with np.errstate(over='ignore'):
    x = x + _STRIDE
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_seeds(seed: int, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
  """int64 [b] seeds that differ for each (seed, epoch, example)."""
  x = mix(np.full(index.shape, seed, np.uint64))
  x = mix(x ^ epoch.astype(np.uint64))
  x = mix(x ^ index.astype(np.uint64))
  # A non-negative int64 is a valid seed for numpy and TensorFlow alike.
  return (x >> np.uint64(1)).astype(np.int64)


def uniform(seeds: np.ndarray, stream) -> np.ndarray:
  """float64 [b] in [0, 1) from int64 seeds, one value per stream number."""
  with np.errstate(over='ignore'):
    state = np.asarray(seeds).astype(np.uint64)
    state = state + np.asarray(stream, np.uint64) * _STRIDE
  return (mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53
