# SPDX-License-Identifier: Apache-2.0
"""Readers of the published forms, on the small collections of `mini/`.

What is expected of features is upstream's rule, written out: read the whole
dataset, join it with itself until it has 8 frames, add the axis of regions,
cast. What is expected of lists is what upstream scored.
"""

import importlib
import pickle

import h5py
import numpy as np
import pytest

from vidret_jax.data.copies import regions

_LEAST = 8  # `min_len` of `HDF5DatasetGenerator`.
_SPLITS = {
  'fivr': ('5k', '200k'),
  'evve': ('all',),
  'svd': ('labeled', 'all'),
}
_STORAGE = ('files', 'records')


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))


@pytest.fixture(scope='module')
def mini(golden_root):
  folder = golden_root / 'hap_vr' / 'mini'
  if not folder.is_dir():
    pytest.skip(f'{folder} is absent')
  return folder


def _views(mini, name, split, **options):
  if not (mini / f'{name}.hdf5').is_file():
    pytest.skip(f'{mini / name}.hdf5 is absent')
  module = importlib.import_module(f'vidret_jax.data.{name}')
  given = dict(
    split=split, root=mini, paths={'features': f'{name}.hdf5'}, **options
  )
  if options.get('storage') == 'records':
    module.prepare(**given, shard_bytes=20_000, progress=False)
  return [module.make(view=view, **given) for view in ('queries', 'items')]


def _upstream(file, name):
  """[T, R, D] float32 of a video, as upstream reads it; None: missing."""
  if name not in file:
    return None
  found = file[name][()]
  while found.shape[0] < _LEAST:
    found = np.concatenate([found, found], axis=0)
  if found.ndim == 2:
    found = np.expand_dims(found, 1)
  return found.astype(np.float32)


@pytest.mark.parametrize('storage', _STORAGE)
@pytest.mark.parametrize('name', _SPLITS)
def test_every_array(mini, name, storage, errors):
  for split in _SPLITS[name]:
    views = _views(mini, name, split, storage=storage)
    with h5py.File(mini / f'{name}.hdf5') as file:
      for view in views:
        for i, video in enumerate(view.ids):
          want, got = _upstream(file, video), view.read(i)
          assert view.found[i] == (want is not None)
          assert len(got) == view.lengths[i]
          if want is None:
            continue
          # A video of one region has it in every place: no score changes.
          shape = (len(want), view.regions, want.shape[2])
          want = np.broadcast_to(want, shape)
          if storage == 'files':
            np.testing.assert_array_equal(got, want)
          else:
            errors.close(video, got, want, atol=1e-7, rtol=2**-11)


@pytest.mark.parametrize('name', _SPLITS)
def test_arrays_of_no_list(mini, name):
  # A file may have videos of no list; what a view does not read, this does.
  path = mini / f'{name}.hdf5'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  with h5py.File(path) as file:
    read = regions.File(path, regions.scan(path, list(file))).read
    for video in file:
      want, got = _upstream(file, video), read(video)
      want = np.broadcast_to(want, (len(want), *got.shape[1:]))
      times = len(want) // len(got)
      np.testing.assert_array_equal(np.concatenate([got] * times), want)


def _runs(mini):
  """(run, module, split, only queries with sound) of what upstream scored."""
  path = mini / 'expected_sims.npz'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  with np.load(path) as arrays:
    found = {k: arrays[k] for k in arrays.files if not k.endswith('/sim')}
  for run in sorted({key.split('/')[0] for key in found}):
    name, *rest = run.split('_')
    known = [split for split in _SPLITS[name] if split in rest]
    split = known[0] if known else _SPLITS[name][-1]
    wanted = {
      key: set(found[f'{run}/{key}'].tolist())
      for key in ('queries', 'targets', 'available')
    }
    yield run, name, split, 'audio' in rest, wanted


def test_what_upstream_scored(mini):
  for run, name, split, sound, want in _runs(mini):
    queries, items = _views(mini, name, split)
    told = queries.annotations
    asked = [
      q for q in queries.ids if not sound or 'DA' in told.labels[q]
    ]  # fmt: skip
    there = {
      video
      for view in (queries, items)
      for video, found in zip(view.ids, view.found, strict=True)
      if found
    }
    assert want['queries'] == there.intersection(asked), run
    assert want['targets'] == set(items.ids), run
    spoken = there if not sound else there.intersection([*asked, *items.ids])
    assert want['available'] == spoken, run


def test_fivr_annotations(mini):
  path = mini / 'data' / 'fivr_audio.pickle'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  with open(path, 'rb') as stream:
    value = pickle.load(stream)
  easy = (mini / 'data' / 'fivr_easy_duplicates.txt').read_text().split()
  for split in _SPLITS['fivr']:
    found = _views(mini, 'fivr', split)[0].annotations
    assert found.protocol == 'fivr' and set(found.easy) == set(easy)
    assert set(found.queries) == set(value[split]['queries'])
    assert set(found.database) == set(value[split]['database'])
    assert set(found.labels) == set(found.queries)
    for query, own in found.labels.items():
      want = value['annotation'][query]
      assert {k: set(v) for k, v in own.items()} == {
        k: set(v) for k, v in want.items()
      }
      assert all(list(v) == sorted(set(v)) for v in own.values())


def test_evve_annotations(mini):
  path = mini / 'data' / 'evve.pickle'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  with open(path, 'rb') as stream:
    value = pickle.load(stream)
  found = _views(mini, 'evve', 'all')[0].annotations
  assert set(found.queries) == set(value['queries'])
  assert set(found.database) == set(value['database'])
  assert set(found.events) == set(value['annotation'])
  for event, (queries, positives, _) in value['annotation'].items():
    assert set(found.events[event]) == queries
    for query in queries:
      assert set(found.labels[query]['P']) == positives


def test_svd_annotations(mini):
  path = mini / 'data' / 'test_groundtruth'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  lines = [line.split(' ') for line in path.read_text().splitlines()]
  others = (mini / 'data' / 'unlabeled-data-id').read_text().split()
  for split in _SPLITS['svd']:
    found = _views(mini, 'svd', split)[0].annotations
    rest = set(others) if split == 'all' else set()
    assert set(found.unlabelled) == rest
    assert set(found.queries) == {query for query, _, _ in lines}
    assert set(found.database) == {video for _, video, _ in lines} | rest
    got = {
      (query, video, label)
      for query, own in found.labels.items()
      for name, label in (('P', '1'), ('N', '0'))
      for video in own[name]
    }
    assert got == {tuple(line) for line in lines}
