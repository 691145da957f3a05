# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus as videos of which copies are to be found."""

import pathlib

import numpy as np
import pytest

from vidret_jax.data import shapes_copies
from vidret_jax.data.shapes import annotations, corpus

COUNTS = {'train': 3, 'val': 1, 'test': 3, 'copies': 8}
SIZES = dict(image_size=16, store_size=18, max_frames=12)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return tmp_path_factory.mktemp('shapes_copies')


def make(root, view, split, **options):
  options = {**SIZES, 'counts': COUNTS, 'progress': False, **options}
  return shapes_copies.make(view=view, split=split, root=root, **options)


@pytest.fixture(scope='module')
def views(root):
  return [make(root, view, 'copies') for view in ('queries', 'items')]


@pytest.fixture(scope='module')
def rows(root, views):
  return {r['id']: r for r in annotations.read(corpus.corpus_dir(root))}


def test_pairs_are_views_of_clips_of_their_split(root, rows):
  source = make(root, 'pairs', 'train', window=6)
  assert source.ids == tuple(r for r in rows if rows[r]['split'] == 'train')
  assert {k: shape for k, (shape, _) in source.spec.items()} == {
    'weak': (6, 16, 16, 3),
    'strong': (6, 16, 16, 3),
    'mix': (5,),
    '_mask': (),
  }
  batch = source.gather(np.array([0, 2, -1]), np.arange(3))
  assert batch['_mask'].tolist() == [True, True, False]
  assert batch['weak'][:2].std() > 5 and not batch['weak'][2].any()
  assert len(make(root, 'pairs', 'val', window=6)) == 1


def test_copies_are_asked_for_by_what_they_were_made_of(views, rows):
  queries, items = views
  told = {i: r['copy'] for i, r in rows.items() if r['split'] == 'copies'}
  assert len(told) == COUNTS['copies']
  here = [i for i, r in rows.items() if r['split'] in ('test', 'copies')]
  assert list(items.ids) == sorted(here) == sorted(items.annotations.database)
  assert set(queries.ids) == {copy['source'] for copy in told.values()}
  assert set(queries.ids) < set(items.ids)
  known = queries.annotations
  assert known.protocol == 'fivr' and known == items.annotations
  found = {
    (query, label, video)
    for query, own in known.labels.items()
    for label, some in own.items()
    for video in some
  }
  assert found == {
    (copy['source'], copy['relation'], i) for i, copy in told.items()
  }


def test_frames_are_the_middle_and_short_clips_are_repeated(root, views):
  _, items = views
  assert items.size == (16, 16) and items.found.all()
  assert len(items) == len(items.videos) == len(items.lengths)
  assert all(pathlib.Path(video).is_file() for video in items.videos)
  assert items.lengths.max() <= 12 and items.lengths.min() >= 8
  long = make(root, 'items', 'copies', min_frames=20)
  whole = make(root, 'items', 'copies', image_size=18)
  for i in range(3):
    frames, n = items.frames(i), int(items.lengths[i])
    assert frames.shape == (n, 16, 16, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(whole.frames(i)[:, 1:17, 1:17], frames)
    assert long.lengths[i] == 2 * n
    np.testing.assert_array_equal(long.frames(i), np.concatenate([frames] * 2))


def test_prepare_makes_all_and_then_touches_nothing(root, views):
  def times():
    return {
      p: p.stat().st_mtime_ns
      for p in root.rglob('*')
      if p.is_file() and not p.name.endswith('lock')
    }

  before = times()
  folder = shapes_copies.prepare(
    split='copies', root=root, counts=COUNTS, progress=False, **SIZES
  )
  assert folder == corpus.corpus_dir(root)
  assert times() == before


@pytest.mark.parametrize(
  'view, split, options, word',
  [
    ('clips', 'train', {}, "Unknown view 'clips'"),
    ('pairs', 'test', {}, "no split 'test'"),
    ('pairs', 'copies', {}, "no split 'copies' for the view 'pairs'"),
    ('items', 'train', {}, "no split 'train' for the view 'items'"),
    ('items', 'copies', dict(image_size=19), 'image_size=19, store_size=18'),
    ('items', 'copies', dict(cache='gpu'), "cache='gpu'"),
    ('pairs', 'train', dict(window=0), 'window=0'),
  ],
)
def test_bad_options_are_named(root, views, view, split, options, word):
  with pytest.raises(ValueError, match=word):
    make(root, view, split, **options)
