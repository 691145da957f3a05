# SPDX-License-Identifier: Apache-2.0
"""Files of relevance matrices: rows are clips, columns are captions.

HDF5 with the dataset `rel_mat`, npy, or a pickle of an array, which is what
the original reads. Matrices grow with the square of a collection (MSR-VTT's
test split has 1.4 GB), so the first two are written row by row and read as
memory maps.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import pickle
from typing import Any

import numpy as np

from vidret_jax.data import hdf5_files, pickles

DATASET = 'rel_mat'
_NEXT = (
  'make it with python -m vidret_jax.tools.relevance, or give the file that '
  'belongs to this split'
)
SUFFIXES = ('.hdf5', '.h5', '.npy', '.pkl')


@contextlib.contextmanager
def create(path: str | os.PathLike, shape: tuple[int, int]) -> Iterator[Any]:
  """A matrix to be filled by rows; the file appears when all went well.

  Args:
    path: ends with .hdf5, .h5, .npy or .pkl (kept in memory until the end).
    shape: (v, q).

  Raises:
    ValueError: another ending.
  """
  path = pathlib.Path(path)
  if path.suffix not in SUFFIXES:
    raise ValueError(f'{path}: expected a name ending with {SUFFIXES}')
  partial = path.with_name(f'{path.name}.partial')
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with _WRITERS[path.suffix](partial, shape) as out:
      yield out
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def write(path: str | os.PathLike, relevance: np.ndarray) -> None:
  """Writes a matrix [v, q] as float64; see `create`."""
  with create(path, relevance.shape) as out:
    out[:] = relevance


@contextlib.contextmanager
def _hdf5(path, shape):
  import h5py

  with h5py.File(path, 'w') as file:
    # Contiguous, so that it can be mapped.
    yield file.create_dataset(DATASET, shape, np.float64)


@contextlib.contextmanager
def _npy(path, shape):
  if 0 in shape:  # Cannot be mapped.
    out = np.empty(shape)
    yield out
    with open(path, 'wb') as file:
      np.save(file, out)
    return
  out = np.lib.format.open_memmap(path, 'w+', np.float64, shape)
  yield out
  out.flush()


@contextlib.contextmanager
def _pkl(path, shape):
  out = np.empty(shape)
  yield out
  with open(path, 'wb') as file:
    pickle.dump(out, file, protocol=4)


_WRITERS = {'.hdf5': _hdf5, '.h5': _hdf5, '.npy': _npy, '.pkl': _pkl}


def read(
  path: str | os.PathLike, shape: tuple[int, int] | None = None
) -> np.ndarray:
  """Opens a matrix; the kind of file is told by its first bytes.

  Args:
    path: of any of the three kinds.
    shape: (v, q) that it must have.

  Returns:
    [v, q] of floats; a read-only memory map where the file allows it.

  Raises:
    FileNotFoundError: no such file.
    ValueError: damaged, not a matrix of floats, or of another shape.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such relevance matrix; {_NEXT}')
  with open(path, 'rb') as file:
    magic = file.read(8)
  if magic == b'\x89HDF\r\n\x1a\n':
    return _open_hdf5(path, shape)
  found = _open_npy(path) if magic[:6] == b'\x93NUMPY' else pickles.load(path)
  _check(path, found, shape)
  return found


def _check(path, found, shape):
  if not hasattr(found, 'dtype') or not hasattr(found, 'shape'):
    raise ValueError(
      f'{path}: holds {type(found).__name__}, expected a matrix; {_NEXT}'
    )
  if len(found.shape) != 2 or found.dtype.kind != 'f':
    raise ValueError(
      f'{path}: {found.dtype} {list(found.shape)}, expected a matrix of '
      f'floats, clips x captions; {_NEXT}'
    )
  if shape is not None and found.shape != tuple(shape):
    raise ValueError(
      f'{path}: {found.shape[0]} x {found.shape[1]}, but the split has '
      f'{shape[0]} clips and {shape[1]} captions; {_NEXT}'
    )


def _open_npy(path):
  try:
    return np.load(path, mmap_mode='r', allow_pickle=False)
  except (ValueError, EOFError, OSError) as error:
    raise ValueError(
      f'{path}: cannot be read ({error}); the file is damaged, fetch it again'
    ) from None


def _open_hdf5(path, shape):
  with hdf5_files.open_file(path) as file:
    item = hdf5_files.dataset(file, DATASET, path)
    _check(path, item, shape)
    start = item.id.get_offset()
    shape, dtype = item.shape, item.dtype
    if start is None or not dtype.isnative:  # In chunks, or of another machine.
      try:
        return item[()]
      except OSError as error:
        raise ValueError(
          f'{path}: cannot be read ({error}); the file is damaged, fetch it '
          'again'
        ) from None
  size = path.stat().st_size
  if start + shape[0] * shape[1] * dtype.itemsize > size:
    raise ValueError(
      f'{path}: {DATASET} is {dtype} {list(shape)} in a file of {size} bytes; '
      'the file is cut, fetch it again'
    )
  return np.memmap(path, dtype, 'r', start, shape)
