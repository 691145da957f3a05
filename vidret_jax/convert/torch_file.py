# SPDX-License-Identifier: Apache-2.0
"""Reads `.pth` files without PyTorch and without running what they contain.

Both serialisations are understood: the stream of PyTorch before 1.6 and the
zip archive since. A pickle can name any function of any installed module; this
reader resolves the dozen names that rebuild arrays to code of its own, the
dict with attributes of `easydict` and the options of `argparse` to plain dicts,
and every other name to an inert `Bag` that keeps the arguments and attributes.
"""

from collections import OrderedDict
import io
import math
import os
import pickle
import pickletools
import struct
import zipfile

import ml_dtypes
import numpy as np

# Written by torch.save before the object, and checked when read.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

STORAGES = {
  'FloatStorage': np.dtype('<f4'),
  'DoubleStorage': np.dtype('<f8'),
  'HalfStorage': np.dtype('<f2'),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
  'ShortStorage': np.dtype('<i2'),
  'CharStorage': np.dtype('i1'),
  'ByteStorage': np.dtype('u1'),
  'BoolStorage': np.dtype('?'),
  'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
}


class TorchFileError(ValueError):
  """Not a readable torch file: truncated, of another kind, or malformed."""


class Bag:
  """An object of a class that is not imported: its name and attributes."""

  module = ''
  name = ''

  def __new__(cls, *args, **kwargs):
    # Pickles of protocol 2 and later make objects without __init__.
    bag = super().__new__(cls)
    bag.args, bag.kwargs = args, kwargs
    bag.items = []
    return bag

  def __init__(self, *args, **kwargs):
    pass

  def __setstate__(self, state):
    if isinstance(state, tuple) and len(state) == 2:
      state = {**(state[0] or {}), **(state[1] or {})}
    if isinstance(state, dict):
      self.__dict__.update({str(k): v for k, v in state.items()})
    else:
      self.__dict__['state'] = state

  def append(self, item):
    self.items.append(item)

  def extend(self, items):
    self.items.extend(items)

  def __setitem__(self, key, value):
    self.items.append((key, value))

  def __hash__(self):
    return id(self)

  def __repr__(self):
    return f'<{self.module}.{self.name}, not imported>'


class EasyDict(dict):
  """Stands in for `easydict.EasyDict`, whose attributes are its items.

  `torch_write` writes it under the name of the original.
  """

  def __setstate__(self, state):
    """Ignores the attributes: they repeat the items."""


class Namespace(dict):
  """Stands in for `argparse.Namespace`: its attributes are our items.

  `torch_write` writes it under the name of the original.
  """

  def __setstate__(self, state):
    if not isinstance(state, dict):
      raise TorchFileError('an argparse.Namespace without attributes')
    self.update({str(k): v for k, v in state.items()})


class _Call:
  """A function of ours under a foreign name; holds no state to tamper with."""

  __slots__ = ('_run',)

  def __init__(self, run):
    object.__setattr__(self, '_run', run)

  def __setattr__(self, name, value):
    raise TorchFileError(f'the pickle sets an attribute ({name}) of a function')

  def __call__(self, *args):
    return self._run(*args)


def _tensor(storage, offset, size, stride, *_):
  """A view of the storage, checked to lie inside it."""
  if not isinstance(storage, np.ndarray):
    raise TorchFileError('a tensor without a storage')
  size, stride = tuple(size), tuple(stride)
  if (
    len(size) != len(stride)
    or offset < 0
    or any(n < 0 for n in size)
    or any(s < 0 for s in stride)
  ):
    raise TorchFileError(f'tensor of size {size} and stride {stride}')
  if not math.prod(size):
    return np.empty(size, storage.dtype)
  last = offset + sum((n - 1) * s for n, s in zip(size, stride))
  if last >= storage.size:
    raise TorchFileError(
      f'tensor of size {size} reaches element {last} of a storage of '
      f'{storage.size}'
    )
  return np.lib.stride_tricks.as_strided(
    storage[offset:], size, [s * storage.itemsize for s in stride]
  )


def _numpy_scalar(dtype, data=b''):
  if isinstance(data, str):
    data = data.encode('latin1')
  if not isinstance(dtype, np.dtype) or dtype.hasobject:
    raise TorchFileError(f'numpy scalar of type {dtype!r}')
  return np.frombuffer(data, dtype, 1)[0]


def _encode(text, encoding='latin1', *_):
  if encoding not in ('latin1', 'latin-1', 'utf-8', 'ascii'):
    raise TorchFileError(f'text encoding {encoding!r}')
  return text.encode(encoding)


def _parameter(data, *_):
  return data


def _empty_array(*_):
  return np.empty(0)


def _dtype(code, *_):
  if not isinstance(code, str) or 'O' in code:
    raise TorchFileError(f'numpy type {code!r}')
  # A copy, since unpickling sets its byte order.
  return np.dtype(code, copy=True)


_CALLS = {
  ('collections', 'OrderedDict'): OrderedDict,
  ('torch._utils', '_rebuild_tensor'): _tensor,
  ('torch._utils', '_rebuild_tensor_v2'): _tensor,
  ('torch._utils', '_rebuild_parameter'): _parameter,
  ('torch', 'Size'): tuple,
  ('torch', 'device'): lambda *args: ':'.join(map(str, args)),
  ('_codecs', 'encode'): _encode,
  ('numpy', 'dtype'): _dtype,
  ('numpy', 'ndarray'): _empty_array,
  **{
    (m, 'scalar'): _numpy_scalar
    for m in ('numpy.core.multiarray', 'numpy._core.multiarray')
  },
  **{
    (m, '_reconstruct'): _empty_array
    for m in ('numpy.core.multiarray', 'numpy._core.multiarray')
  },
  **{
    (m, t.__name__): t
    for t in (set, frozenset, list, tuple, dict, complex)
    for m in ('builtins', '__builtin__')
  },
}


class _Unpickler(pickle.Unpickler):
  """Rebuilds containers, numbers, strings and arrays; nothing else."""

  def __init__(self, file, storage=None):
    super().__init__(file, encoding='latin1')
    self._storage = storage

  def find_class(self, module, name):
    if (module, name) in _CALLS:
      return _Call(_CALLS[module, name])
    if module in ('torch', 'torch.storage') and name in STORAGES:
      return STORAGES[name]
    if (module, name) == ('easydict', 'EasyDict'):
      # A class of its own: pickles can change the classes they name.
      return type('EasyDict', (EasyDict,), {})
    if (module, name) == ('argparse', 'Namespace'):
      return type('Namespace', (Namespace,), {})
    return type('Bag', (Bag,), dict(module=module, name=name))

  def persistent_load(self, pid):
    if self._storage is None or not isinstance(pid, tuple):
      raise TorchFileError(f'unexpected storage reference {pid!r}')
    kind, *rest = pid
    if kind != 'storage' or not isinstance(rest[0], np.dtype):
      raise TorchFileError(f'storage of unknown type {pid!r}')
    return self._storage(*rest)


def _load(file, storage=None):
  """The object of the next pickle in a seekable file."""
  start = file.tell()
  for opcode, number, place in pickletools.genops(file):
    # The unpickler makes room for as many objects as a number promises.
    if opcode.name in ('PUT', 'LONG_BINPUT') and number > place:
      raise TorchFileError(f'the pickle numbers an object {number}')
  file.seek(start)
  return _Unpickler(file, storage).load()


def read(path: str | os.PathLike):
  """Reads the object in a `.pth` file; tensors become numpy arrays.

  Args:
    path: a file written by `torch.save`, of either serialisation.

  Returns:
    What was saved, with `Bag`s for objects of foreign classes.

  Raises:
    FileNotFoundError: no such file.
    TorchFileError: truncated, malformed or not written by torch.save.
  """
  path = os.fspath(path)
  if not os.path.isfile(path):
    raise FileNotFoundError(
      f'{path}: no such checkpoint. Upstream publishes trained_model.pth '
      'files beside their config.json.'
    )
  try:
    if zipfile.is_zipfile(path):
      return _read_zip(path)
    with open(path, 'rb') as file:
      return _read_stream(file, os.path.getsize(path))
  except TorchFileError as error:
    raise TorchFileError(f'{path}: {error}') from None
  except (
    pickle.UnpicklingError,
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    MemoryError,
    OverflowError,
    RecursionError,
  ) as error:
    raise TorchFileError(
      f'{path}: not a complete torch file ({type(error).__name__}: {error}).'
      ' Compare its size with the published one and fetch it again.'
    ) from error


def _read_zip(path):
  """The archive format: data.pkl, and one raw file per storage."""
  with zipfile.ZipFile(path) as archive:
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    pickles = [n for n in sizes if n.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise TorchFileError('a zip archive, but not one of torch.save')
    root = pickles[0].removesuffix('data.pkl')
    order = '<'
    if f'{root}byteorder' in sizes:
      order = '<' if archive.read(f'{root}byteorder') == b'little' else '>'
    storages = {}

    def storage(dtype, key, location, numel, *_):
      del location
      if key not in storages:
        name = f'{root}data/{key}'
        if sizes.get(name) != numel * dtype.itemsize:
          raise TorchFileError(
            f'storage {key} has {sizes.get(name)} bytes, expected '
            f'{numel * dtype.itemsize}'
          )
        storages[key] = np.frombuffer(
          archive.read(name), _ordered(dtype, order)
        ).astype(dtype)
      return storages[key]

    return _load(io.BytesIO(archive.read(pickles[0])), storage)


def _ordered(dtype, order):
  """The type as stored; bfloat16 knows no byte order of its own."""
  if dtype.itemsize == 1 or order == '<':
    return dtype
  if dtype == STORAGES['BFloat16Storage']:
    raise TorchFileError('big-endian bfloat16')
  return dtype.newbyteorder(order)


def _read_stream(file, total):
  """The older format: five pickles, then the storages one after another."""
  if _load(file) != _MAGIC:
    raise TorchFileError('no torch file: wrong magic number')
  if _load(file) != _PROTOCOL:
    raise TorchFileError('torch file of an unknown protocol')
  if not _load(file).get('little_endian', True):
    raise TorchFileError('written on a big-endian machine')
  storages = {}

  def storage(dtype, key, location, numel, view=None):
    del location
    if numel < 0 or numel * dtype.itemsize > total:
      raise TorchFileError(
        f'storage {key} of {numel} elements in a file of {total} bytes'
      )
    if key not in storages:
      storages[key] = np.zeros(numel, dtype)
    if view is None:
      return storages[key]
    _, offset, size = view
    return storages[key][offset : offset + size]

  # The object comes before the values: its arrays are views of storages that
  # are filled below.
  obj = _load(file, storage)
  for key in _load(file):
    target = storages[key]
    (count,) = struct.unpack('<q', file.read(8))
    if count != target.size:
      raise TorchFileError(
        f'storage {key} holds {count} elements, expected {target.size}'
      )
    data = file.read(target.nbytes)
    if len(data) != target.nbytes:
      raise TorchFileError(
        f'truncated: storage {key} ends after {len(data)} of '
        f'{target.nbytes} bytes'
      )
    target[:] = np.frombuffer(data, target.dtype)
  return obj
