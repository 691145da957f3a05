# SPDX-License-Identifier: Apache-2.0
"""Encoded queries: on the devices as far as they fit, the rest in a file.

When a folder of videos is compared with itself, all of its regions are queries,
18 KB a frame: more than the memory of many a machine.
"""

import os
import tempfile
from typing import Any

import jax
from jax.sharding import NamedSharding
import numpy as np

from vidret_jax.search import rows


class Queries:
  """Trees of arrays by number; add them in order, then take any."""

  def __init__(self, budget: int, where: NamedSharding):
    """Holds nothing yet.

    Args:
      budget: bytes that stay on each device.
      where: of what is taken.
    """
    self._room, self._where = budget, where
    self._kept: list[Any] = []
    self._file: Any = None
    self._size = 0

  def add(self, emb: Any) -> None:
    """Adds a tree of arrays.

    Raises:
      OSError: the disk is full.
    """
    size = sum(x.nbytes for x in jax.tree.leaves(emb))
    if size <= self._room:
      self._room -= size
      self._kept.append(emb)
      return
    self._kept.append(jax.tree.map(self._write, emb))

  def __getitem__(self, number: int) -> Any:
    """The tree, on the devices."""
    emb = jax.tree.map(self._read, self._kept[number])
    return jax.device_put(emb, self._where)

  def _write(self, x):
    x = np.ascontiguousarray(x)
    try:
      if self._file is None:
        self._file = tempfile.TemporaryFile(
          prefix='vidret_queries_', buffering=0
        )
      rows.write_at(self._file, x.view(np.uint8).reshape(-1), self._size)
    except OSError as e:
      raise OSError(
        e.errno,
        f'{e.strerror}: queries need more than {self._size / 2**30:.2f} GiB in '
        f'{tempfile.gettempdir()}. Point TMPDIR to a disk with room, or raise '
        'query_bytes to keep them on the devices',
      ) from e
    place = _Place(self._size, x.shape, x.dtype)
    self._size += x.nbytes
    return place

  def _read(self, x):
    return x.read(self._file) if isinstance(x, _Place) else x


class _Place:
  """Where an array is in a file."""

  def __init__(self, start, shape, dtype):
    self.start, self.shape, self.dtype = start, shape, dtype

  def read(self, file) -> np.ndarray:
    """The array."""
    out = np.empty(self.shape, self.dtype)
    left, at = memoryview(out.view(np.uint8).reshape(-1)), self.start
    while left:
      done = os.preadv(file.fileno(), [left], at)
      if not done:
        raise OSError(f'the file of queries ends at {at}')
      left, at = left[done:], at + done
    return out
