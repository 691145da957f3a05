# SPDX-License-Identifier: Apache-2.0
"""Files of a copy search: they are used again, or refused with the reason."""

import errno
import json
import resource
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from tests.search import toy_copies as toy
from vidret_jax.search import copy_plan, copy_shards

STALE = {
  'other weights': (dict(seed=1), 'weights'),
  'other options': (dict(storage='float16'), 'option storage'),
  'other chunks': (dict(chunk=16), 'option chunk'),
  'other items': (
    dict(pair=(toy.views()[0], toy.View('w', toy.ITEMS))),
    'items',
  ),
  'other queries': (
    dict(pair=(toy.View('q', toy.QUERIES[:-1]), toy.views()[1])),
    'queries',
  ),
}


@pytest.fixture(autouse=True)
def quick(quick_compiler):
  """Every test here compiles as little as it can."""


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
  """(folder of a pruned search, its result)."""
  folder = tmp_path_factory.mktemp('copies') / 'scores'
  return folder, toy.find(folder=folder, visit=0.2)


@pytest.fixture
def folder(kept, tmp_path):
  return shutil.copytree(kept[0], tmp_path / 'scores')


def files(folder):
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for p in sorted(folder.rglob('*'))
    if p.is_file()
  }


def test_a_finished_search_computes_nothing(kept, folder):
  before = files(folder)
  assert {p.split('/')[0] for p in before} == {
    *('coarse', 'fine', 'lock', 'manifest.json')
  }
  pair = toy.views()
  again = toy.find(folder=folder, visit=0.2, pair=pair, readers=1, ahead=1)
  np.testing.assert_array_equal(again.scores, kept[1].scores)
  np.testing.assert_array_equal(again.visited, kept[1].visited)
  assert again.share == kept[1].share
  assert files(folder) == before
  # To tell other features by is all that they were read for, once.
  assert len(pair[1].reads) == len(set(pair[1].reads))


def test_absent_shards_are_computed_again_to_the_byte(kept, folder):
  before = files(folder)
  absent = sorted(p for p in before if p.endswith('.npz'))[1::2]
  for name in absent:
    (folder / name).unlink()
  # What a killed search leaves behind.
  (folder / f'{absent[0]}.part').write_bytes(b'half')
  toy.find(folder=folder, visit=0.2)
  assert files(folder) == before


@pytest.mark.parametrize('what', STALE)
def test_scores_of_another_search_are_refused(folder, what):
  before = files(folder)
  options, key = STALE[what]
  with pytest.raises(copy_shards.StaleScores) as error:
    toy.find(folder=folder, **{'visit': 0.2, **options})
  assert f'  {key}: the folder has ' in str(error.value)
  assert str(error.value).count('the folder has') == 1
  assert files(folder) == before


class Darker(toy.View):
  """Videos of the same ids and lengths from another extractor."""

  def read(self, i):
    return super().read(i) * np.float32(0.5)


def test_other_features_of_the_same_videos_are_refused(folder):
  pair = toy.views()[0], Darker('v', toy.ITEMS)
  with pytest.raises(copy_shards.StaleScores, match='items: the folder has'):
    toy.find(folder=folder, visit=0.2, pair=pair)


@pytest.mark.parametrize('name', ['v3', 'v13', 'q2'])
def test_one_other_video_is_noticed(folder, name):
  """Files of the same lengths whose numbers are others, in a few of many."""

  class Other(toy.View):
    def read(self, i):
      x = super().read(i)
      return x[::-1] if self.ids[i] == name else x

  pair = Other('q', toy.QUERIES), Other('v', toy.ITEMS)
  what = {'v': 'items', 'q': 'queries'}[name[0]]
  with pytest.raises(copy_shards.StaleScores, match=f'{what}: the folder has'):
    toy.find(folder=folder, visit=0.2, pair=pair)


def test_of_a_large_collection_some_videos_are_read(monkeypatch):
  frame = 4 * toy.REGIONS * toy.DIM
  monkeypatch.setattr(copy_shards, '_SAMPLE', 40 * frame)
  view = toy.View('v', [0] + [8] * 50)
  first = copy_shards._videos(view)
  assert view.reads == ['v1', 'v13', 'v25', 'v37', 'v50']
  assert copy_shards._videos(view) == first
  monkeypatch.setattr(copy_shards, '_SAMPLE', 1)
  copy_shards._videos(view)
  assert len(view.reads) == 11  # One is always read.


def test_features_of_any_type_are_known():
  class Short(toy.View):
    def read(self, i):
      return super().read(i).astype(self.dtype)

  sums = set()
  for name in copy_plan.STORAGE:
    view = Short('v', toy.ITEMS)
    view.dtype = jnp.dtype(name)
    sums.add(copy_shards._videos(view))
  assert len(sums) == 3


def test_scores_of_another_platform_are_refused(folder):
  """It adds in another order: the next bytes would be others."""
  path = folder / 'manifest.json'
  about = json.loads(path.read_text())
  assert about['platform'] == 'cpu'
  path.write_text(json.dumps({**about, 'platform': 'tpu'}))
  with pytest.raises(copy_shards.StaleScores, match="has 'tpu', here .* 'cpu'"):
    toy.find(folder=folder, visit=0.2)


def test_a_process_that_does_not_see_the_folder(kept, tmp_path, monkeypatch):
  about = json.loads((kept[0] / 'manifest.json').read_text())
  # As in a process that is not the first one.
  monkeypatch.setattr(copy_shards.Shards, '_make', lambda self: None)
  with pytest.raises(copy_shards.StaleScores, match='see the same folder'):
    copy_shards.Shards(tmp_path / 'mine', about)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  path = tmp_path / 'a.npz'
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limit[1]))
    with pytest.raises(OSError, match='scores cannot be kept.*a.npz'):
      copy_shards._write(path, lambda file: file.write(bytes(2**17)))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  assert not list(tmp_path.iterdir())


def test_damaged_shards_are_named_before_anything_is_computed(folder):
  path = folder / 'coarse' / '00001.npz'
  other = (folder / 'coarse' / '00000.npz').read_bytes()
  data = path.read_bytes()
  bent = bytearray(data)
  bent[len(data) // 2] ^= 1
  with np.load(path) as file:
    arrays = dict(file)
  for change in (data[:100], bytes(bent), b'', other):
    path.write_bytes(change)
    with pytest.raises(copy_shards.StaleScores, match='00001.npz .*Delete'):
      toy.find(folder=folder, visit=0.2)
  np.savez(path, **{**arrays, 'made_by': np.array('another')})
  with pytest.raises(copy_shards.StaleScores, match='by search another'):
    toy.find(folder=folder, visit=0.2)


def test_a_folder_of_something_else_is_refused(tmp_path):
  (tmp_path / 'notes.txt').write_text('mine')
  with pytest.raises(copy_shards.StaleScores, match='holds no scores'):
    toy.find(folder=tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ['notes.txt']


@pytest.mark.parametrize('text', ['{', '[]', '{"format": "other"}'])
def test_a_bad_manifest_is_refused(folder, text):
  (folder / 'manifest.json').write_text(text)
  with pytest.raises(copy_shards.StaleScores, match='damaged|another search'):
    toy.find(folder=folder, visit=0.2)


def test_two_searches_into_one_folder(folder):
  pair = toy.views()
  about = json.loads((folder / 'manifest.json').read_text())
  shards = copy_shards.Shards(folder, about)
  with pytest.raises(copy_shards.StaleScores, match='another process'):
    toy.find(folder=folder, visit=0.2, pair=pair)
  shards.close()
  toy.find(folder=folder, visit=0.2, pair=pair)


def test_a_file_system_without_locks_is_a_warning(folder, monkeypatch, caplog):
  def no_locks(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(copy_shards.fcntl, 'flock', no_locks)
  toy.find(folder=folder, visit=0.2)
  assert 'cannot be locked (No locks available)' in caplog.text
