# SPDX-License-Identifier: Apache-2.0
"""The dataset modules, each over files in its own format."""

import importlib
import json

import numpy as np
import pytest

from tests.data import moment_sets

SMALL = {'train': 3, 'val': 2, 'test_public': 2, 'test_challenge': 1}
SECONDS = {
  'tvr_moments': 1.5,
  'activitynet_moments': 5.0,
  'charades_moments': 3.0,
  'didemo_moments': 2.5,
  'folder_moments': 1.5,
}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  return tmp_path / 'data'


def opened(name, root, view, split='train', **options):
  module = importlib.import_module(f'vidret_jax.data.{name}')
  if name == 'folder_moments':
    options = {'paths': moment_sets.folder_paths(), **options}
  module.prepare(split=split, root=root, progress=False, **options)
  return module.make(view=view, split=split, root=root, **options)


def whole(source):
  index = np.arange(len(source))
  return source.gather(index, index)


@pytest.mark.parametrize('name', SECONDS)
def test_datasets(name, tmp_path):
  assert set(SECONDS) == set(moment_sets.DATASETS)
  root = moment_sets.write(tmp_path / 'root', name, videos=SMALL)
  pairs = opened(name, root, 'pairs')
  batch = whole(pairs)
  assert len(pairs) == 9
  (table,) = root.glob('*dur*.json')
  told = json.loads(table.read_text())['train']
  counts = dict(zip([i.split('#')[0] for i in pairs.ids],
                    batch['clip_mask'].sum(1).tolist()))  # fmt: skip
  for video, (seconds, _) in told.items():
    assert counts[video] == np.ceil(seconds / SECONDS[name])
  queries = opened(name, root, 'queries')
  items = opened(name, root, 'items')
  assert items.clip_seconds == SECONDS[name]
  truth = queries.ground_truth(items)
  first = np.floor(truth.spans[:, 0] / SECONDS[name]).astype(int)
  np.testing.assert_array_equal(batch['span'][:, 0], first)
  several = isinstance(queries.rows[0]['ts'][0], list)
  assert several == (name == 'didemo_moments')
  test = opened(name, root, 'queries', 'test')
  assert test.answered == (name != 'tvr_moments')


def test_families_and_encoders_of_tvr(tmp_path):
  root = moment_sets.write(tmp_path, videos=SMALL)
  rows = {}
  for features, width in (('resnet_i3d', 14), ('resnet', 8), ('i3d', 6)):
    items = opened('tvr_moments', root, 'items', features=features,
                   context='video')  # fmt: skip
    rows[features] = whole(items)['video']
    assert rows[features].shape[-1] == width
  length = np.linalg.norm(rows['resnet'], axis=-1)
  assert np.allclose(length[length > 0], 1, atol=1e-4)
  # Both halves of the joint file were normalised when it was made.
  parts = np.concatenate([rows['resnet'], rows['i3d']], axis=-1)
  np.testing.assert_allclose(rows['resnet_i3d'], parts, atol=1e-6)
  alone, both = (
    whole(opened('tvr_moments', root, 'queries', context=context))['query']
    for context in ('video_tef', 'video_sub_tef')
  )
  assert alone.shape == both.shape and not np.allclose(alone, both)
  raw = opened('tvr_moments', root, 'queries', norm_text=False)
  assert np.linalg.norm(whole(raw)['query'], axis=-1).max() > 1.1


def test_longer_videos_and_queries(tmp_path):
  root = moment_sets.write(tmp_path, videos=SMALL)
  pairs = opened('tvr_moments', root, 'pairs', max_clips=10, max_words=6)
  batch = whole(pairs)
  assert batch['clip_mask'].shape[1] == 10 and batch['clip_mask'].all(1).any()
  assert batch['span'].max() == 9  # Not rescaled.
  assert batch['query_mask'].all(1).any()
  xml = opened('tvr_moments', root, 'items', context='video', max_clips=10,
               sampling='first')  # fmt: skip
  full = opened('tvr_moments', root, 'items', context='video')
  np.testing.assert_array_equal(
    whole(xml)['video'], whole(full)['video'][:, :10]
  )


def test_a_folder_without_durations(tmp_path):
  root = moment_sets.write(tmp_path, 'folder_moments', videos=SMALL)
  paths = moment_sets.folder_paths()
  del paths['durations'], paths['subtitle']
  paths['annotations_test'] = paths.pop('annotations_test_public')
  options = dict(paths=paths, context='video_tef')
  for split in ('train', 'test'):
    items = opened('folder_moments', root, 'items', split, **options)
    queries = opened('folder_moments', root, 'queries', split, **options)
    named = [row['vid_name'] for row in queries.rows]
    assert list(items.ids) == list(dict.fromkeys(named))
    assert items.numbers.tolist() == list(range(SMALL.get(split, 2)))
  lengths = {r['vid_name']: r['duration'] for r in queries.rows}
  assert items.durations.tolist() == [lengths[name] for name in items.ids]
  paths.pop('query')
  with pytest.raises(FileNotFoundError, match='a file for query: name it in p'):
    opened('folder_moments', root, 'items', 'train', **options)
