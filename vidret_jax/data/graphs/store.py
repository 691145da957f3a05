# SPDX-License-Identifier: Apache-2.0
"""Features of clips: kept in memory, or read from records batch by batch."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from vidret_jax.data import row_store
from vidret_jax.data.graphs import records

CACHES = row_store.CACHES
_STREAM = 'features'  # The only one of the records.


class Clips(Protocol):
  """Features of the clips of a table.

  Attributes:
    shape: (f, d) of a clip.
  """

  shape: tuple[int, int]

  def read(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reads clips.

    Args:
      clips: int64 [b], rows of the table; -1 gives nothing.

    Returns:
      (float32 [b, f, d], zeros after a clip's last row, and mask bool [b, f]).
    """


class Stored:
  """The one stream of rows in memory or on disk.

  Attributes:
    shape: (f, d) of a clip.
  """

  def __init__(self, rows: row_store.Rows):
    self.shape = tuple(rows.shapes[_STREAM])
    self._rows = rows

  def read(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `Clips`."""
    return self._rows.read(clips)[_STREAM]


def kept(
  rows: Iterable[np.ndarray], shape: tuple[int, int], dtype=np.float32
) -> Clips:
  """Features in memory, end to end.

  Args:
    rows: float [n <= f, d] of every clip.
    shape: (f, d).
    dtype: that they are kept in.
  """
  named = ({_STREAM: found} for found in rows)
  return Stored(row_store.Kept(named, {_STREAM: shape}, dtype))


def open_clips(opened: records.Opened, cache: str | None) -> Clips:
  """Features of records.

  Args:
    opened: the records.
    cache: see `row_store.open_rows`. 'ram' takes 16.5 GB for 67,217 clips of
      20 x 3072 (EPIC-Kitchens-100) and 2.1 GB for 6,513 of 20 x 4096 (MSR-VTT,
      two streams).

  Raises:
    ValueError: an unknown cache.
    MissingRecords: damaged records.
  """
  shapes = {_STREAM: (opened.max_frames, opened.width)}
  disk = row_store.OnDisk(opened.data, opened.table.ids, shapes, opened.folder)
  return Stored(row_store.open_rows(disk, cache))
