# SPDX-License-Identifier: Apache-2.0
"""Views of collections: lists, lengths, doubling, what is missing."""

import importlib
import json
import logging
import os
import time

import h5py
import numpy as np
import pytest

from tests.data import copy_sets
from vidret_jax.data import evve, fivr, folder_copies, pickles, svd
from vidret_jax.data.copies import layout, regions, views


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  return tmp_path / 'data'


def _write(tmp_path, name='fivr', **options):
  given = dict(queries=2, copies=1, others=3, regions=3, dim=4)
  return copy_sets.write(tmp_path / name, name, **{**given, **options})


@pytest.mark.parametrize(
  ('frames', 'want'),
  [(0, 0), (1, 8), (3, 12), (5, 10), (7, 14), (8, 8), (9, 9)],
)
def test_short_videos_are_doubled(frames, want):
  assert views.repeated(frames, 8) == want


@pytest.mark.parametrize('name', copy_sets.NAMES)
def test_every_collection(tmp_path, name):
  root = _write(tmp_path, name)
  module = importlib.import_module(f'vidret_jax.data.{name}')
  paths = copy_sets.folder_paths() if name == 'folder_copies' else {}
  for split in module.LAYOUT.splits:
    kw = dict(split=split, root=str(root), paths=paths)
    queries, items = (module.make(view=v, **kw) for v in ('queries', 'items'))
    assert queries.annotations is items.annotations
    assert queries.ids == queries.annotations.queries
    assert items.ids == items.annotations.database
    features = root / {
      'folder_copies': 'features.hdf5',
      'fivr': f'fivr_{split}.hdf5',
    }.get(name, f'{name}.hdf5')
    assert queries.where == items.where == str(features)
    with h5py.File(features) as file:
      for view in (queries, items):
        assert len(view) == len(view.ids) == len(view.lengths)
        assert (view.regions, view.dim) == (3, 4)
        np.testing.assert_array_equal(view.found, view.lengths > 0)
        for i, video in enumerate(view.ids):
          got = view.read(i)
          assert got.dtype == view.dtype == np.float32
          assert got.shape == (view.lengths[i], 3, 4)
          assert view.found[i] == (video in file)
          if view.found[i]:
            want = file[video][()].astype(np.float32)
            while len(want) < 8:
              want = np.concatenate([want, want])
            if want.ndim == 2:
              want = np.repeat(want[:, None], 3, 1)
            np.testing.assert_array_equal(got, want)
    # The last relative of the first query is never there.
    assert 0 < items.found.sum() < len(items)


def test_options(tmp_path):
  root = str(_write(tmp_path, 'evve'))
  items = evve.make(view='items', root=root, min_frames=4)
  assert items.lengths[items.found].min() == 5
  for options, said in (
    ({'view': 'pairs'}, "view='pairs'"),
    ({'split': 'train'}, "split='train'"),
    ({'storage': 'ram'}, "storage='ram'"),
    ({'storage': 'records', 'precision': 'bf16'}, "precision='bf16'"),
    ({'empty': 'fine'}, "empty='fine'"),
    ({'min_frames': 0}, 'min_frames=0'),
  ):
    with pytest.raises(ValueError, match=said):
      evve.make(**{'view': 'items', 'root': root, **options})
  with pytest.raises(ValueError, match=r"known: \['200k', '5k'\]"):
    fivr.make(view='items', root=root)


def test_the_folder_of_the_data_is_the_usual_place(tmp_path, data):
  copy_sets.write(data / 'SVD', 'svd', queries=2, copies=1, regions=2, dim=3)
  assert svd.make(view='queries', split='labeled').found.all()
  with pytest.raises(layout.MissingFiles, match='EVVE'):
    evve.make(view='queries')


def test_files_that_can_be_played(tmp_path):
  root = _write(tmp_path, 'evve')
  items = evve.make(view='items', root=str(root), videos=str(root))
  assert items.videos == [None] * len(items)
  file = root / f'{items.ids[1]}.mp4'
  file.write_bytes(b'x')
  again = evve.make(view='items', root=str(root), videos=str(root))
  assert again.videos[:2] == [None, str(file)]


def test_pickles_and_lengths_are_read_once(tmp_path, monkeypatch):
  root = str(_write(tmp_path))
  kw = dict(view='items', split='5k', root=root)
  first = fivr.make(**kw)
  lengths, ids = first.lengths, first.ids
  del first  # Views that are in use share what they read.

  def refuse(*_, **__):
    raise AssertionError('read again')

  with monkeypatch.context() as changed:
    changed.setattr(pickles, 'load', refuse)
    changed.setattr(regions, 'scan', refuse)
    again = fivr.make(**kw)
    np.testing.assert_array_equal(again.lengths, lengths)
    assert again.ids == ids
    assert again.read(int(np.flatnonzero(again.found)[0])).size
    del again
    # Files that have changed are read again.
    os.utime(os.path.join(root, 'fivr_audio.pickle'), (1, time.time()))
    with pytest.raises(AssertionError, match='read again'):
      fivr.make(**kw)
  assert fivr.make(**kw).ids == ids


def test_a_damaged_note_is_made_again(tmp_path):
  root = str(_write(tmp_path))
  kw = dict(view='items', split='5k', root=root)
  lengths = fivr.make(**kw).lengths
  folder = fivr.prepare(split='5k', root=root)
  for text in ('{', '{"sources": {}}', '[]'):
    (folder / 'contents.json').write_text(text)
    np.testing.assert_array_equal(fivr.make(**kw).lengths, lengths)
  assert json.loads((folder / 'contents.json').read_text())['missing']


def test_a_folder_that_cannot_be_written_is_no_obstacle(
  tmp_path, monkeypatch, caplog
):
  root = str(_write(tmp_path))
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'file'))
  with caplog.at_level(logging.WARNING):
    assert fivr.make(view='items', split='5k', root=root).found.any()
  assert 'cannot be written' in caplog.text


def test_what_is_missing_is_told_and_counted(tmp_path, caplog):
  root = _write(tmp_path, 'folder_copies', missing=0)
  kw = dict(root=str(root), paths=copy_sets.folder_paths())
  with caplog.at_level(logging.WARNING):
    view = folder_copies.make(view='queries', **kw)
    assert view.found.all() and not caplog.text
    gone, kept = view.ids
    with h5py.File(root / 'features.hdf5', 'a') as file:
      del file[gone]
    view = None
    view = folder_copies.make(view='queries', **kw)
  assert view.found.tolist() == [False, True] and view.ids == (gone, kept)
  assert view.lengths[0] == 0 and view.read(0).shape == (0, 3, 4)
  assert '1 of 2 queries have features' in caplog.text
  with h5py.File(root / 'features.hdf5', 'a') as file:
    del file[kept]
  view = None
  with pytest.raises(ValueError, match='none of the 2 queries'):
    folder_copies.make(view='queries', **kw)
