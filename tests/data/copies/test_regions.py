# SPDX-License-Identifier: Apache-2.0
"""HDF5 files of region vectors: what is read, and what is refused."""

import concurrent.futures
import pathlib
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest

from vidret_jax.data import bad_file
from vidret_jax.data.copies import regions


def _write(tmp_path, **arrays):
  path = tmp_path / 'features.hdf5'
  with h5py.File(path, 'w') as file:
    for name, value in arrays.items():
      file[name] = value
  return path


def _some(*shape, dtype=np.float32, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def _open(path, names, **options):
  return regions.File(path, regions.scan(path, names, **options))


def test_floats_of_any_kind_and_layout(tmp_path):
  arrays = {
    'single': _some(3, 4, 5),
    'half': _some(2, 4, 5, dtype=np.float16),
    'double': _some(1, 4, 5, dtype=np.float64),
    'big': _some(4, 4, 5, dtype='>f4'),
  }
  path = _write(tmp_path, **arrays)
  with h5py.File(path, 'a') as file:
    chunked = _some(9, 4, 5)
    file.create_dataset('chunked', data=chunked, compression='gzip')
    file.create_dataset('never written', (2, 4, 5), 'f4')
  arrays |= {'chunked': chunked, 'never written': np.zeros((2, 4, 5))}
  file = _open(path, [*arrays, 'absent'])
  assert file.shapes == regions.Shapes(
    {name: len(value) for name, value in arrays.items()}, 4, 5
  )
  for name, value in arrays.items():
    got = file.read(name)
    assert got.dtype == np.float32 and got.dtype.isnative
    np.testing.assert_array_equal(got, value.astype(np.float32))


def test_a_file_behind_a_block_of_the_user(tmp_path):
  value = _some(3, 4, 5)
  path = tmp_path / 'block.hdf5'
  with h5py.File(path, 'w', userblock_size=512) as file:
    file['a'] = value
  np.testing.assert_array_equal(_open(path, ['a']).read('a'), value)


def test_one_region_counts_in_every_place(tmp_path):
  flat = _some(3, 5)
  path = _write(tmp_path, flat=flat, full=_some(2, 4, 5))
  got = _open(path, ['flat', 'full']).read('flat')
  np.testing.assert_array_equal(got, np.repeat(flat[:, None], 4, 1))
  # Alone it has one region.
  assert _open(path, ['flat']).read('flat').shape == (3, 1, 5)


@pytest.mark.parametrize(
  ('value', 'said'),
  [
    (_some(2, 3, 5), r'\[2, 3, 5\], expected \[frames, 4, 5\]'),
    (_some(2, 4, 6), r'\[2, 4, 6\], expected \[frames, 4, 5\]'),
    (_some(2, 6), r'\[2, 1, 6\], expected \[frames, 4, 5\]'),
    (np.ones((2, 4, 5), np.int32), 'is int32'),
    (_some(5), 'expected floats'),
    (_some(2, 0, 5), 'expected floats'),
    (np.float32(1), 'expected floats'),
    (_some(0, 4, 5), 'has no frames'),
  ],
)
def test_wrong_shapes_are_found_at_once(tmp_path, value, said):
  path = _write(tmp_path, good=_some(2, 4, 5), better=_some(3, 4, 5), odd=value)
  with pytest.raises(bad_file.BadFile, match=said) as error:
    regions.scan(path, ['better', 'good', 'odd'])
  assert 'features.hdf5' in str(error.value) and "'odd'" in str(error.value)
  # What is not asked for does not matter.
  assert regions.scan(path, ['better', 'good']).lengths


def test_videos_of_no_frames_may_count_as_missing(tmp_path):
  path = _write(tmp_path, good=_some(2, 4, 5), none=_some(0, 4, 5))
  found = regions.scan(path, ['good', 'none'], empty='missing')
  assert found.lengths == {'good': 2}
  with pytest.raises(bad_file.BadFile, match='none of its videos has frames'):
    regions.scan(path, ['none'], empty='missing')
  with pytest.raises(ValueError, match="empty='maybe'"):
    regions.scan(path, ['none'], empty='maybe')


def test_a_file_of_other_videos(tmp_path):
  path = _write(tmp_path, good=_some(2, 4, 5))
  with pytest.raises(bad_file.BadFile, match='none of the 2 videos'):
    regions.scan(path, ['x', 'y'])


@pytest.mark.parametrize('content', [b'', b'no HDF5 at all' * 100])
def test_no_hdf5(tmp_path, content):
  path = tmp_path / 'broken.hdf5'
  path.write_bytes(content)
  with pytest.raises(bad_file.BadFile, match='broken.hdf5'):
    regions.scan(path, ['x'])


def test_groups_and_links_are_no_videos(tmp_path):
  other = _write(tmp_path, secret=_some(2, 4, 5))
  path = tmp_path / 'links.hdf5'
  with h5py.File(path, 'w') as file:
    file['good'] = _some(2, 4, 5)
    file.create_group('group')
    file['link'] = h5py.ExternalLink(str(other), 'secret')
  for name in ('group', 'link'):
    with pytest.raises(bad_file.BadFile, match=name):
      regions.scan(path, ['good', name])


@pytest.mark.parametrize(
  ('bad', 'dtype'), [(np.nan, 'f4'), (np.inf, 'f4'), (1e300, 'f8')]
)
def test_nan_is_found_when_read(tmp_path, bad, dtype):
  value = _some(5, 4, 5, dtype=dtype)
  value[3, 1, 2] = bad
  path = _write(tmp_path, odd=value, good=_some(2, 4, 5))
  file = _open(path, ['odd', 'good'])
  assert len(file.read('good')) == 2
  with pytest.raises(bad_file.BadFile, match="frame 3 of video 'odd'"):
    file.read('odd')


@pytest.mark.parametrize('chunked', [False, True])
def test_a_read_error_is_not_a_missing_video(tmp_path, chunked):
  # Upstream swallows it: `except Exception` makes the video a missing one.
  path = tmp_path / 'cut.hdf5'
  with h5py.File(path, 'w') as file:
    file['a'] = _some(2, 4, 5)
    options = {'chunks': (4, 4, 5)} if chunked else {}
    file.create_dataset('b', data=_some(40, 4, 5), **options)
  file = _open(path, ['a', 'b'])
  with open(path, 'r+b') as stream:
    stream.truncate(path.stat().st_size - 1000)
  with pytest.raises(bad_file.BadFile, match='cut.hdf5') as error:
    file.read('b')
  assert 'damaged' in str(error.value) or 'cannot be read' in str(error.value)


def test_a_file_that_changes_is_told(tmp_path):
  path = _write(tmp_path, a=_some(3, 4, 5))
  shapes = regions.Shapes({'a': 4}, 4, 5)
  with pytest.raises(bad_file.BadFile, match='has 3 frames, expected 4'):
    regions.File(path, shapes).read('a')


def test_threads_read_alike(tmp_path):
  arrays = {f'v{i}': _some(2 + i % 5, 4, 5, seed=i) for i in range(40)}
  file = _open(_write(tmp_path, **arrays), arrays)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for name, got in zip(arrays, pool.map(file.read, arrays), strict=True):
      np.testing.assert_array_equal(got, arrays[name])
  again = pickle.loads(pickle.dumps(file))
  np.testing.assert_array_equal(again.read('v7'), arrays['v7'])


_FORK = """
import os, pathlib, sys
import numpy as np
from vidret_jax.data.copies import regions

path = pathlib.Path(sys.argv[1])
file = regions.File(path, regions.scan(path, ['a', 'b']))
before = {name: file.read(name) for name in 'ab'}
handle = file._local.file
child = os.fork()
for _ in range(50):
  for name, value in before.items():
    np.testing.assert_array_equal(file.read(name), value)
if not child:
  assert file._local.file is not handle and not handle
  os._exit(0)
assert os.waitpid(child, 0)[1] == 0 and handle
"""


def test_a_fork_opens_the_file_for_itself(tmp_path):
  # In a process of its own: this one may have threads of other tests.
  path = tmp_path / 'features.hdf5'
  with h5py.File(path, 'w') as file:
    for seed, name in enumerate('ab'):
      value = _some(20, 4, 5, seed=seed)
      file.create_dataset(name, data=value, compression='gzip')
  done = subprocess.run(
    [sys.executable, '-c', _FORK, str(path)],
    cwd=pathlib.Path(__file__).parents[3], capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
