"""Paths, containers and values of feature files."""

import math

import numpy as np
import pytest

from tests.data import packs
from vidret_jax.data import containers, encoders, features

_WHERE = dict(path='f.pickle', video='v0', key='face')


@pytest.mark.parametrize(
  'name, changes, want',
  [
    (
      'imagenet.senet154.0',
      {},
      ['aggregated_imagenet_25fps_256px_stride1_offset0/senet154-avg.pickle'],
    ),
    (
      'i3d.i3d.0',
      {},
      [
        'aggregated_i3d_25fps_256px_stride25_offset0_inner_stride1/'
        'i3d-avg.pickle'
      ],
    ),
    (
      'r2p1d.r2p1d-ig65m-kinetics.0',
      {'stride': 8, 'type': 'logits'},
      [
        'aggregated_r2p1d_30fps_256px_stride8_offset0_inner_stride1/'
        'r2p1d-ig65m-kinetics-avg-logits.pickle'
      ],
    ),
    (
      's3dg.s3dg.1',
      {'num_segments': 4, 'offset': None, 'temporal': 'avg-max'},
      [
        'aggregated_s3dg_10fps_224px_stride8_inner_stride1_num_segments4/'
        f's3dg-{part}.pickle'
        for part in ('avg', 'max')
      ],
    ),
  ],
)
def test_aggregated_files(name, changes, want):
  options = {**features.AGGREGATION[name], **changes}
  assert features.aggregated_files(name, options) == want


def test_family_dashes_become_underscores():
  options = dict(fps=1, pixel_dim=2, stride=3)
  assert features.aggregated_files('a-b.c-d.0', options) == [
    'aggregated_a_b_1fps_2px_stride3/c-d-avg.pickle'
  ]


@pytest.mark.parametrize(
  'there',
  [
    'aggregated_audio_feats/x-raw.pickle',
    'aggregated_audio_feats/x-raw.pkl',
    'aggregated_audio_feats/x-raw.h5',
    'aggregated_audio/x-raw.pickle',
  ],
)
def test_resolve_is_tolerant(tmp_path, there):
  file = tmp_path / there
  file.parent.mkdir(parents=True)
  file.touch()
  wanted = ['aggregated_audio_feats/x-raw.pickle']
  assert features.resolve([tmp_path / 'none', tmp_path], wanted, 'a') == file


def test_resolve_lists_what_was_tried(tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    features.resolve([tmp_path], ['a/x.pickle', 'b/y.pkl'], "expert 'face'")
  text = str(error.value)
  for part in ("expert 'face'", str(tmp_path), 'a/x.pickle', 'b/y.pkl', '.npy'):
    assert part in text


TABLE = {
  'v0': np.arange(4, dtype=np.float32),
  'v1': np.ones((1, 4), np.float32),
  'v2': math.nan,
}


@pytest.mark.parametrize('form', ['pickle', 'npy', 'h5', 'store'])
def test_containers_agree(tmp_path, form):
  file = tmp_path / {'store': 'x.pickle'}.get(form, f'x.{form}')
  if form == 'store':
    known = {'v0': TABLE['v0'], 'v1': TABLE['v1'], 'v2': np.zeros(4)}
    packs.dump_store(file, known, missing=['v2'])
  else:
    writers = {
      'pickle': packs.dump,
      'npy': packs.dump_npy,
      'h5': packs.dump_hdf5,
    }
    writers[form](file, TABLE)
  got = containers.open_features(file)
  assert set(got) == {'v0', 'v1', 'v2'}
  assert containers.is_missing(got['v2'])
  for video in ('v0', 'v1'):
    assert not containers.is_missing(got[video])
    rows = features.rows(got[video], 4, variable=False, **_WHERE)
    np.testing.assert_array_equal(rows, TABLE[video].reshape(1, 4))
  with pytest.raises(ValueError, match="no entry for video 'v9'"):
    containers.look_up([(file, got)], 'v9')


def test_hdf5_lists_keep_their_order(tmp_path):
  rng = np.random.default_rng(0)
  said = [rng.normal(size=(n + 1, 3)).astype('f4') for n in range(12)]
  packs.dump_hdf5(tmp_path / 'x.hdf5', {'v0': said})
  got = containers.open_features(tmp_path / 'x.hdf5')['v0']
  assert len(got) == 12
  for a, b in zip(got, said, strict=True):
    np.testing.assert_array_equal(a, b)


def test_hickle_layout(tmp_path):
  """What hickle 5.0.3 writes for a dict of arrays, a float and a list."""
  import h5py

  with h5py.File(tmp_path / 'x.hickle', 'w') as file:
    file['data/"v0"'] = np.ones((1, 3), np.float32)
    file['data/"v1"'] = math.nan
    file['data/"v2"/data0'] = np.zeros((2, 3))
    file['data/"v3"'] = np.zeros((0, 3))
    file.create_group('hickle_types_table')
  got = containers.open_features(tmp_path / 'x.hickle')
  assert set(got) == {'v0', 'v1', 'v2', 'v3'}
  np.testing.assert_array_equal(got['v0'], np.ones((1, 3)))
  assert containers.is_missing(got['v1'])
  assert isinstance(got['v2'], list) and got['v2'][0].shape == (2, 3)
  assert got['v3'].shape == (0, 3)


def test_damaged_containers(tmp_path):
  (tmp_path / 'x.h5').write_bytes(b'nothing')
  with pytest.raises(ValueError, match='x.h5'):
    containers.open_features(tmp_path / 'x.h5')
  packs.dump(tmp_path / 'x.pkl', [1, 2])
  with pytest.raises(ValueError, match='expected a mapping'):
    containers.open_features(tmp_path / 'x.pkl')
  with packs._expert_store('datastructures') as cls:
    store = cls()
    store.keys, store.store = ['a', 'b'], np.ones((1, 3))
    packs.dump(tmp_path / 's.pkl', store)
  with pytest.raises(ValueError, match='s.pkl: ExpertStore'):
    containers.open_features(tmp_path / 's.pkl')


def test_only_a_plain_float_nan_is_missing():
  assert containers.is_missing(float('nan'))
  assert containers.is_missing(np.float64('nan'))
  assert not containers.is_missing(np.float32('nan'))
  assert not containers.is_missing(np.full(3, np.nan))
  assert not containers.is_missing(0.0)
  assert features.rows(math.nan, 3, variable=True, **_WHERE) is None


@pytest.mark.parametrize(
  'value, variable, want',
  [
    (np.full((1, 4), np.nan), False, 'expected finite numbers'),
    (np.full((2, 4), np.inf), True, 'expected finite numbers'),
    (np.zeros(5), False, 'expected width 4, found 5'),
    (np.zeros((2, 3)), True, 'expected width 4, found 3'),
    (np.zeros((2, 4)), False, 'max_tokens'),
    (np.zeros(4), True, r'expected shape \(n, D\)'),
    ('words', True, 'expected an array of numbers'),
    ({'a': 1}, False, 'expected an array of numbers'),
  ],
)
def test_values_that_are_refused(value, variable, want):
  with pytest.raises(ValueError, match=want) as error:
    features.rows(value, 4, variable=variable, **_WHERE)
  for part in ('f.pickle', 'v0', 'face'):
    assert part in str(error.value)


def test_a_present_expert_may_have_no_rows():
  got = features.rows(np.zeros((0, 4)), 4, variable=True, **_WHERE)
  assert got.shape == (0, 4) and got.dtype == np.float32


def test_encoders():
  encoders.check('openai', 768, own_files=False)
  encoders.check('mine', 17, own_files=True)
  with pytest.raises(ValueError, match="'mine' is unknown") as error:
    encoders.check('mine', 17, own_files=False)
  assert 'gpt2-xl-finetune' in str(error.value)
  with pytest.warns(UserWarning, match='published with width 768'):
    encoders.check('openai', 10, own_files=False)
