# SPDX-License-Identifier: Apache-2.0
"""Our own JSON of annotations: what is kept, and what is refused."""

import dataclasses
import json

import pytest

from vidret_jax.data import bad_file
from vidret_jax.data.copies import annotations

_PLAIN = {
  'protocol': 'fivr',
  'queries': ['b', 'a'],
  'database': ['c', 'd', 'c'],
  'labels': {
    'a': {'ND': ['d', 'c', 'd'], 'DA': []},
    'b': {'IS': ['else']},
    'nobody': {'ND': ['c']},
  },
}


def _read(tmp_path, **changes):
  value = {k: v for k, v in {**_PLAIN, **changes}.items() if v is not None}
  path = tmp_path / 'annotations.json'
  path.write_text(json.dumps(value))
  return annotations.read(path)


def test_everything_is_sorted_and_each_once(tmp_path):
  found = _read(tmp_path)
  assert found.queries == ('a', 'b') and found.database == ('c', 'd')
  assert found.labels == {
    'a': {'ND': ('c', 'd'), 'DA': ()},
    'b': {'IS': ('else',)},
  }
  assert found.events == {} and found.easy == found.unlabelled == ()
  assert found.videos == ('a', 'b', 'c', 'd')
  assert found.outside() == ('else',)


def test_what_is_written_is_read(tmp_path):
  found = _read(tmp_path, easy=['d'])
  path = tmp_path / 'again.json'
  path.write_text(found.to_json())
  assert annotations.read(path) == found
  assert set(json.loads(found.to_json())) == {
    f.name for f in dataclasses.fields(found)
  }


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'protocol': 'vcdb'}, "protocol 'vcdb', expected one of"),
    ({'protocol': []}, 'protocol'),
    ({'queries': None}, 'has the keys'),
    ({'more': 1}, 'has the keys'),
    ({'queries': []}, 'queries is empty'),
    ({'database': 'abc'}, 'database is str'),
    ({'database': ['c', 7]}, 'expected video ids as strings'),
    ({'database': ['../c']}, 'cannot be a key'),
    ({'queries': ['a', 'z']}, "query 'z' has no labels"),
    ({'labels': [1]}, 'labels is list'),
    ({'labels': {'a': {'XY': []}, 'b': {}}}, "label 'XY'"),
    ({'labels': {'a': {'ND': 'c'}, 'b': {}}}, 'label ND of query'),
  ],
)
def test_wrong_values_are_named(tmp_path, changes, said):
  with pytest.raises(ValueError, match=said) as error:
    _read(tmp_path, **changes)
  assert 'annotations.json' in str(error.value)


@pytest.mark.parametrize(
  ('events', 'said'),
  [
    ({'x': ['a']}, "'b' is a query of no event"),
    ({'x': ['a', 'b'], 'y': ['b']}, "of the events 'x' and 'y'"),
    ({'x': ['a', 'b', 'c']}, "'c' is a query of an event, but not"),
  ],
)
def test_each_query_of_evve_has_one_event(tmp_path, events, said):
  labels = {'a': {'P': ['c']}, 'b': {'P': []}}
  with pytest.raises(bad_file.BadFile, match=said):
    _read(tmp_path, protocol='evve', labels=labels, events=events)


def test_a_candidate_of_svd_has_one_label(tmp_path):
  labels = {'a': {'P': ['c'], 'N': ['c']}, 'b': {}}
  with pytest.raises(bad_file.BadFile, match="'c' with label 1 and"):
    _read(tmp_path, protocol='svd', labels=labels)


def test_an_unlabelled_video_is_in_the_database(tmp_path):
  """It would compete with nothing, and the figures would flatter."""
  given = dict(protocol='svd', labels={'a': {'P': ['c']}, 'b': {}})
  assert _read(tmp_path, **given, unlabelled=['d']).unlabelled == ('d',)
  with pytest.raises(bad_file.BadFile, match="unlabelled has 'x', which"):
    _read(tmp_path, **given, unlabelled=['d', 'x'])


def test_broken_json_is_named(tmp_path):
  path = tmp_path / 'broken.json'
  path.write_text('{"protocol": ')
  with pytest.raises(ValueError, match='broken.json'):
    annotations.read(path)
