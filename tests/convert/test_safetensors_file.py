# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/safetensors_file.py."""

import os
import struct
import sys

import ml_dtypes
import numpy as np
import pytest

from vidret_jax.convert import safetensors_file, torch_write
from vidret_jax.convert.torch_file import TorchFileError

STATE = dict(
  a=np.arange(6, dtype=np.float32).reshape(2, 3),
  half=np.ones(3, np.float16),
  brain=np.ones(2, ml_dtypes.bfloat16),
  scalar=np.array(1.5, np.float32),
  transposed=np.arange(6, dtype=np.float32).reshape(2, 3).T,
)


@pytest.fixture
def path(tmp_path):
  pytest.importorskip('safetensors')
  safetensors_file.write(tmp_path / 'x.safetensors', STATE)
  return tmp_path / 'x.safetensors'


def test_both_ways(path):
  assert os.listdir(path.parent) == [path.name]
  assert safetensors_file.is_one(path)
  got = safetensors_file.read(path)
  assert sorted(got) == sorted(STATE)
  for key, value in STATE.items():
    assert got[key].dtype == value.dtype and got[key].shape == value.shape
    np.testing.assert_array_equal(got[key], value)


def test_torch_reads_what_we_write(path):
  pytest.importorskip('torch')
  torch_side = pytest.importorskip('safetensors.torch')
  got = torch_side.load_file(path)
  for key, value in STATE.items():
    np.testing.assert_array_equal(
      got[key].double().numpy(), value.astype(np.float64)
    )


@pytest.mark.parametrize('cut', [20, 100, -1])
def test_truncated(path, cut):
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(TorchFileError, match='x.safetensors.*fetch it again'):
    safetensors_file.read(path)


@pytest.mark.parametrize(
  'header',
  [
    b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}',
    b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,400000]}}',
    b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
    b'{"a":[]}',
    b'{' * 500,
    b'{not json}',
  ],
)
def test_malformed(tmp_path, header):
  pytest.importorskip('safetensors')
  path = tmp_path / 'x.safetensors'
  path.write_bytes(struct.pack('<Q', len(header)) + header + b'\0' * 4)
  with pytest.raises(TorchFileError, match='x.safetensors'):
    safetensors_file.read(path)


def test_other_files_are_told_apart(tmp_path):
  torch_write.write(tmp_path / 'x.pth', {'a': STATE['a']})
  assert not safetensors_file.is_one(tmp_path / 'x.pth')
  for data in (b'', b'{', b'\xff' * 8 + b'{}', b'\0' * 9):
    (tmp_path / 'y').write_bytes(data)
    assert not safetensors_file.is_one(tmp_path / 'y')


def test_without_the_library(path, monkeypatch):
  # None in sys.modules is how Python marks a module that cannot be imported.
  monkeypatch.setitem(sys.modules, 'safetensors', None)
  monkeypatch.setitem(sys.modules, 'safetensors.numpy', None)
  with pytest.raises(TorchFileError, match='pip install safetensors'):
    safetensors_file.read(path)
