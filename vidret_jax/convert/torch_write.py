# SPDX-License-Identifier: Apache-2.0
"""Writes `.pth` files that PyTorch loads, without PyTorch.

The zip serialisation: a pickle that refers to storages by number, and the raw
storages. The pickle is emitted opcode by opcode, because Python's pickler
would have to import the torch functions it names.
"""

from collections import OrderedDict
from collections.abc import Mapping
import os
import pickle
import struct
import zipfile

import numpy as np

from vidret_jax.convert.torch_file import STORAGES, EasyDict, Namespace

_NAMES = {dtype: name for name, dtype in STORAGES.items()}


class _Emitter:
  """A pickle of protocol 2 for plain values and arrays."""

  def __init__(self):
    self.code = bytearray(pickle.PROTO + b'\x02')
    self.arrays = []

  def _global(self, module, name):
    self.code += pickle.GLOBAL + f'{module}\n{name}\n'.encode()

  def value(self, x):
    if isinstance(x, np.generic):
      x = x.item()
    if x is None:
      self.code += pickle.NONE
    elif isinstance(x, bool):
      self.code += pickle.NEWTRUE if x else pickle.NEWFALSE
    elif isinstance(x, int):
      raw = pickle.encode_long(x)
      self.code += pickle.LONG1 + bytes([len(raw)]) + raw
    elif isinstance(x, float):
      self.code += pickle.BINFLOAT + struct.pack('>d', x)
    elif isinstance(x, str):
      raw = x.encode('utf-8', 'surrogatepass')
      self.code += pickle.BINUNICODE + struct.pack('<I', len(raw)) + raw
    elif isinstance(x, np.ndarray):
      self._array(x)
    elif isinstance(x, Mapping):
      self._mapping(x)
    elif isinstance(x, (list, tuple)):
      self._sequence(x)
    else:
      raise TypeError(
        f'cannot write {type(x).__name__} to a torch file: expected plain '
        'values, lists, dicts or numpy arrays.'
      )

  def _mapping(self, x):
    if isinstance(x, Namespace):
      self._global('argparse', 'Namespace')
      self.code += pickle.EMPTY_TUPLE + pickle.NEWOBJ + pickle.EMPTY_DICT
      self._items(x)
      self.code += pickle.BUILD
      return
    if isinstance(x, OrderedDict):
      self._global('collections', 'OrderedDict')
      self.code += pickle.EMPTY_TUPLE + pickle.REDUCE
    elif isinstance(x, EasyDict):
      self._global('easydict', 'EasyDict')
      self.code += pickle.EMPTY_TUPLE + pickle.NEWOBJ
    else:
      self.code += pickle.EMPTY_DICT
    self._items(x)
    if isinstance(x, EasyDict):
      # Its attributes, which unpickling does not make from the items.
      self.code += pickle.EMPTY_DICT
      self._items(x)
      self.code += pickle.BUILD

  def _items(self, x):
    self.code += pickle.MARK
    for key, item in x.items():
      self.value(key)
      self.value(item)
    self.code += pickle.SETITEMS

  def _sequence(self, x):
    if isinstance(x, list):
      self.code += pickle.EMPTY_LIST
    self.code += pickle.MARK
    for item in x:
      self.value(item)
    self.code += pickle.APPENDS if isinstance(x, list) else pickle.TUPLE

  def _array(self, x):
    stored = x.astype(x.dtype.newbyteorder('<'), order='C', copy=False)
    kind = _NAMES.get(stored.dtype)
    if kind is None:
      raise TypeError(
        f'cannot write an array of {x.dtype} to a torch file: expected one '
        f'of {", ".join(str(d) for d in _NAMES)}.'
      )
    stored = np.ascontiguousarray(stored)
    key = str(len(self.arrays))
    self.arrays.append(stored)
    self._global('torch._utils', '_rebuild_tensor_v2')
    self.code += pickle.MARK + pickle.MARK
    self.value('storage')
    self._global('torch', kind)
    for item in (key, 'cpu', int(stored.size)):
      self.value(item)
    self.code += pickle.TUPLE + pickle.BINPERSID
    self.value(0)
    self.value(tuple(int(n) for n in x.shape))
    steps = np.cumprod((1,) + x.shape[:0:-1])[::-1] if x.ndim else ()
    self.value(tuple(int(n) for n in steps))
    self.value(False)
    self.value(OrderedDict())
    self.code += pickle.TUPLE + pickle.REDUCE


def write(path: str | os.PathLike, obj) -> None:
  """Writes an object so that `torch.load(path, weights_only=True)` reads it.

  A `torch_file.EasyDict` in it needs the package easydict, and
  `weights_only=False`, as files of the code that pickles such dicts do; so does
  a `torch_file.Namespace`, which needs no package.

  Args:
    path: the file; it appears whole or not at all.
    obj: nested dicts and lists of plain values and numpy arrays.

  Raises:
    TypeError: a value that torch's safe loader would not read either.
  """
  emitter = _Emitter()
  emitter.value(obj)
  emitter.code += pickle.STOP
  partial = f'{os.fspath(path)}.partial'
  with zipfile.ZipFile(partial, 'w', zipfile.ZIP_STORED) as archive:
    archive.writestr('archive/data.pkl', bytes(emitter.code))
    archive.writestr('archive/byteorder', 'little')
    for i, array in enumerate(emitter.arrays):
      with archive.open(f'archive/data/{i}', 'w', force_zip64=True) as file:
        file.write(array.reshape(-1).view(np.uint8) if array.size else b'')
    archive.writestr('archive/version', '3\n')
  os.replace(partial, path)
