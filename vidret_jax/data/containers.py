# SPDX-License-Identifier: Apache-2.0
"""Containers of features: pickled dicts and ExpertStores, npy objects, HDF5.

All become a mapping of video id to an array, a list of arrays, or NaN where
the feature is missing.
"""

from collections.abc import Iterable, Mapping
import math
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import pickles

HDF5 = ('.h5', '.hdf5', '.hickle', '.hkl')
SUFFIXES = ('.pickle', '.pkl', '.pckl', '.pk', '.npy', *HDF5)


def open_features(path: str | pathlib.Path) -> Mapping[str, Any]:
  """Opens a container of features by its suffix.

  Returns:
    Mapping video id -> array, list of arrays, or NaN when missing.

  Raises:
    ValueError: a file that is no such container.
  """
  path = pathlib.Path(path)
  if path.suffix in HDF5:
    return _Hdf5(path)
  value = (
    pickles.load_npy(path) if path.suffix == '.npy' else pickles.load(path)
  )
  if hasattr(value, 'store') and hasattr(value, 'keys'):
    return _Store(value, path)
  if not isinstance(value, Mapping):
    raise ValueError(
      f'{path}: expected a mapping of video id to features, found '
      f'{type(value).__name__}. Save a dict, or HDF5 with one dataset per id.'
    )
  # Packs written by Python 2 may have bytes for keys.
  return {
    key.decode('latin1') if isinstance(key, bytes) else key: item
    for key, item in value.items()
  }


class _Store(Mapping):
  """An ExpertStore: one row per id of a matrix."""

  def __init__(self, store, path):
    self._rows = np.asarray(store.store)
    self._missing = set(getattr(store, 'missing', ()) or ())
    keys = [str(key) for key in store.keys]
    places = getattr(store, 'keymap', None) or dict(zip(keys, range(len(keys))))
    self._place = {key: int(places[key]) for key in keys if key in places}
    if self._rows.ndim != 2 or any(
      not 0 <= i < len(self._rows) for i in self._place.values()
    ):
      raise ValueError(
        f'{path}: ExpertStore of shape {self._rows.shape} does not hold a row '
        f'for each of its {len(keys)} keys. Fetch the file again.'
      )

  def __getitem__(self, key):
    if key in self._missing:
      return math.nan
    return self._rows[self._place[key]]

  def __contains__(self, key):
    return key in self._place or key in self._missing

  def __iter__(self):
    return iter(self._place)

  def __len__(self):
    return len(self._place)


class _Hdf5(Mapping):
  """One dataset per id; read when asked for, so memory stays small.

  A scalar NaN is a missing expert. A group of datasets is a list, in the order
  of the numbers that name them. The outer group and the quoted keys of hickle 5
  are understood.
  """

  def __init__(self, path):
    import h5py

    try:
      self._file = h5py.File(path, 'r')
    except OSError as error:
      raise ValueError(
        f'{path}: cannot be read as HDF5 ({error}). Fetch it again.'
      ) from error
    root = self._file
    if 'hickle_types_table' in root and 'data' in root:
      root = root['data']
    self._root = root
    self._names = {name.strip('\'"'): name for name in root}

  def __getitem__(self, key):
    return _hdf5_value(self._root[self._names[key]])

  def __contains__(self, key):
    return key in self._names

  def __iter__(self):
    return iter(self._names)

  def __len__(self):
    return len(self._names)


def _hdf5_value(node):
  import h5py

  if isinstance(node, h5py.Dataset):
    value = node[()]
    return float(value) if node.shape == () else value
  children = sorted(node, key=_number)
  return [_hdf5_value(node[name]) for name in children]


def _number(name: str) -> tuple[int, str]:
  digits = ''.join(c for c in name if c.isdigit())
  return (int(digits) if digits else 0, name)


def is_missing(value: Any) -> bool:
  """Whether a value is the packs' mark of a missing expert."""
  return isinstance(value, float) and math.isnan(value)


def look_up(
  files: Iterable[tuple[pathlib.Path, Mapping[str, Any]]], video: str
) -> tuple[pathlib.Path, Any]:
  """First value for a video among several files.

  Raises:
    ValueError: no file has it.
  """
  files = list(files)
  for path, container in files:
    if video in container:
      return path, container[video]
  names = ', '.join(str(path) for path, _ in files)
  known = next((key for _, c in files for key in c), None)
  raise ValueError(
    f'{names}: no entry for video {video!r} (the file has, for example, '
    f'{known!r}). Add it, or take the video off the list.'
  )
