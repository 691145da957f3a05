# SPDX-License-Identifier: Apache-2.0
"""Reading and writing `.pth` files: both formats, damage, hostile pickles."""

from collections import OrderedDict
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest

from vidret_jax.convert import torch_file, torch_write
from vidret_jax.convert.torch_file import Bag, TorchFileError

VALUES = dict(
  state_dict=OrderedDict(
    weight=np.arange(6, dtype=np.float32).reshape(2, 3),
    half=np.array([1.5, -2.0], np.float16),
    count=np.array(7, np.int64),
    flag=np.array([True, False]),
    nothing=np.zeros((0, 3), np.float32),
  ),
  epoch=12,
  big=-(2**70),
  best=0.25,
  name='caf\u00e9',
  none=None,
  yes=True,
  nested=[1, (2, 'x'), {'a': [False]}],
)


def same(a, b):
  if isinstance(a, np.ndarray):
    return (
      isinstance(b, np.ndarray)
      and a.dtype == b.dtype
      and a.shape == b.shape
      and np.array_equal(a, b)
    )
  if isinstance(a, dict):
    return (
      isinstance(b, dict)
      and list(a) == list(b)
      and all(same(a[k], b[k]) for k in a)
    )
  if isinstance(a, (list, tuple)):
    return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
  return type(a) is type(b) and a == b


class Stream:
  """Writes the format of PyTorch before 1.6, storages included."""

  def __init__(self, body, storages, *, magic=torch_file._MAGIC):
    self.data = b''.join(
      [
        pickle.dumps(magic, 2),
        pickle.dumps(1001, 2),
        pickle.dumps(dict(protocol_version=1001, little_endian=True), 2),
        body,
        pickle.dumps(sorted(storages), 2),
      ]
    )
    for key in sorted(storages):
      array = storages[key]
      self.data += struct.pack('<q', array.size) + array.tobytes()


def tensor_body(
  storage='FloatStorage', numel=6, offset=0, size=(2, 3), stride=(3, 1)
):
  """A pickle of one tensor, as torch.save emits it."""
  e = torch_write._Emitter()
  e._global('torch._utils', '_rebuild_tensor_v2')
  e.code += pickle.MARK + pickle.MARK
  e.value('storage')
  e._global('torch', storage)
  for item in ('0', 'cpu', numel, None):
    e.value(item)
  e.code += pickle.TUPLE + pickle.BINPERSID
  for item in (offset, tuple(size), tuple(stride), False, OrderedDict()):
    e.value(item)
  return bytes(e.code + pickle.TUPLE + pickle.REDUCE + pickle.STOP)


def write(path, data):
  path.write_bytes(data)
  return path


def zipped(path, body, storages=()):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', body)
    archive.writestr('archive/version', '3\n')
    for key, data in dict(storages).items():
      archive.writestr(f'archive/data/{key}', data)
  return path


def test_written_files_read_back(tmp_path):
  path = tmp_path / 'x.pth'
  torch_write.write(path, VALUES)
  assert same(torch_file.read(path), VALUES)
  assert os.listdir(tmp_path) == ['x.pth']


def test_torch_reads_what_we_write(tmp_path):
  torch = pytest.importorskip('torch')
  torch_write.write(tmp_path / 'x.pth', VALUES)
  got = torch.load(tmp_path / 'x.pth', weights_only=True)
  arrays = {k: v.numpy() for k, v in got['state_dict'].items()}
  assert same(arrays, dict(VALUES['state_dict']))
  assert got['state_dict']['weight'].is_contiguous()
  del got['state_dict']
  assert same(got, {k: v for k, v in VALUES.items() if k != 'state_dict'})


@pytest.mark.parametrize('shape', [(), (0,), (2, 3)])
def test_bfloat16_there_and_back(tmp_path, shape):
  array = np.full(shape, 1.5, torch_file.STORAGES['BFloat16Storage'])
  torch_write.write(tmp_path / 'x.pth', dict(x=array))
  got = torch_file.read(tmp_path / 'x.pth')['x']
  assert got.dtype == array.dtype
  np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize('new', [True, False])
def test_we_read_what_torch_writes(tmp_path, new):
  torch = pytest.importorskip('torch')
  base = torch.arange(12, dtype=torch.float32)
  saved = OrderedDict(
    view=base[2:8].view(2, 3),
    transposed=base.view(3, 4).t(),
    parameter=torch.nn.Parameter(torch.ones(2)),
    brain=torch.ones(3, dtype=torch.bfloat16),
    long=torch.tensor(5),
    double=torch.zeros(2, dtype=torch.float64),
  )
  path = tmp_path / 'x.pth'
  torch.save(
    dict(state_dict=saved, monitor=np.float64(0.5), array=np.arange(3)),
    path,
    _use_new_zipfile_serialization=new,
  )
  got = torch_file.read(path)
  assert got['monitor'] == 0.5
  np.testing.assert_array_equal(got['array'], np.arange(3))
  for key, want in saved.items():
    value = got['state_dict'][key]
    assert value.shape == tuple(want.shape), key
    np.testing.assert_array_equal(
      value.astype(np.float64), want.detach().double().numpy(), err_msg=key
    )


def test_stream_format(tmp_path):
  array = np.arange(6, dtype='<f4')
  path = write(tmp_path / 'x.pth', Stream(tensor_body(), {'0': array}).data)
  np.testing.assert_array_equal(torch_file.read(path), array.reshape(2, 3))


@pytest.mark.parametrize('cut', [0, 1, 10, 60, 120, -30, -1])
@pytest.mark.parametrize('kind', ['stream', 'zip'])
def test_truncated_files(tmp_path, kind, cut):
  path = tmp_path / 'x.pth'
  if kind == 'zip':
    torch_write.write(path, VALUES)
  else:
    write(path, Stream(tensor_body(), {'0': np.zeros(6, '<f4')}).data)
  data = path.read_bytes()
  write(path, data[:cut])
  with pytest.raises(TorchFileError, match='x.pth'):
    torch_file.read(path)


@pytest.mark.parametrize(
  'change',
  [
    dict(offset=1),
    dict(size=(200, 3)),
    dict(stride=(5, 1)),
    dict(offset=-1),
    dict(stride=(-3, 1)),
    dict(size=(2,)),
    dict(numel=10**15),
    dict(numel=-1),
    dict(storage='StrangeStorage'),
  ],
)
def test_tensors_outside_their_storage(tmp_path, change):
  data = Stream(tensor_body(**change), {'0': np.zeros(6, '<f4')}).data
  with pytest.raises(TorchFileError):
    torch_file.read(write(tmp_path / 'x.pth', data))


def test_storage_of_the_wrong_size_in_a_zip(tmp_path):
  body = tensor_body()
  path = zipped(tmp_path / 'x.pth', body, {'0': b'\0' * 20})
  with pytest.raises(TorchFileError, match='20 bytes, expected 24'):
    torch_file.read(path)


@pytest.mark.parametrize(
  'data', [b'', b'\x89PNG....', b'PK\x03\x04junk', pickle.dumps({'a': 1})]
)
def test_other_files(tmp_path, data):
  with pytest.raises(TorchFileError, match='x.pth'):
    torch_file.read(write(tmp_path / 'x.pth', data))


def test_an_archive_that_is_not_of_torch(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.npz', 'w') as archive:
    archive.writestr('a.npy', b'')
  with pytest.raises(TorchFileError, match='not one of torch.save'):
    torch_file.read(tmp_path / 'x.npz')


def test_absent_file(tmp_path):
  with pytest.raises(FileNotFoundError, match='trained_model.pth'):
    torch_file.read(tmp_path / 'no.pth')


def malicious(target):
  """Pickles that would create `target` when loaded by pickle."""

  class System:
    def __reduce__(self):
      return os.system, (f'touch {target}',)

  class Open:
    def __reduce__(self):
      return open, (str(target), 'w')

  class Exec:
    def __reduce__(self):
      return exec, (f'open({str(target)!r}, "w")',)

  class Chained:
    """getattr on an allowed class, then a call."""

    def __reduce__(self):
      return getattr, (OrderedDict, '__init__')

  return [pickle.dumps(x(), 2) for x in (System, Open, Exec, Chained)] + [
    # The same by name, with state set on the callable.
    b'\x80\x02cposix\nsystem\nq\x00X\x05\x00\x00\x00touchq\x01\x85q\x02R'
    b'}q\x03X\x01\x00\x00\x00aq\x04K\x01sb.'
  ]


@pytest.mark.parametrize('index', range(5))
@pytest.mark.parametrize('kind', ['stream', 'zip'])
def test_code_in_a_file_does_not_run(tmp_path, kind, index):
  target = tmp_path / 'created'
  body = malicious(target)[index]
  path = tmp_path / 'x.pth'
  if kind == 'zip':
    zipped(path, body)
  else:
    write(path, Stream(body, {}).data)
  got = torch_file.read(path)
  assert isinstance(got, Bag) and not target.exists()


def test_the_malicious_pickle_is_one(tmp_path):
  target = tmp_path / 'created'
  pickle.loads(malicious(target)[1]).close()
  assert target.exists()


def test_allowed_functions_cannot_be_changed(tmp_path):
  # BUILD on `torch._utils._rebuild_tensor_v2` itself.
  body = (
    b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x04\x00\x00\x00_runK\x01sb.'
  )
  with pytest.raises(TorchFileError):
    torch_file.read(zipped(tmp_path / 'x.pth', body))


@pytest.mark.parametrize('put', [b'r\xff\xff\xff\x7f', b'p2147483647\n'])
@pytest.mark.parametrize('kind', ['stream', 'zip'])
def test_no_room_for_objects_that_are_not_there(tmp_path, kind, put):
  """Python's unpickler would ask for 16 GB or 32 GB before it goes on."""
  body, path = b'\x80\x02}' + put + b'.', tmp_path / 'x.pth'
  if kind == 'zip':
    zipped(path, body)
  else:
    write(path, Stream(body, {}).data)
  with pytest.raises(TorchFileError, match='numbers an object 2147483647'):
    torch_file.read(path)


def test_object_arrays_are_refused(tmp_path):
  body = pickle.dumps(np.array([{}, 1], object), 2)
  with pytest.raises(TorchFileError):
    torch_file.read(zipped(tmp_path / 'x.pth', body))


class Config:
  """Stands for a class that the reader cannot and must not import."""

  def __init__(self):
    self._config = {'arch': 'CENet'}
    self.resume = None


def test_foreign_objects_keep_their_attributes(tmp_path):
  # Pickled by reference to this module, which the reader does not look up.
  Config.__module__, name = 'parse_config', Config.__module__
  try:
    import types

    sys.modules['parse_config'] = types.SimpleNamespace(Config=Config)
    body = pickle.dumps({'config': Config()}, 2)
  finally:
    del sys.modules['parse_config']
    Config.__module__ = name
  got = torch_file.read(zipped(tmp_path / 'x.pth', body))['config']
  assert got._config == {'arch': 'CENet'} and got.resume is None
  assert 'parse_config.Config' in repr(got)


def named(module, name, items):
  """A pickle of a dict subclass, as protocol 2 writes one: no __init__."""
  code = pickle.PROTO + b'\x02' + pickle.GLOBAL + f'{module}\n{name}\n'.encode()
  e = torch_write._Emitter()
  e._items(items)
  again = pickle.EMPTY_DICT + bytes(e.code[2:]) + pickle.BUILD
  code += pickle.EMPTY_TUPLE + pickle.NEWOBJ + bytes(e.code[2:]) + again
  return code + pickle.STOP


def test_dicts_with_attributes(tmp_path):
  items = dict(a=1, update='not the method', __class__='x')
  body = named('easydict', 'EasyDict', items)
  got = torch_file.read(zipped(tmp_path / 'x.ckpt', body))
  assert got == items and isinstance(got, torch_file.EasyDict)
  assert not vars(got)  # Nothing of the file reaches the object.
  assert type(got) is not torch_file.EasyDict
  assert 'easydict' not in sys.modules

  torch_write.write(tmp_path / 'y.ckpt', dict(config=got))
  again = torch_file.read(tmp_path / 'y.ckpt')['config']
  assert again == items and isinstance(again, torch_file.EasyDict)


def test_other_dicts_are_not_imported(tmp_path):
  body = named('addict', 'Dict', dict(a=1))
  got = torch_file.read(zipped(tmp_path / 'x.ckpt', body))
  assert isinstance(got, Bag) and got.items == [('a', 1)]


def test_the_class_of_a_dict_cannot_be_changed(tmp_path):
  # BUILD on the class itself.
  body = b'\x80\x02ceasydict\nEasyDict\n}X\x01\x00\x00\x00aK\x01sb.'
  with pytest.raises(TorchFileError):
    torch_file.read(zipped(tmp_path / 'x.ckpt', body))


def test_values_that_cannot_be_written(tmp_path):
  with pytest.raises(TypeError, match='complex'):
    torch_write.write(tmp_path / 'x.pth', {'a': 1j})
  with pytest.raises(TypeError, match='uint32'):
    torch_write.write(tmp_path / 'x.pth', {'a': np.zeros(1, np.uint32)})
  assert not os.listdir(tmp_path)
