# SPDX-License-Identifier: Apache-2.0
"""Published features -> records in 16 bits, and what happens on the way."""

import concurrent.futures
import gc
import json
import shutil

import h5py
import numpy as np
import pytest

from tests.data import copy_sets
from vidret_jax import config_lib
from vidret_jax.data import fivr, folder_copies, store, svd
from vidret_jax.data.copies import regions
from vidret_jax.tools import prepare as prepare_tool

_SHARD = 600  # Bytes: several videos in some shards, one in others.


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  return tmp_path / 'data'


@pytest.fixture
def root(tmp_path):
  return copy_sets.write(
    tmp_path / 'root', 'svd', queries=2, copies=2, regions=3, dim=4
  )


def _prepare(root, **options):
  given = dict(split='all', storage='records', shard_bytes=_SHARD)
  return svd.prepare(
    **{**given, 'manual_dir': root, 'progress': False, **options}
  )


def _make(view='items', **options):
  return svd.make(
    view=view, **{'split': 'all', 'storage': 'records', **options}
  )


def _content(folder):
  """Name -> bytes, without the paths of the published files."""
  return {
    p.name: p.read_bytes()
    for p in folder.iterdir()
    if p.name not in ('metadata.json', 'contents.json')
  }


def test_records_are_the_files_in_16_bits(root, data):
  folder = _prepare(root)
  assert folder.is_relative_to(data / 'records' / 'copies')
  files = {v: _make(v, storage='files', root=str(root))
           for v in ('queries', 'items')}  # fmt: skip
  want = {v: [x.read(i) for i in range(len(x))] for v, x in files.items()}
  shutil.rmtree(root)  # Records stand on their own.
  for kind, file in files.items():
    view = _make(kind)
    assert view.ids == file.ids and view.annotations == file.annotations
    assert (view.regions, view.dim) == (3, 4) and view.dtype == np.float16
    np.testing.assert_array_equal(view.lengths, file.lengths)
    for i, value in enumerate(want[kind]):
      got = view.read(i)
      assert got.dtype == np.float16
      np.testing.assert_array_equal(got, value.astype(np.float16))
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for got, value in zip(
      pool.map(view.read, range(len(view))), want['items'], strict=True
    ):
      np.testing.assert_array_equal(got, value.astype(np.float16))


def test_what_lies_beside_the_records(root):
  folder = _prepare(root)
  found = json.loads((folder / 'contents.json').read_text())
  shards = sorted(folder.glob('*array_record*'))
  assert list(found['shards']) == [p.name for p in shards] and len(shards) > 3
  assert sum(note['count'] for note in found['shards'].values()) == len(
    found['lengths']
  )
  assert len(found['missing']) == 2
  size = (root / 'svd.hdf5').stat().st_size
  assert found['sources'][str(root / 'svd.hdf5')][0] == size
  assert list(found['lengths']) == sorted(found['lengths'])

  assert _prepare(root, verify=True) == folder
  with open(shards[1], 'r+b') as stream:
    stream.seek(100)
    stream.write(b'\xff\x00\xff')
  with pytest.raises(ValueError, match=shards[1].name):
    _prepare(root, verify=True)


def test_full_precision(root):
  _prepare(root, precision='float32')
  view = _make(precision='float32')
  file = _make(storage='files', root=str(root))
  for i in range(len(view)):
    np.testing.assert_array_equal(view.read(i), file.read(i))
  with pytest.raises(store.MissingRecords, match='no records'):
    _make()


def test_what_is_there_is_left_alone(root):
  folder = _prepare(root)
  before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
  assert _prepare(root) == folder
  assert before == {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
  content = _content(folder)
  assert _prepare(root, overwrite=True) == folder
  assert _content(folder) == content
  with h5py.File(root / 'svd.hdf5', 'a') as file:
    file['more'] = np.zeros((1, 3, 4), np.float32)
  with pytest.raises(ValueError, match='--overwrite'):
    _prepare(root)


class _Killed(BaseException):
  pass


def test_a_killed_run_goes_on(root, data, monkeypatch):
  whole = _content(_prepare(root))
  shutil.rmtree(data)
  read, count = regions.File.read, []

  def killed(self, name):
    count.append(name)
    if len(count) % 6 == 0:
      raise _Killed
    return read(self, name)

  monkeypatch.setattr(regions.File, 'read', killed)
  seen = [0]
  for _ in range(20):
    try:
      folder = _prepare(root, num_threads=1)
      break
    except _Killed:
      (draft,) = (data / 'records' / 'copies').glob('*/incomplete.*')
      seen.append(len(list(draft.glob('*array_record*.json'))))
      with pytest.raises(store.MissingRecords, match='unfinished incomplete'):
        _make()
  assert len(seen) > 2 and seen == sorted(seen)
  assert _content(folder) == whole
  # No shard was written twice: only that in which the run was killed.
  assert len(count) < 2 * len(set(count))


def test_shards_of_another_plan_are_not_used(root, data, monkeypatch):
  def killed(self, name):
    raise _Killed

  with monkeypatch.context() as changed:
    changed.setattr(regions.File, 'read', killed)
    with pytest.raises(_Killed):
      _prepare(root)
  (draft,) = (data / 'records' / 'copies').glob('*/incomplete.*')
  (draft / 'left').write_text('')
  folder = _prepare(root, shard_bytes=1)
  assert not (folder / 'left').exists()
  assert len(list(folder.glob('*array_record*'))) == len(
    json.loads((folder / 'contents.json').read_text())['lengths']
  )


@pytest.mark.parametrize(
  ('number', 'said'),
  [(np.nan, 'NaN or Inf in frame 0 of '), (1e6, 'more than float16 holds')],
)
def test_bad_numbers_stop_it(root, number, said):
  with h5py.File(root / 'svd.hdf5', 'a') as file:
    name = next(n for n in file if file[n].dtype == np.float32)
    file[name][0] = number
  with pytest.raises(ValueError, match=said) as error:
    _prepare(root)
  assert name in str(error.value)
  if np.isfinite(number):
    assert _prepare(root, precision='float32').is_dir()


def test_damaged_records_are_named(root):
  folder = _prepare(root)
  shards = sorted(folder.glob('*array_record*'))
  for shard in shards:
    shard.write_bytes(b'\xff' * shard.stat().st_size)

  def read():
    view = _make()
    return [view.read(i) for i in range(len(view))]

  with pytest.raises(ValueError, match=f'{folder}.* is damaged'):
    read()
  shards[0].unlink()
  gc.collect()  # Of views in use, the records are not opened again.
  with pytest.raises(store.MissingRecords, match='half written'):
    read()


def test_beam_writes_the_same(root, data):
  content = _content(_prepare(root))
  shutil.rmtree(data)
  folder = _prepare(root, beam_runner='DirectRunner')
  assert _content(folder) == content


_CONFIG = """
import ml_collections as mlc


def get_config(arg=None):
  def data(**more):
    return dict(min_frames=4, videos=None, **more)

  c = mlc.ConfigDict()
  c.input = dict(data=dict(name='evaluation_only', shapes=dict(weak=(1,))))
  c.evals = dict(
    small=dict(data=data(name='fivr', split='5k', root={fivr!r})),
    own=dict(
      data=data(name='folder_copies', storage='records', root={own!r},
                paths={paths!r}),
    ),
  )
  return c
"""


def test_by_a_config(tmp_path, capsys):
  small = dict(queries=2, copies=1, others=2, regions=2, dim=3)
  own = str(copy_sets.write(tmp_path / 'own', 'folder_copies', **small))
  root = str(copy_sets.write(tmp_path / 'fivr', 'fivr', **small))
  paths = copy_sets.folder_paths()
  file = tmp_path / 'config.py'
  file.write_text(_CONFIG.format(fivr=root, own=own, paths=paths))
  code = prepare_tool.main(['--config', str(file)])
  said = capsys.readouterr()
  assert code == 0, said.err
  assert 'evaluation_only: is read as it is' in said.out
  shutil.rmtree(own)
  assert folder_copies.make(
    view='items', storage='records', root=own, paths=paths
  ).found.any()
  config = config_lib.to_dict(config_lib.load(str(file), []))
  del config['evals']['small']['data']['name']
  assert fivr.make(
    view='queries', **config['evals']['small']['data']
  ).found.all()
