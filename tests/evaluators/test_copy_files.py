# SPDX-License-Identifier: Apache-2.0
"""Files of similarities: there and back, and those that are damaged."""

import json

import numpy as np
import pytest

from vidret_jax.data import bad_file
from vidret_jax.evaluators import copy_files

QUERIES, ITEMS = ('q', 'é "r"', 'gone'), ('-a', 'b\\', 'c', 'lost')


def scores():
  rng = np.random.default_rng(0)
  out = rng.normal(size=(3, 4)).astype(np.float32)
  out[0, 1], out[1, 1] = np.float32(1e-42), -0.1
  out[2] = out[:, 3] = np.nan
  return out


def test_there_and_back(tmp_path):
  path = tmp_path / 'new' / 'sims.json'
  copy_files.write(path, scores(), QUERIES, ITEMS)
  plain = json.loads(path.read_text())
  assert list(plain) == ['q', 'é "r"']
  assert all(set(row) == set(ITEMS[:3]) for row in plain.values())
  for row in plain.values():
    assert list(row.values()) == sorted(row.values(), reverse=True)
  found = copy_files.read(path)
  got, there, notes = copy_files.matrix(found, QUERIES, ITEMS, 'f')
  np.testing.assert_array_equal(got.astype(np.float32), scores())
  assert there.queries.tolist() == [True, True, False]
  assert there.items.tolist() == [True, True, True, False]
  assert notes == ()
  # Another order, and less than the file has.
  got, there, notes = copy_files.matrix(
    found, ('é "r"',), ('c', 'new', '-a'), 'f'
  )
  np.testing.assert_array_equal(
    got.astype(np.float32), [[scores()[1, 2], np.nan, scores()[1, 0]]]
  )
  assert (
    "f has 1 queries that the annotations do not have, such as 'q'"
    in (notes[0])
  )
  assert '1 videos' in notes[1] and 'left out' in notes[1]


def test_a_query_is_not_in_its_own_list(tmp_path):
  """The script of FIVR-200K would take it for a wrong answer."""
  path = tmp_path / 'sims.json'
  ids = ('a', 'b', 'c')
  values = np.array([[9, 1, 2], [3, 9, 4]], np.float32)
  copy_files.write(path, values, ids[:2], ids, top=1)
  assert json.loads(path.read_text()) == {'a': {'c': 2}, 'b': {'c': 4}}
  copy_files.write(path, values[:1, :1], ids[:1], ids[:1])
  assert json.loads(path.read_text()) == {}


def test_the_best_only(tmp_path):
  path = tmp_path / 'sims.json'
  copy_files.write(path, scores(), QUERIES, ITEMS, top=1)
  plain = json.loads(path.read_text())
  best = np.nanargmax(scores()[:2], axis=1)
  assert [list(row) for row in plain.values()] == [[ITEMS[i]] for i in best]
  found = copy_files.read(path)
  # What was searched was there, whether it is on a list or not.
  _, there, _ = copy_files.matrix(
    found, QUERIES, ITEMS, 'f', searched=['-a', 'b\\', 'c', 'other']
  )
  assert there.items.tolist() == [True, True, True, False]
  with pytest.raises(ValueError, match='not on the list of what was searched'):
    copy_files.matrix(found, QUERIES, ITEMS, 'f', searched=['lost'])


def test_lists_of_the_best_are_told(tmp_path):
  path = tmp_path / 'sims.json'
  ids = ('a', 'b', 'c', 'd')
  values = np.array([[9, 1, 2, 3], [4, 9, 3, 1]], np.float32)
  copy_files.write(path, values, ids[:2], ids)
  *_, notes = copy_files.matrix(copy_files.read(path), ids[:2], ids, 'f')
  assert not notes  # Nobody misses a query in its own list.
  copy_files.write(path, values, ids[:2], ids, top=2)  # a: d, c; b: a, c.
  found = copy_files.read(path)
  *_, notes = copy_files.matrix(found, ids[:2], ids, 'f')
  assert 'no score for 1 pairs' in notes[0] and '--searched' in notes[0]
  *_, notes = copy_files.matrix(found, ids[:2], ids, 'f', searched=ids)
  assert not notes


def test_a_query_that_found_nothing_is_there(tmp_path):
  path = tmp_path / 'sims.json'
  path.write_text('{"q": {}, "gone": {"c": 1}}')
  found = copy_files.read(path)
  got, there, _ = copy_files.matrix(found, QUERIES, ITEMS, 'f')
  assert there.queries.tolist() == [True, False, True]
  assert np.isnan(got[0]).all() and got[2, 2] == 1


def test_bad_scores_are_not_written(tmp_path):
  path = tmp_path / 'sims.json'
  bad = scores()
  bad[1, 2] = np.inf
  with pytest.raises(ValueError, match=r"'é \"r\"' and video 'c' is inf"):
    copy_files.write(path, bad, QUERIES, ITEMS)
  with pytest.raises(ValueError, match=r'expected \[2, 4\]'):
    copy_files.write(path, bad, QUERIES[:2], ITEMS)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'text, message',
  [
    ('', 'Expecting value'),
    ('[1, 2]', r'holds \[1, 2\]'),
    ('{"v": 0.5}', 'holds the scores of one query'),
    ('{"q": {"v": 0.5', 'delimiter'),
    ('{"q": {"v": "0.5"}}', "'v' has '0.5'"),
    ('{"q": {"v": true}}', "'v' has True"),
    ('{"q": {"v": NaN}}', 'NaN is a score'),
    ('{"q": {"v": -Infinity}}', '-Infinity is a score'),
    ('{"q": {"v": 1e999}}', "'v' has inf"),
    ('{"q": {"v": 1' + '0' * 400 + '}}', "'v' has 1000"),
    ('{"q": {"v": 1' + '0' * 5000 + '}}', 'integer string'),
    ('{"q": {"v": {"w": 1}}}', "'q' has an object"),
    ('{"q": {"v": 1, "v": 2}}', "video 'v' is scored twice"),
    ('{"q": {"v": 1}, "q": {"w": 2}}', "query 'q' occurs twice"),
    ('{"q": {"v": 1}, "r": 2}', "'q' has an object"),
    ('[' * 100_000, 'without end'),
    (b'{"q": {"\xff": 1}}', 'decode'),
  ],
)
def test_damaged_files(tmp_path, text, message):
  path = tmp_path / 'sims.json'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(bad_file.BadFile, match=message) as error:
    copy_files.read(path)
  assert str(error.value).startswith(str(path))


def test_files_of_something_else(tmp_path):
  with pytest.raises(FileNotFoundError, match='no such file'):
    copy_files.read(tmp_path / 'sims.json')
  path = tmp_path / 'sims.json'
  path.write_text('{"q": {"x": 1}}')
  found = copy_files.read(path)
  with pytest.raises(ValueError, match='none of its 1 videos'):
    copy_files.matrix(found, QUERIES, ITEMS, 'f')
  with pytest.raises(ValueError, match='none of its 1 queries'):
    copy_files.matrix(found, ('p',), ('x',), 'f')
