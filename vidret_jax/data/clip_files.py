# SPDX-License-Identifier: Apache-2.0
"""HDF5 files of features that others made.

Plain datasets at the root, one per video or sentence, one row per clip, frame
or token, as the TVR release has them. Only one dataset is in memory at a time.
"""

from collections.abc import Collection, Sequence
import contextlib
import os
import pathlib

import numpy as np

from vidret_jax.data import hdf5_files

_MAX_SIZE = 1 << 28  # Numbers of one dataset; real ones have below 1e7.


class Rows:
  """An HDF5 file with a float [rows, width] dataset per name.

  Attributes:
    path: of the file.
    names: of the datasets, in the order of the file.
    width: of all rows.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    names: Collection[str] | None = None,
    companion: str = '',
    minimum: int = 1,
  ):
    """Opens a file and checks the shape of its datasets, not their numbers.

    Args:
      path: of the file.
      names: of the datasets that matter, where they are there; None: all.
      companion: ending of the keys that are no names, such as '-lengths'.
      minimum: rows that each must have.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no HDF5, empty, or a dataset that is not as expected.
    """
    self.path = pathlib.Path(path)
    if not self.path.is_file():
      raise FileNotFoundError(f'{path}: no such file of features.')
    self._stack = contextlib.ExitStack()
    self._file = self._stack.enter_context(hdf5_files.open_file(self.path))
    found = hdf5_files.names(self._file, self.path)
    keys = frozenset(found)
    self.names = tuple(
      key
      for key in found
      if (names is None or key in names)
      and not (
        companion
        and key.endswith(companion)
        and key.removesuffix(companion) in keys
      )
    )
    if names is None and not self.names:
      self.close()
      raise ValueError(
        f'{path}: no datasets; expected one per video, at the root of the file.'
      )
    self._known = frozenset(self.names)
    self.width = 0
    self._rows = {}
    try:
      for name in self.names:
        self._rows[name] = self._check(name, minimum)
    except ValueError:
      self.close()
      raise

  def _check(self, name, minimum):
    item = hdf5_files.dataset(self._file, name, self.path)
    shape = item.shape or ()
    if (
      item.dtype.kind != 'f'
      or len(shape) != 2
      or shape[0] < minimum
      or not shape[1]
      or item.size > _MAX_SIZE
    ):
      raise ValueError(
        f'{self.path}: {name!r} is {item.dtype} {list(shape)}, expected floats '
        f'[rows, width] with at least {minimum} rows. Extract it again.'
      )
    self.width = self.width or shape[1]
    if shape[1] != self.width:
      raise ValueError(
        f'{self.path}: {name!r} has width {shape[1]}, expected {self.width} as '
        f'{self.names[0]!r} has. Extract it again.'
      )
    return shape[0]

  def __contains__(self, name: str) -> bool:
    return name in self._known

  def count(self, name: str) -> int:
    """Rows of a dataset."""
    return self._rows[name]

  def read(self, name: str, stop: int | None = None) -> np.ndarray:
    """The first `stop` rows (default: all), float32 [rows, width].

    Raises:
      ValueError: NaN or Inf among them, or damaged.
    """
    value = np.asarray(self._numbers(name, stop), np.float32)
    if not np.isfinite(value).all():
      row = int(np.flatnonzero(~np.isfinite(value).all(-1))[0])
      raise ValueError(
        f'{self.path}: NaN or Inf in row {row} of {name!r}, expected finite '
        'numbers. Extract it again.'
      )
    return value

  def lengths(self, key: str, total: int) -> np.ndarray:
    """A companion with the rows of each sentence, int64 [sentences].

    Raises:
      ValueError: absent, no integers, negative, or with another sum.
    """
    item = hdf5_files.dataset(self._file, key, self.path)
    shape = item.shape or ()
    if item.dtype.kind not in 'iu' or len(shape) != 1 or item.size > _MAX_SIZE:
      raise ValueError(
        f'{self.path}: {key!r} is {item.dtype} {list(shape)}, expected '
        'integers [sentences]. Make the token features again.'
      )
    value = np.asarray(self._numbers(key, None), np.int64)
    if (value < 0).any() or value.sum() != total:
      raise ValueError(
        f'{self.path}: {key!r} adds up to {value.sum()} tokens (smallest '
        f'{value.min(initial=0)}), expected the {total} rows of the token '
        'features. Make both again.'
      )
    return value

  def _numbers(self, key, stop):
    try:
      return hdf5_files.dataset(self._file, key, self.path)[:stop]
    except (OSError, RuntimeError) as error:
      raise ValueError(
        f'{self.path}: {key!r} cannot be read ({str(error)[:200]}). Fetch the '
        'file again.'
      ) from None

  def close(self) -> None:
    """Closes the file."""
    self._stack.close()

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self.close()


def sources(files: Sequence[Rows]) -> dict[str, Rows]:
  """Name -> the file that has it.

  Raises:
    ValueError: two files have a name, or rows of different width.
  """
  found = {}
  for file in files:
    if file.width != files[0].width:
      raise ValueError(
        f'{file.path}: width {file.width}, expected {files[0].width} as '
        f'{files[0].path} has. Give features of one kind.'
      )
    for name in file.names:
      if name in found:
        raise ValueError(
          f'{file.path}: {name!r} is in {found[name].path}, too; expected each '
          'name once. Take it out of one of them.'
        )
      found[name] = file
  return found


def check_key(name: str, where: str) -> str:
  """Checks that HDF5 can have a dataset of that name at its root.

  Raises:
    ValueError: it cannot.
  """
  if (
    not name
    or name == '.'
    or any(c in '/\0' or '\ud800' <= c <= '\udfff' for c in name)
  ):
    raise ValueError(
      f'{where}: {name[:120]!r} cannot be a key of an HDF5 file; expected a '
      'name without "/". Rename it here and in the annotations.'
    )
  return name
