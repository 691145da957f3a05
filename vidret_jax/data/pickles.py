# SPDX-License-Identifier: Apache-2.0
"""Reads pickles of features without running what is inside them.

A pickle is a program. This reader admits what feature files are made of
(containers, strings, numbers, numpy arrays and the `ExpertStore` of the
Collaborative Experts code) and refuses every other global before it is
imported.
"""

import builtins
import codecs
import collections
from collections.abc import Callable
import pathlib
import pickle
from typing import Any, BinaryIO

import numpy as np

_CONTAINERS = ('set', 'frozenset', 'dict', 'list', 'tuple')
_SCALARS = ('str', 'int', 'float', 'complex', 'bool', 'bytes', 'bytearray')
_NUMPY_SCALARS = (
  *('bool_', 'int8', 'int16', 'int32', 'int64'),
  *('uint8', 'uint16', 'uint32', 'uint64'),
  *('float16', 'float32', 'float64', 'str_', 'bytes_', 'longlong'),
)


class UnsafePickle(ValueError):
  """A pickle that asks for something feature files do not need."""


class UnreadablePickle(ValueError):
  """A file that is not a whole pickle."""


def _admitted() -> dict[tuple[str, str], Any]:
  """(module, name) -> object, made anew for every file.

  A pickle can set attributes on the classes and functions it names; what one
  file did to them must not reach the next.
  """

  class ExpertStore:
    """The attributes of an array-backed feature store."""

  def encode(text, encoding):
    # Stands in for a function that would take any codec.
    if encoding not in ('latin1', 'latin-1'):
      raise pickle.UnpicklingError(f'codec {encoding!r}')
    return codecs.latin_1_encode(text)[0]

  def reconstruct(cls, base, state):
    # Protocols 0 and 1 make plain objects this way.
    if base is not object:
      raise pickle.UnpicklingError(f'base class {base!r}')
    del state
    return cls.__new__(cls)

  table = {('_codecs', 'encode'): encode}
  for module in ('builtins', '__builtin__'):
    for name in _CONTAINERS + _SCALARS + ('object',):
      table[module, name] = getattr(builtins, name)
    table[module, 'unicode'] = str
    table[module, 'long'] = int
  for module in ('copyreg', 'copy_reg'):
    table[module, '_reconstructor'] = reconstruct
  for name in ('OrderedDict', 'defaultdict'):
    table['collections', name] = getattr(collections, name)
  for name in ('ndarray', 'dtype', *_NUMPY_SCALARS):
    table['numpy', name] = getattr(np, name)
  core = np._core  # pylint: disable=protected-access
  for package in ('numpy.core', 'numpy._core'):
    for name in ('_reconstruct', 'scalar'):
      table[package + '.multiarray', name] = getattr(core.multiarray, name)
    table[package + '.numeric', '_frombuffer'] = core.numeric._frombuffer
  for module in (
    'datastructures',
    'utils.datastructures',
    'zsvision.zs_data_structures',
  ):
    table[module, 'ExpertStore'] = ExpertStore
  return table


class _Unpickler(pickle.Unpickler):
  """Finds only admitted globals."""

  def __init__(self, stream: BinaryIO, where: str):
    super().__init__(stream, encoding='latin1')
    self._where = where
    self._admitted = _admitted()

  def find_class(self, module: str, name: str) -> Callable[..., Any]:
    if (module, name) in self._admitted:
      return self._admitted[module, name]
    if name == 'ExpertStore':
      return self._admitted['datastructures', 'ExpertStore']
    raise UnsafePickle(
      f'{self._where}: the pickle asks for {module}.{name}. Feature files need '
      'only containers, numbers, numpy arrays and ExpertStore, so it was not '
      'loaded and nothing in it was run. If you trust its author, rewrite it '
      'as a dict of numpy arrays (or HDF5, see docs/data_formats.md).'
    )

  def persistent_load(self, pid: Any) -> Any:
    raise UnsafePickle(
      f'{self._where}: the pickle refers to an object outside itself '
      f'({str(pid)[:80]!r}). Expected a plain dict of features.'
    )


def load_stream(stream: BinaryIO, where: str) -> Any:
  """Reads one pickle from an open file.

  Args:
    stream: open at the start of the pickle.
    where: file name for errors.

  Raises:
    UnsafePickle: the pickle names a global that is not admitted.
    UnreadablePickle: the bytes are no complete pickle.
  """
  try:
    return _Unpickler(stream, where).load()
  except UnsafePickle:
    raise
  except Exception as error:  # A damaged pickle can raise almost anything.
    raise UnreadablePickle(
      f'{where}: cannot be read as a pickle '
      f'({type(error).__name__}: {str(error)[:200]}). Expected a whole file '
      'of features; found a damaged or cut one. Fetch it again and compare its '
      'size and checksum.'
    ) from error


def load(path: str | pathlib.Path) -> Any:
  """Reads a pickle file; see `load_stream` for its errors."""
  with open(path, 'rb', buffering=1 << 20) as stream:
    return load_stream(stream, str(path))


def load_npy(path: str | pathlib.Path) -> Any:
  """Reads a npy file; an object array goes through the same unpickler.

  Returns:
    An array, or the object inside a 0-d object array.
  """
  with open(path, 'rb') as stream:
    try:
      version = np.lib.format.read_magic(stream)
      read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
      }[version]
      shape, _, dtype = read(stream)
    except (ValueError, KeyError) as error:
      raise UnreadablePickle(
        f'{path}: not a npy file ({error}). Fetch it again.'
      ) from error
    if dtype.hasobject:
      value = load_stream(stream, str(path))
      return value.item() if shape == () else value
  return np.load(path, allow_pickle=False)
