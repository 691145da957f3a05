# SPDX-License-Identifier: Apache-2.0
"""Annotations as they are published."""

import logging
import os
import pickle

import pytest

from tests.data import copy_sets
from vidret_jax.data import bad_file, evve, fivr, pickles, svd
from vidret_jax.data.copies import layout, published


def _root(tmp_path, name):
  return copy_sets.write(
    tmp_path, name, queries=4, copies=2, others=3, regions=2, dim=3
  )


def _read(root, module, split):
  files = module.LAYOUT.find(split, root, {})
  return published.read(module.LAYOUT, split, files)


def _change(path, change):
  with open(path, 'rb') as stream:
    value = pickle.load(stream)
  change(value)
  with open(path, 'wb') as stream:
    pickle.dump(value, stream)


def test_fivr(tmp_path):
  root = _root(tmp_path, 'fivr')
  large, small = (_read(root, fivr, split) for split in ('200k', '5k'))
  value = pickle.loads((root / 'fivr_audio.pickle').read_bytes())
  for found, split in ((large, '200k'), (small, '5k')):
    assert found.protocol == 'fivr'
    assert found.queries == tuple(sorted(value[split]['queries']))
    assert found.database == tuple(sorted(value[split]['database']))
    for query in found.queries:
      own = {k: tuple(sorted(set(v)))
             for k, v in value['annotation'][query].items()}  # fmt: skip
      assert found.labels[query] == own
    assert len(found.easy) == 4
  assert set(small.labels) == set(small.queries) < set(large.queries)
  assert set(large.queries) < set(large.database)
  assert not large.outside()


def test_evve(tmp_path):
  found = _read(_root(tmp_path, 'evve'), evve, 'all')
  assert found.protocol == 'evve' and not found.unlabelled
  assert sorted(q for some in found.events.values() for q in some) == list(
    found.queries
  )
  for queries in found.events.values():
    assert len({found.labels[q]['P'] for q in queries}) == 1
  assert not set(found.queries) & set(found.database)


def test_svd(tmp_path):
  root = _root(tmp_path, 'svd')
  everything, labelled = (_read(root, svd, s) for s in ('all', 'labeled'))
  assert everything.labels == labelled.labels and not labelled.unlabelled
  candidates = {
    v for own in labelled.labels.values() for some in own.values() for v in some
  }
  assert set(labelled.database) == candidates
  assert set(everything.database) == candidates | set(everything.unlabelled)
  assert len(everything.unlabelled) == 3


def test_only_the_split_with_unlabelled_videos_needs_their_list(tmp_path):
  # Upstream opens all four collections to evaluate one.
  root = _root(tmp_path, 'svd')
  (root / 'unlabeled-data-id').unlink()
  assert _read(root, svd, 'labeled').queries
  with pytest.raises(layout.MissingFiles, match='unlabeled-data-id') as error:
    _read(root, svd, 'all')
  assert 'svdbase' in str(error.value)


def test_missing_files_are_all_named(tmp_path):
  with pytest.raises(layout.MissingFiles) as error:
    fivr.LAYOUT.find('5k', tmp_path / 'nowhere', {})
  for name in ('the folder', 'fivr_5k.hdf5', 'fivr_audio', 'easy_duplicates'):
    assert name in str(error.value)
  with pytest.raises(ValueError, match=r"unknown keys of paths \['video'\]"):
    fivr.LAYOUT.find('5k', tmp_path, {'video': 'x'})


@pytest.mark.parametrize('line', ['a b', 'a b 2', 'a b 1 0', 'a b yes'])
def test_wrong_lines_of_svd_are_named(tmp_path, line):
  root = _root(tmp_path, 'svd')
  path = root / 'test_groundtruth'
  path.write_text(path.read_text() + line + '\n')
  with pytest.raises(bad_file.BadFile, match='query candidate label') as error:
    _read(root, svd, 'labeled')
  assert f'test_groundtruth:{4 * 2 * 2 + 1}' in str(error.value)


def test_of_two_lines_the_later_counts(tmp_path, caplog):
  root = _root(tmp_path, 'svd')
  path = root / 'test_groundtruth'
  query, video, label = path.read_text().split()[:3]
  assert label == '1'
  path.write_text(path.read_text() + f'{query} {video} 0\n')
  with caplog.at_level(logging.WARNING):
    found = _read(root, svd, 'labeled')
  assert video in found.labels[query]['N']
  assert video not in found.labels[query]['P']
  assert 'label 0, but 1 above' in caplog.text


def test_videos_outside_the_database_are_told(tmp_path, caplog):
  root = _root(tmp_path, 'evve')

  def change(value):
    next(iter(value['annotation'].values()))[1].add('nobody')

  _change(root / 'evve.pickle', change)
  with caplog.at_level(logging.WARNING):
    found = _read(root, evve, 'all')
  assert "1 videos that are not in the database, such as 'nobody'" in (
    caplog.text
  )
  assert found.outside() == ('nobody',)


def test_older_labels_of_fivr_are_told(tmp_path, caplog):
  root = _root(tmp_path, 'fivr')
  with caplog.at_level(logging.WARNING):
    _read(root, fivr, '5k')
    assert not caplog.text
    (root / 'fivr_audio.pickle').rename(root / 'fivr.pickle')
    with pytest.raises(layout.MissingFiles):
      fivr.LAYOUT.find('5k', root, {})
    files = fivr.LAYOUT.find('5k', root, {'annotations': 'fivr.pickle'})
    published.read(fivr.LAYOUT, '5k', files)
  assert 'older labels of FIVR-200K' in caplog.text


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    (lambda v: v.pop('5k'), "expected a dict with"),
    (lambda v: v['5k'].pop('database'), "expected a dict with"),
    (lambda v: v['5k'].update(queries='abc'), 'queries is str'),
    (lambda v: v['5k']['queries'].append('new'), "'new' has no labels"),
    (lambda v: [own.update(DS=5) for own in v['annotation'].values()],
     'label DS of query .* is int'),
  ],
)  # fmt: skip
def test_other_pickles_are_refused(tmp_path, change, said):
  root = _root(tmp_path, 'fivr')
  _change(root / 'fivr_audio.pickle', change)
  with pytest.raises(bad_file.BadFile, match=said) as error:
    _read(root, fivr, '5k')
  assert 'fivr_audio.pickle' in str(error.value)


def test_events_of_something_else_are_refused(tmp_path):
  root = _root(tmp_path, 'evve')

  def change(value):
    event, (queries, *rest) = next(iter(value['annotation'].items()))
    value['annotation'][event] = ([*queries, ['more']], *rest)

  _change(root / 'evve.pickle', change)
  with pytest.raises(bad_file.BadFile, match='expected video ids as strings'):
    _read(root, evve, 'all')


class _Evil:
  def __reduce__(self):
    return os.mkdir, ('ran',)


def test_pickles_run_nothing(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  root = _root(tmp_path, 'evve')
  path = root / 'evve.pickle'
  whole = path.read_bytes()
  path.write_bytes(pickle.dumps(_Evil()))
  with pytest.raises(pickles.UnsafePickle, match='evve.pickle'):
    _read(root, evve, 'all')
  assert not (tmp_path / 'ran').exists()
  path.write_bytes(whole[:-20])
  with pytest.raises(pickles.UnreadablePickle, match='evve.pickle'):
    _read(root, evve, 'all')
