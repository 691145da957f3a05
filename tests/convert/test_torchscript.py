# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/torchscript.py: archives made by hand and by PyTorch."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from vidret_jax.convert import clip_file, torch_file, torch_write, torchscript
from vidret_jax.convert.torch_file import TorchFileError


class Archive(torch_write._Emitter):
  """Emits modules as `torch.jit.save` does: class, attributes, BUILD."""

  def value(self, x):
    if isinstance(x, Module):
      self._global(f'__torch__.clip.model.___torch_mangle_{id(x)}', x.kind)
      self.code += pickle.EMPTY_TUPLE + pickle.NEWOBJ
      self.value(x.attributes)
      self.code += pickle.BUILD
    else:
      super().value(x)


class Module:
  """A module: its attributes, some of them modules."""

  def __init__(self, kind='Block', **attributes):
    self.kind, self.attributes = kind, attributes


def write(path, body, arrays=()):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('net/data.pkl', bytes(body) + pickle.STOP)
    archive.writestr('net/constants.pkl', pickle.dumps((), 2))
    archive.writestr('net/code/__torch__.py', 'raise SystemExit("ran")')
    archive.writestr('net/version', '6\n')
    for i, array in enumerate(arrays):
      archive.writestr(f'net/data/{i}', array.tobytes())
  return path


def saved(path, module):
  emitter = Archive()
  emitter.value(module)
  return write(path, emitter.code, emitter.arrays)


def test_names_are_dotted_paths(tmp_path):
  a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float16)
  inner = Module(weight=a, bias=b, training=False, _is_full_backward_hook=None)
  blocks = Module('Sequential', **{'0': inner, '1': Module(weight=b)})
  net = Module('CLIP', visual=Module(blocks=blocks), scale=np.array(2.0))
  got = torchscript.state_dict(torch_file.read(saved(tmp_path / 'x.pt', net)))
  assert list(got) == [
    'visual.blocks.0.weight',
    'visual.blocks.0.bias',
    'visual.blocks.1.weight',
    'scale',
  ]
  np.testing.assert_array_equal(got['visual.blocks.0.weight'], a)
  assert got['visual.blocks.1.weight'].dtype == np.float16
  assert got['scale'].shape == ()


def test_a_module_called_module(tmp_path):
  net = Module(module=Module(weight=np.ones(2, np.float32)), w=np.ones(1))
  got = torchscript.state_dict(torch_file.read(saved(tmp_path / 'x.pt', net)))
  assert list(got) == ['module.weight', 'w']
  assert torchscript.is_module(torch_file.read(tmp_path / 'x.pt'))


def test_shared_modules_appear_under_every_name(tmp_path):
  torch = pytest.importorskip('torch')

  class Net(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.a = torch.nn.Linear(2, 3)
      self.b = self.a
      self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(2).half()])
      self.register_buffer('count', torch.tensor(7))

    def forward(self, x):
      return self.a(x)

  net = Net()
  path = tmp_path / 'x.pt'
  torch.jit.script(net).save(str(path))
  got = clip_file.read(path)
  want = torch.jit.load(str(path)).state_dict()
  assert sorted(got) == sorted(want)
  for key, value in want.items():
    np.testing.assert_array_equal(got[key], value.numpy(), err_msg=key)
    assert got[key].dtype == value.numpy().dtype


def test_a_module_inside_itself(tmp_path):
  # BINPUT and BINGET: the attribute `a` is the object itself.
  body = (
    b'\x80\x02c__torch__\nNet\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb'  # No STOP.
  )
  path = write(tmp_path / 'x.pt', body)
  with pytest.raises(TorchFileError, match='x.pt.*contains itself'):
    clip_file.read(path)


def test_a_pickle_that_doubles_at_every_level(tmp_path):
  # 40 levels, each naming the one below twice: 2^40 names.
  body = bytearray(b'\x80\x02c__torch__\nNet\n)\x81}X\x01\x00\x00\x00xK\x01sb')
  for _ in range(40):
    body += b'q\x00c__torch__\nNet\n)\x81}(X\x01\x00\x00\x00ah\x00'
    body += b'X\x01\x00\x00\x00bh\x00ub'
  path = write(tmp_path / 'x.pt', body)
  with pytest.raises(TorchFileError, match='attributes'):
    clip_file.read(path)


def test_deep_nesting(tmp_path):
  net = Module(x=np.zeros(1, np.float32))
  for _ in range(80):
    net = Module(a=net)
  with pytest.raises(TorchFileError, match='deeper'):
    clip_file.read(saved(tmp_path / 'x.pt', net))


@pytest.mark.parametrize('cut', [0, 30, 200, -200, -1])
def test_truncated(tmp_path, cut):
  path = saved(tmp_path / 'x.pt', Module(a=np.zeros(9, np.float32)))
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(TorchFileError, match='x.pt'):
    clip_file.read(path)


def test_code_in_an_archive_does_not_run(tmp_path):
  target = tmp_path / 'created'

  class Touch:
    def __reduce__(self):
      return os.system, (f'touch {target}',)

  call = pickle.dumps(Touch(), 2)[2:-1]  # Without PROTO and STOP.
  body = b'\x80\x02c__torch__\nNet\n)\x81}X\x01\x00\x00\x00a' + call + b'sb'
  with pytest.raises(ValueError, match='state dict'):
    clip_file.read(write(tmp_path / 'x.pt', body))
  assert not target.exists()


def test_an_object_that_contains_itself(tmp_path):
  # Printing it would not end.
  body = b'\x80\x02cx\nNet\n)\x81q\x00}X\x06\x00\x00\x00moduleh\x00sb'
  with pytest.raises(ValueError, match='x.Net'):
    clip_file.read(write(tmp_path / 'x.pt', body))


def test_other_pickled_objects_are_no_modules(tmp_path):
  body = b'\x80\x02cclip.model\nCLIP\n)\x81}X\x01\x00\x00\x00xK\x01sb'
  with pytest.raises(ValueError, match='clip.model.CLIP'):
    clip_file.read(write(tmp_path / 'x.pt', body))
