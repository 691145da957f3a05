# SPDX-License-Identifier: Apache-2.0
"""Rows of features by owner, in named streams: in memory, or read from records.

An owner is a clip, a video or a query; each of its streams has some rows of one
width, at most a fixed number. Batches are padded with zeros.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import pathlib
import threading
from typing import Any, Protocol
import weakref

import numpy as np

from vidret_jax.data import records as packed_lib
from vidret_jax.data import store as records_store

CACHES = records_store.CACHES
_STEP = 64  # Records read at once.
_open = weakref.WeakValueDictionary()
_lock = threading.Lock()


class Rows(Protocol):
  """Rows of owners, by stream.

  Attributes:
    shapes: stream -> (n, d): n rows of an owner at most.
  """

  shapes: Mapping[str, tuple[int, int]]

  def read(
    self, owners: np.ndarray, spare: int = 0
  ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads owners.

    Args:
      owners: int64 [b]; -1 gives nothing.
      spare: more columns, of zeros, for the caller to fill.

    Returns:
      stream -> (float32 [b, n, d + spare], zeros after an owner's last row, and
      mask bool [b, n]).
    """


class Kept:
  """Rows in memory, end to end.

  Attributes:
    shapes: stream -> (n, d).
  """

  def __init__(
    self,
    rows: Iterable[Mapping[str, np.ndarray]],
    shapes: Mapping[str, tuple[int, int]],
    dtype=np.float32,
  ):
    """Takes stream -> float [<= n, d] of every owner; keeps them as `dtype`."""
    self.shapes = {stream: tuple(shape) for stream, shape in shapes.items()}
    self._packed = {
      stream: packed_lib.Packed(d, dtype)
      for stream, (_, d) in self.shapes.items()
    }
    for found in rows:
      for stream, packed in self._packed.items():
        packed.append(found[stream], [len(found[stream])])
    for packed in self._packed.values():
      packed.close()

  def read(
    self, owners: np.ndarray, spare: int = 0
  ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """See `Rows`."""
    out = {}
    for stream, packed in self._packed.items():
      spans = zip(*(x.tolist() for x in packed.spans(owners)), strict=True)
      rows = [packed.flat[first : first + count] for first, count in spans]
      out[stream] = _padded(rows, self.shapes[stream], spare)
    return out


class OnDisk:
  """Rows that are decoded when asked for, those of an owner once per batch.

  Attributes:
    shapes: stream -> (n, d).
  """

  def __init__(
    self,
    data: Any,
    ids: Sequence[str],
    shapes: Mapping[str, tuple[int, int]],
    folder: pathlib.Path,
  ):
    """Wraps records.

    Args:
      data: random access to decoded records {'id', <stream> [<= n, d], ...}.
      ids: of the owners, in order.
      shapes: stream -> (n, d).
      folder: of the records, for errors.
    """
    self.shapes = dict(shapes)
    self._data, self._ids, self._folder = data, ids, folder

  def rows(self, owners: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """Stream -> [<= n, d], of each of some owners.

    Raises:
      MissingRecords: damaged records.
    """
    try:
      found = self._data.__getitems__(list(owners))
    except Exception as error:
      raise records_store.MissingRecords(
        f'{self._folder}: records {owners[0]} and following cannot be read '
        f'({error}). The folder is damaged: delete it and rebuild it with '
        'python -m vidret_jax.tools.prepare'
      ) from error
    for owner, record in zip(owners, found, strict=True):
      self._check(owner, record)
    return [{stream: r[stream] for stream in self.shapes} for r in found]

  def _check(self, owner, record) -> None:
    name = record['id'].decode('utf-8')
    for stream, (limit, _) in self.shapes.items():
      count = len(record[stream])
      if name != self._ids[owner] or count > limit:
        raise records_store.MissingRecords(
          f'{self._folder}: record {owner} is of {name!r} with {count} rows of '
          f'{stream}, expected {self._ids[owner]!r} with at most {limit}. '
          'Delete the folder and run prepare again.'
        )

  def every(self) -> Iterator[dict[str, np.ndarray]]:
    """The rows of all owners in order."""
    count = len(self._ids)
    for start in range(0, count, _STEP):
      yield from self.rows(range(start, min(start + _STEP, count)))

  def read(
    self, owners: np.ndarray, spare: int = 0
  ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """See `Rows`."""
    owners = np.asarray(owners)
    valid = owners >= 0
    wanted, place = np.unique(owners[valid], return_inverse=True)
    found = self.rows(wanted.tolist()) if len(wanted) else []
    whose = np.full(len(owners), -1)
    whose[valid] = place
    out = {}
    for stream, shape in self.shapes.items():
      rows = [found[i][stream] if i >= 0 else () for i in whose.tolist()]
      out[stream] = _padded(rows, shape, spare)
    return out


def _padded(rows, shape, spare):
  limit, width = shape
  out = np.zeros((len(rows), limit, width + spare), np.float32)
  for i, found in enumerate(rows):
    if len(found):
      out[i, : len(found), :width] = found
  length = np.asarray([len(found) for found in rows], np.int64)
  return out, np.arange(limit) < length[:, None]


def open_rows(disk: OnDisk, cache: str | None) -> Rows:
  """Keeps rows in memory, or not.

  Args:
    disk: where they are.
    cache: 'ram' takes rows * d * 4 bytes, 'ram16' half of it, rounded to
      float16. None keeps nothing and decodes the owners of every batch.

  Raises:
    ValueError: an unknown cache.
    MissingRecords: damaged records.
  """
  if cache not in CACHES:
    raise ValueError(f'Unknown cache={cache!r}; choose from {CACHES}.')
  if cache is None:
    return disk
  dtype = np.float16 if cache == 'ram16' else np.float32
  return Kept(disk.every(), disk.shapes, dtype)


def shared(key: Any, build: Callable[[], Any]) -> Any:
  """What was built for a key and is still in use, or built now.

  Items, queries and pairs of a split would otherwise hold the same arrays.
  """
  with _lock:
    found = _open.get(key)
    if found is None:
      found = _open[key] = build()
    return found
