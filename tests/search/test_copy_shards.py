# SPDX-License-Identifier: Apache-2.0
"""Files of a copy search: they are used again, or refused with the reason."""

import json
import shutil

import numpy as np
import pytest

from tests.search import toy_copies as toy
from vidret_jax.search import copy_shards

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
  # The sample that tells other features by is all that was read of them.
  assert len(pair[1].reads) == 8


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
