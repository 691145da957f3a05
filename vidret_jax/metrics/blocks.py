# SPDX-License-Identifier: Apache-2.0
"""Work on a large matrix, block by block, on all cores."""

from collections.abc import Callable, Sequence
import concurrent.futures
import os

import numpy as np

# Elements that one thread works on at a time, and bytes of a mapped matrix that
# are read at once where its columns are wanted.
BLOCK = 2**18
PANEL = 2**26
_LINE = 16  # Columns that are copied together: a cache line of float32.


def over(
  matrices: Sequence[np.ndarray],
  n: int,
  m: int,
  columns: bool,
  work: Callable[..., None],
) -> None:
  """Calls `work(slice, *parts)` for blocks of n rows (or columns), in threads.

  NumPy gives the interpreter free while it computes. What is under way is
  bounded: a block per thread, and a panel of a mapped matrix.
  """
  size = max(1, BLOCK // max(m, 1))
  if columns:
    size = -(-size // _LINE) * _LINE
  mapped = columns and any(isinstance(x, np.memmap) for x in matrices)
  panel = n
  if mapped:  # Columns of a file: long reads, then blocks from memory.
    width = max(x.dtype.itemsize for x in matrices) * max(m, 1)
    panel = max(size, PANEL // width // size * size)
  threads = len(os.sched_getaffinity(0))
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    for start in range(0, n, panel):
      end = min(start + panel, n)
      if columns:
        parts = [x[:, start:end] for x in matrices]
      else:
        parts = [x[start:end] for x in matrices]
      if mapped:
        parts = [np.array(x) for x in parts]
      jobs = []
      for first in range(start, end, size):
        last = min(first + size, end)
        here = slice(first - start, last - start)
        blocks = [x[:, here] if columns else x[here] for x in parts]
        jobs.append(pool.submit(work, slice(first, last), *blocks))
      for job in jobs:
        job.result()
