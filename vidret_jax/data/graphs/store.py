# SPDX-License-Identifier: Apache-2.0
"""Features of clips: kept in memory, or read from records batch by batch."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from vidret_jax.data import records as packed_lib
from vidret_jax.data import store as records_store
from vidret_jax.data.graphs import records

CACHES = records_store.CACHES
_STEP = 64  # Records read at once.


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


class Kept:
  """Features in memory, end to end.

  Attributes:
    shape: (f, d) of a clip.
  """

  def __init__(
    self, rows: Iterable[np.ndarray], shape: tuple[int, int], dtype=np.float32
  ):
    """Takes float [n <= f, d] of every clip; keeps them as `dtype`."""
    self.shape = tuple(shape)
    self._rows = packed_lib.Packed(shape[1], dtype)
    for found in rows:
      self._rows.append(found, [len(found)])
    self._rows.close()

  def read(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `Clips`."""
    start, length = self._rows.spans(clips)
    return self._rows.padded(start, length, self.shape[0])


class OnDisk:
  """Features that are decoded when asked for.

  Attributes:
    shape: (f, d) of a clip.
  """

  def __init__(self, opened: records.Opened):
    self._opened = opened
    self.shape = (opened.max_frames, opened.width)

  def rows(self, clips: list[int]) -> list[np.ndarray]:
    """[n <= f, d] of each of some clips.

    Raises:
      MissingRecords: damaged records.
    """
    folder, ids = self._opened.folder, self._opened.table.ids
    try:
      found = self._opened.data.__getitems__(clips)
    except Exception as error:
      raise records_store.MissingRecords(
        f'{folder}: records {clips[0]} and following cannot be read ({error}). '
        'The folder is damaged: delete it and rebuild it with python -m '
        'vidret_jax.tools.prepare'
      ) from error
    for clip, record in zip(clips, found, strict=True):
      name = record['id'].decode('utf-8')
      if name != ids[clip] or len(record['features']) > self.shape[0]:
        raise records_store.MissingRecords(
          f'{folder}: record {clip} is of clip {name!r} with '
          f'{len(record["features"])} rows, expected {ids[clip]!r} with at '
          f'most {self.shape[0]}. Delete the folder and run prepare again.'
        )
    return [record['features'] for record in found]

  def every(self) -> Iterator[np.ndarray]:
    """The rows of all clips in order."""
    count = len(self._opened.table.ids)
    for start in range(0, count, _STEP):
      yield from self.rows(list(range(start, min(start + _STEP, count))))

  def read(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `Clips`."""
    frames, width = self.shape
    out = np.zeros((len(clips), frames, width), np.float32)
    length = np.zeros(len(clips), np.int64)
    valid = np.flatnonzero(clips >= 0)
    wanted, place = np.unique(clips[valid], return_inverse=True)
    rows = self.rows(wanted.tolist()) if len(wanted) else []
    for i, j in zip(valid.tolist(), place.tolist(), strict=True):
      out[i, : len(rows[j])], length[i] = rows[j], len(rows[j])
    return out, np.arange(frames) < length[:, None]


def open_clips(opened: records.Opened, cache: str | None) -> Clips:
  """Features of records.

  Args:
    opened: the records.
    cache: 'ram' takes rows * d * 4 bytes, 16.5 GB for 67,217 clips of 20 x 3072
      (EPIC-Kitchens-100) and 2.1 GB for 6,513 of 20 x 4096 (MSR-VTT, two
      streams); 'ram16' half of it, rounded to float16. None keeps nothing and
      decodes the clips of every batch.

  Raises:
    ValueError: an unknown cache.
    MissingRecords: damaged records.
  """
  if cache not in CACHES:
    raise ValueError(f'Unknown cache={cache!r}; choose from {CACHES}.')
  disk = OnDisk(opened)
  if cache is None:
    return disk
  dtype = np.float16 if cache == 'ram16' else np.float32
  return Kept(disk.every(), disk.shape, dtype)
