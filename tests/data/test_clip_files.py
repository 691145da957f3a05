# SPDX-License-Identifier: Apache-2.0
"""HDF5 files of strangers, and files that appear whole."""

import os

import h5py
import numpy as np
import pytest

from vidret_jax.data import clip_files, whole_files


def write(path, **arrays):
  with h5py.File(path, 'w') as file:
    for key, value in arrays.items():
      file[key] = value
  return path


ROWS = np.ones((3, 2), np.float32)


def test_rows(tmp_path):
  path = write(
    tmp_path / 'a.h5',
    **{'b': ROWS, 'a': np.ones((2, 2)), 'a-mask': np.ones(2), 'x-mask': ROWS},
  )
  with clip_files.Rows(path, companion='-mask') as rows:
    # 'x-mask' is nobody's companion.
    assert rows.names == ('a', 'b', 'x-mask') and rows.width == 2
    assert 'a' in rows and 'a-mask' not in rows
    assert rows.count('b') == 3
    found = rows.read('a')
    assert found.dtype == np.float32 and found.shape == (2, 2)
    assert rows.read('b', 1).shape == (1, 2)


def test_only_some_names(tmp_path):
  path = write(tmp_path / 'a.h5', a=ROWS, b=np.ones(3))
  with clip_files.Rows(path, names=['a', 'c']) as rows:
    assert rows.names == ('a',) and rows.width == 2
  with clip_files.Rows(path, names=['c']) as rows:
    assert rows.names == () and 'a' not in rows


def lengths(path, value):
  write(path, **{'a': ROWS, 'a-lengths': value})
  with clip_files.Rows(path, companion='-lengths') as rows:
    return rows.lengths('a-lengths', 3)


def test_lengths(tmp_path):
  found = lengths(tmp_path / 'a.h5', np.array([2, 0, 1], np.int16))
  assert found.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
  'value, part',
  [
    ([2, 2], '4 tokens'),
    ([4, -1], 'smallest -1'),
    ([1.0, 2.0], 'float64'),
    ([[3]], r'\[1, 1\]'),
    (3, r'\[\]'),
  ],
)
def test_bad_lengths(tmp_path, value, part):
  with pytest.raises(ValueError, match=part) as error:
    lengths(tmp_path / 'a.h5', value)
  assert "'a-lengths'" in str(error.value)


@pytest.mark.parametrize(
  'value, part',
  [
    (np.ones(3, np.float32), r'float32 \[3\]'),
    (np.ones((1, 3, 2), np.float32), r'\[1, 3, 2\]'),
    (np.ones((3, 2), np.int64), 'int64'),
    (np.zeros((0, 2), np.float32), r'\[0, 2\]'),
    (np.zeros((3, 0), np.float32), r'\[3, 0\]'),
    (np.ones((3, 5), np.float32), 'width 5, expected 2'),
    (h5py.Empty('f4'), 'expected floats'),
    (h5py.ExternalLink('other.h5', '/a'), 'not a plain dataset'),
    (h5py.SoftLink('/a'), 'not a plain dataset'),
  ],
)
def test_bad_datasets(tmp_path, value, part):
  write(tmp_path / 'other.h5', a=ROWS)
  path = write(tmp_path / 'a.h5', a=ROWS, b=value)
  with pytest.raises(ValueError, match=part) as error:
    clip_files.Rows(path)
  assert 'a.h5' in str(error.value) and "'b'" in str(error.value)


def test_a_group_and_an_enormous_dataset(tmp_path):
  path = write(tmp_path / 'a.h5', a=ROWS)
  with h5py.File(path, 'a') as file:
    file.create_dataset('b', (1 << 27, 1 << 10), np.float32, chunks=(8, 8))
  with pytest.raises(ValueError, match="'b'"):
    clip_files.Rows(path)
  with h5py.File(path, 'a') as file:
    del file['b']
    file.create_group('b')
  with pytest.raises(ValueError, match='not a plain dataset'):
    clip_files.Rows(path)


def test_not_finite(tmp_path):
  bad = ROWS.copy()
  bad[1, 0] = np.nan
  with clip_files.Rows(write(tmp_path / 'a.h5', a=bad)) as rows:
    with pytest.raises(ValueError, match="a.h5: NaN or Inf in row 1 of 'a'"):
      rows.read('a')


def test_files_that_are_none(tmp_path):
  with pytest.raises(FileNotFoundError, match='absent.h5'):
    clip_files.Rows(tmp_path / 'absent.h5')
  (tmp_path / 'a.h5').write_text('text')
  with pytest.raises(ValueError, match='cannot be read as HDF5'):
    clip_files.Rows(tmp_path / 'a.h5')
  with pytest.raises(ValueError, match='no datasets'):
    clip_files.Rows(write(tmp_path / 'b.h5'))


def test_several_files(tmp_path):
  a, b = (
    clip_files.Rows(write(tmp_path / f'{n}.h5', **{n: ROWS})) for n in 'ab'
  )
  assert clip_files.sources([a, b]) == {'a': a, 'b': b}
  with pytest.raises(ValueError, match="b.h5: 'b' is in .*b.h5, too"):
    clip_files.sources([a, b, b])
  wide = clip_files.Rows(write(tmp_path / 'c.h5', c=np.ones((3, 4))))
  with pytest.raises(ValueError, match='width 4, expected 2'):
    clip_files.sources([a, wide])


@pytest.mark.parametrize('name', ['', 'a/b', '.', 'a\0', '\ud800'])
def test_names_that_are_no_keys(name):
  with pytest.raises(ValueError, match='here: .*cannot be a key'):
    clip_files.check_key(name, 'here')


def test_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'new' / 'a.h5'
  with pytest.raises(KeyboardInterrupt):
    with whole_files.create_hdf5(path) as file:
      file['a'] = ROWS
      raise KeyboardInterrupt
  assert os.listdir(path.parent) == []
  with whole_files.create_hdf5(path) as file:
    file['a'] = ROWS
    assert not path.exists()
  assert os.listdir(path.parent) == ['a.h5']
  with pytest.raises(FileExistsError, match='--overwrite'):
    whole_files.write_json(path, {})
  with pytest.raises(FileExistsError):
    whole_files.write_json(tmp_path, {}, overwrite=True)
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(FileExistsError, match='pipe'):
    whole_files.write_json(tmp_path / 'pipe', {}, overwrite=True)
  whole_files.write_json(path, {'a': 1}, overwrite=True)
  assert path.read_text() == '{"a": 1}'


@pytest.mark.parametrize(
  'text, part',
  [
    (b'{"a": 1}\n{', 'a.jsonl:2: cannot be read'),
    (b'{"a": 1}\n[]', 'a.jsonl:2: expected a JSON object'),
    (b'\n{"b": 1}', "a.jsonl:2: no 'a'"),
    (b'{"a": "\xff"}', 'no UTF-8'),
    (b'[' * 100_000, 'a.jsonl:1'),
  ],
)
def test_bad_json_lines(tmp_path, text, part):
  path = tmp_path / 'a.jsonl'
  path.write_bytes(text)
  with pytest.raises(ValueError, match=part):
    list(whole_files.read_lines(path, ('a',)))


def test_json_lines(tmp_path):
  path = tmp_path / 'a.jsonl'
  whole_files.write_lines(path, [{'a': 'é\u2028'}, {'a': 2}])
  found = list(whole_files.read_lines(path, ('a',)))
  assert found == [(f'{path}:1', {'a': 'é\u2028'}), (f'{path}:2', {'a': 2})]
  with pytest.raises(FileNotFoundError):
    list(whole_files.read_lines(tmp_path / 'absent.jsonl', ()))
