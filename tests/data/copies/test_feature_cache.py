# SPDX-License-Identifier: Apache-2.0
"""Training pairs from features: rows, black and noise frames, bad files."""

import h5py
import numpy as np
import pytest

from vidret_jax.data import vcdb
from vidret_jax.data.augment import temporal
from vidret_jax.data.copies import feature_cache

COUNTS = {'-a': 30, 'b.mp4': 7, 'c': 1}
TIMES = temporal.Options()
SEEDS = np.array([5, 6, 2**61], np.int64)


def write(path, dtype=np.float16, counts=COUNTS):
  """Region r of frame t of a video is (t, r, ...), its label (t, 1)."""
  with h5py.File(path, 'w') as file:
    for name, count in counts.items():
      time = np.arange(count, dtype=dtype)
      regions = np.zeros((count, 3, 4), dtype)
      regions[:, :, 0] = time[:, None]
      regions[:, :, 1] = np.arange(3)
      file[f'regions/{name}'] = regions
      file[f'labels/{name}'] = np.stack([time, np.ones_like(time)], 1)
  return path


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  return write(tmp_path_factory.mktemp('cache') / 'features.hdf5')


def test_views_hold_the_rows_of_their_times(path):
  source = vcdb.make(features=path, window=6)
  assert source.ids == tuple(sorted(COUNTS))
  batch = source.gather(np.arange(3), SEEDS)
  assert set(batch) == set(source.spec)
  for key, (shape, dtype) in source.spec.items():
    assert batch[key].shape == (3, *shape) and batch[key].dtype == dtype
  assert batch['weak'].dtype == np.float16 and batch['_mask'].all()
  for v, name in enumerate(source.ids):
    views = temporal.two_views(COUNTS[name], 6, TIMES, int(SEEDS[v]))
    for view, times in zip(('weak', 'strong'), views):
      seen = times >= 0
      got = batch[view][v][seen]
      np.testing.assert_array_equal(got[:, 2, 0], times[seen])
      np.testing.assert_array_equal(got[:, 2, 1], 2)
      label = batch[f'{view}_labels'][v][seen]
      np.testing.assert_array_equal(label[:, 0], times[seen])


def test_frames_that_are_none(path):
  how = dict(
    temporal=dict(
      *(),
      **dict(shuffle_dropout=1.0, fast=0, slow=0, reverse=0, pause=0),
      **dict(shuffle=0.0, dropout=0.4, content=0.0),
    )
  )
  source = feature_cache.make(path=path, window=15, augment=how)
  options = temporal.Options(**how['temporal'])
  black = noise = 0
  for seed in range(30):
    _, times = temporal.two_views(30, 15, options, seed)
    batch = source.gather(np.array([0]), np.array([seed]))
    for rows, label, time in zip(
      batch['strong'][0], batch['strong_labels'][0], times.tolist()
    ):
      if time == temporal.BLANK:
        assert not rows.any() and not label.any()
        black += 1
      elif time <= temporal.NOISE:
        norms = np.linalg.norm(rows.astype(float), axis=-1)
        np.testing.assert_allclose(norms, 1, atol=2e-3)
        assert np.linalg.norm(label.astype(float)) >= 0.99
        noise += 1
  assert black and noise


def test_rows_depend_on_their_seeds_only(path):
  whole = feature_cache.make(path=path, window=4).gather(np.arange(3), SEEDS)
  again = feature_cache.make(path=path, window=4)
  for i in (2, 0, 1):
    part = again.gather(np.array([i, -1]), SEEDS[[i, i]])
    for key in whole:
      np.testing.assert_array_equal(part[key][0], whole[key][i])
      assert not part[key][1].any()


def test_regions_alone_and_a_part_of_the_list(tmp_path):
  path = write(tmp_path / 'f.hdf5', np.float32)
  with h5py.File(path, 'a') as file:
    del file['labels']
  with pytest.raises(ValueError, match="no group 'labels'"):
    feature_cache.make(path=path)
  source = vcdb.make(features=path, labels=False, percentage=0.7, window=2)
  assert source.ids == ('-a', 'b.mp4')
  assert set(source.spec) == {'weak', 'strong', '_mask'}
  assert source.spec['weak'] == ((2, 3, 4), np.dtype(np.float32))


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda f: f.pop('labels/c'), "only one of.*'c'"),
    (lambda f: f.pop('regions'), "no group 'regions'"),
    (lambda f: _put(f, 'regions/-a', np.zeros((3, 4))), 'regions/-a.*3 axes'),
    (lambda f: _put(f, 'regions/-a', np.zeros((0, 3, 4))), 'regions/-a'),
    (lambda f: _put(f, 'labels/-a', np.zeros((30, 2), int)), 'labels/-a'),
    (lambda f: _put(f, 'regions/c', np.zeros((1, 2, 4))), 'regions/c.*shape'),
    (lambda f: _put(f, 'labels/c', np.ones((2, 2))), "'c'.*frames"),
    (
      lambda f: _put(f, 'labels/c', np.full((1, 2), np.nan)),
      'labels/c: NaN',
    ),
    (
      lambda f: _put(f, 'regions/c', h5py.SoftLink('/labels/c')),
      "'c' is not a plain dataset",
    ),
    (
      lambda f: _put(f, 'labels', h5py.ExternalLink('other.h5', '/')),
      "no group 'labels'",
    ),
  ],
)
def test_bad_files_are_refused(tmp_path, change, message):
  path = write(tmp_path / 'f.hdf5')
  with h5py.File(path, 'a') as file:
    change(file)
  with pytest.raises(ValueError, match=message) as error:
    source = feature_cache.make(path=path, window=4)
    source.gather(np.arange(3), SEEDS)
  assert 'f.hdf5' in str(error.value)


def _put(file, key, value):
  del file[key]
  file[key] = value


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(percentage=2), 'percentage=2'),
    (dict(percentage=0.1), 'leaves none'),
    (dict(window=0), 'window=0'),
    (dict(view='items'), "'items'"),
    (dict(augment=dict(colour=1)), "'colour'"),
  ],
)
def test_bad_options_are_refused(path, options, message):
  with pytest.raises(ValueError, match=message):
    feature_cache.make(path=path, **options)


def test_no_hdf5(tmp_path):
  (tmp_path / 'f.hdf5').write_text('no')
  with pytest.raises(ValueError, match='cannot be read as HDF5'):
    feature_cache.make(path=tmp_path / 'f.hdf5')
