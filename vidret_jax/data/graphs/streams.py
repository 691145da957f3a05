# SPDX-License-Identifier: Apache-2.0
"""Streams of clip features: HDF5 files with one dataset per clip."""

from collections.abc import Sequence
import pathlib

import numpy as np

from vidret_jax.data import hdf5_files
from vidret_jax.data.graphs import files

_MAX_SIZE = 1 << 28  # Numbers of one clip; the largest real ones have 1e6.


class Stream:
  """One file of features, opened at the first use and kept open.

  Attributes:
    path: of the file.
    width: d, features of a frame; taken from the first clip.
  """

  def __init__(self, path: pathlib.Path, names: Sequence[str]):
    """Checks the shape of every clip without reading it.

    Args:
      path: of the file.
      names: clips that it has to hold.

    Raises:
      files.BadFile: a clip is absent or not float (t, d) or (1, t, d) with the
        same d for all.
    """
    self.path = path
    self.width = None
    self._file = None
    keys = {}
    for name in names:
      other = keys.setdefault(_key(name), name)
      if other != name:
        raise files.BadFile(
          f'{path}: the clips {other!r} and {name!r} have the same key '
          f'{_key(name)!r}. Rename one of them.'
        )
      shape = self._dataset(name).shape
      if self.width is None:
        self.width = shape[-1]
      elif shape[-1] != self.width:
        raise files.BadFile(
          f'{path}: features of clip {name!r} have width {shape[-1]}, expected '
          f'{self.width} as clip {names[0]!r} has. Extract them again.'
        )

  def read(self, name: str) -> np.ndarray:
    """Features of a clip.

    Returns:
      float32 [t, d].

    Raises:
      files.BadFile: NaN or Inf among them, or damaged.
    """
    try:
      value = np.asarray(self._dataset(name)[()], np.float32)
    except OSError as error:
      raise files.BadFile(
        f'{self.path}: clip {name!r} cannot be read ({str(error)[:200]}). '
        'Fetch the file again.'
      ) from None
    value = value[0] if value.ndim == 3 else value
    if not np.isfinite(value).all():
      raise files.BadFile(
        f'{self.path}: NaN or Inf in the features of clip {name!r}, expected '
        'finite numbers. Extract them again.'
      )
    return value

  def _dataset(self, name):
    if self._file is None:
      self._file = hdf5_files.opened(self.path)
    found = hdf5_files.dataset(self._file, _key(name), self.path)
    shape = found.shape or ()
    if (
      found.dtype.kind != 'f'
      or len(shape) not in (2, 3)
      or (len(shape) == 3 and shape[0] != 1)
      or not all(shape)
      or found.size > _MAX_SIZE
    ):
      raise files.BadFile(
        f'{self.path}: features of clip {name!r} are {found.dtype} {shape}, '
        'expected floats (frames, width) or (1, frames, width) with at least '
        'one frame. Extract them again.'
      )
    return found

  def __getstate__(self):
    return {**self.__dict__, '_file': None}  # Processes open it themselves.


def _key(name):
  return name.replace('/', '_')
