# SPDX-License-Identifier: Apache-2.0
"""Freed memory really leaves the process."""

import subprocess
import sys

import pytest

CODE = """
import pathlib, resource
import numpy as np
from vidret_jax.search import memory

def resident():
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize()

# Small arrays come from the heap, and one that is kept pins its top.
held = [np.ones(2**13) for _ in range(2000)]
last = held[-1]
del held
full = resident()
assert memory.give_back()
assert resident() < full - 50e6, (full, resident())
"""


@pytest.mark.skipif(
  not sys.platform.startswith('linux'), reason='glibc and /proc'
)
def test_free_memory_is_given_back():
  done = subprocess.run(
    [sys.executable, '-c', CODE], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
