# SPDX-License-Identifier: Apache-2.0
"""Embeddings in a file, one item after another, read by item number.

All arrays of an item lie side by side, so that one read brings what a fine
score needs of it. Reads go past the memory map: pages of a map count as memory
of the process, and a search over many items would seem to need all of it.
"""

from collections.abc import Sequence
import os
from typing import Any
import zlib

import numpy as np

from vidret_jax.search import row_layout


class DamagedRows(OSError):
  """Bytes that are not what was written."""


class RowFile:
  """Rows in an open binary file; append some, then read any.

  Attributes:
    layout: of a row.
    rows: how many there are.
    resident: None; the place where `store.FineStore` has rows on the devices.
  """

  resident = None

  def __init__(
    self,
    file: Any,
    layout: row_layout.Layout,
    rows: int = 0,
    checks: np.ndarray | None = None,
  ):
    """Reads and writes an unbuffered file.

    Args:
      file: opened with `buffering=0`; rows begin at its start.
      layout: of a row.
      rows: how many rows it holds.
      checks: uint32 [rows], CRC-32 of each row, to be compared when read.
    """
    self.layout = layout
    self.rows = rows
    self._file = file
    self._checks = checks

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def append(self, leaves: Sequence[np.ndarray]) -> np.ndarray:
    """Writes rows behind the others; returns their CRC-32, uint32 [n]."""
    packed = row_layout.pack(leaves, self.layout)
    write_at(self._file, packed, self.rows * self.layout.row_bytes)
    self.rows += len(packed)
    return np.array([zlib.crc32(row) for row in packed], np.uint32)

  def take(self, rows: np.ndarray) -> dict[str, Any]:
    """Items by number: the dict of arrays [n, ...] in the types kept.

    Raises:
      IndexError: a number without a row.
      DamagedRows: what is read is not what was written.
    """
    rows = np.asarray(rows, np.int64)
    if rows.size and not (0 <= rows.min() and rows.max() < self.rows):
      raise IndexError(
        f'rows {rows.min()} to {rows.max()} of a file of {self.rows}'
      )
    layout, size = self.layout, self.layout.row_bytes
    parts = [_aligned(len(rows), b) for b in layout.leaf_bytes]
    self._read_ahead(rows)
    before = None
    for i, row in enumerate(rows.tolist()):
      place = [memoryview(part[i]) for part in parts]
      if row == before:
        for part in parts:
          part[i] = part[i - 1]
      else:
        found = os.preadv(self._file.fileno(), place, row * size)
        if found != size:
          raise DamagedRows(f'row {row} ends after {found} of {size} bytes')
        self._check(row, place)
      before = row
    return layout.tree(
      [
        part.reshape(-1).view(np.dtype(kept)).reshape(len(rows), *shape)
        for part, kept, shape in zip(parts, layout.kept, layout.shapes)
      ]
    )

  def _check(self, row, place):
    if self._checks is None:
      return
    found = 0
    for part in place:
      found = zlib.crc32(part, found)
    if found != self._checks[row]:
      raise DamagedRows(f'the checksum of row {row} differs')

  def _read_ahead(self, rows):
    """Tells the system what is wanted, so that a disk reads it in parallel."""
    if not hasattr(os, 'posix_fadvise') or len(rows) < 2:
      return
    size = self.layout.row_bytes
    for row in rows.tolist():
      os.posix_fadvise(
        self._file.fileno(), row * size, size, os.POSIX_FADV_WILLNEED
      )


def write_at(file: Any, data: Any, at: int) -> None:
  """Writes all bytes of an array or string at one place of a file."""
  data = memoryview(data).cast('B')
  while data:
    done = os.pwrite(file.fileno(), data, at)
    data, at = data[done:], at + done


def _aligned(n: int, width: int) -> np.ndarray:
  """uint8 [n, width], unset, from an address that JAX takes without a copy."""
  unit = 64
  raw = np.empty(n * width + unit, np.uint8)
  start = -raw.ctypes.data % unit
  return raw[start : start + n * width].reshape(n, width)
