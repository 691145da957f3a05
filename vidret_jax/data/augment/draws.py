# SPDX-License-Identifier: Apache-2.0
"""Random generators of an example: functions of its seed and of a purpose.

`numpy.random.RandomState` is used throughout: its numbers never change between
versions of NumPy, and the original draws from it too.
"""

import numpy as np

# Purposes; those of single frames come last, as there are many.
LOAD, WEAK_TIME, STRONG_TIME, WEAK, STRONG = range(5)
NOISE, FRAME = 1 << 20, 1 << 30


def generator(seed: int, purpose: int) -> np.random.RandomState:
  """Independent generators for different seeds or purposes.

  Args:
    seed: of the example, int64.
    purpose: one of this module's numbers, plus the frame's where there is one.
  """
  key = np.array([seed, purpose], np.int64).astype(np.uint64)
  return np.random.RandomState(np.random.Philox(key=key))
