# SPDX-License-Identifier: Apache-2.0
"""Annotations and durations of strangers: what is read, what is refused."""

import json

import pytest

from vidret_jax.data.moments import annotations, durations

ROW = dict(desc_id=3, desc='She waves. ', vid_name='a_01', ts=[1, 2.5])


def lines(tmp_path, *rows):
  path = tmp_path / 'x_train_release.jsonl'
  text = (r if isinstance(r, str) else json.dumps(r) for r in rows)
  path.write_text('\n'.join(text), 'utf-8')
  return path


def test_rows_are_kept_as_they_are(tmp_path):
  more = dict(ROW, desc_id=4, type='vt', duration=9, other='dropped')
  several = dict(ROW, desc_id=5, ts=[[1, 2], [0, 5.5]], type=None)
  path = lines(tmp_path, ROW, '', more, several)
  found = annotations.read(path)
  assert [where for where, _ in found] == [f'{path}:{i}' for i in (1, 3, 4)]
  rows = [row for _, row in found]
  assert rows[0] == ROW and type(rows[0]['ts'][0]) is int
  assert rows[1] == {k: v for k, v in more.items() if k != 'other'}
  assert rows[2] == dict(ROW, desc_id=5, ts=[[1, 2], [0, 5.5]])
  assert annotations.spans(rows[0]) == [(1.0, 2.5)]
  assert annotations.spans(rows[2]) == [(1.0, 2.0), (0.0, 5.5)]


def test_hidden_rows(tmp_path):
  path = lines(tmp_path, dict(desc_id=1, desc='a'), dict(desc_id=0, desc='b'))
  assert [row['desc_id'] for _, row in annotations.read(path)] == [1, 0]


@pytest.mark.parametrize(
  'change, message',
  [
    ({'ts': [2, 1]}, r'lasts from 2 to 1 s'),
    ({'ts': [-1, 1]}, r'lasts from -1 to 1 s'),
    ({'ts': [[0, 1], [3, 2]]}, r'lasts from 3 to 2 s'),
    ({'ts': [float('nan'), 1]}, r'ts is \[nan, 1\], expected \[start, end\]'),
    ({'ts': [0, float('inf')]}, r'ts is \[0, inf\], expected'),
    ({'ts': [0, 10**400]}, r'ts is \[0, 1000.*expected'),
    ({'ts': [1, 2, 3, 4]}, r'ts is \[1, 2, 3, 4\], expected'),
    ({'ts': []}, r'ts is \[\], expected'),
    ({'ts': [True, 2]}, r'ts is \[True, 2\], expected'),
    ({'ts': ['1', '2']}, r'expected \[start, end\] in seconds'),
    ({'desc_id': '3'}, r"desc_id is '3' \(str\), expected an integer"),
    ({'desc_id': 3.0}, r"desc_id is '3.0' \(float\)"),
    ({'desc_id': True}, r"desc_id is 'True' \(bool\)"),
    ({'desc_id': -1}, r"desc_id is '-1'"),
    ({'desc_id': 10**30}, r"desc_id is '1000"),
    ({'desc': ' '}, r"desc is ' ', expected a sentence"),
    ({'desc': 5}, r"desc is '5', expected a sentence"),
    ({'desc': 'half \ud800'}, r'expected a sentence'),
    ({'vid_name': ''}, r"'' cannot be a key"),
    ({'vid_name': 'a/b'}, r"'a/b' cannot be a key"),
    ({'vid_name': 7}, r"vid_name is '7', expected a string"),
    ({'vid_name': None}, r'ts without vid_name'),
    ({'ts': None}, r'vid_name without ts'),
    ({'type': 'x'}, r"type is 'x', expected one of"),
    ({'duration': 0}, r"duration '0', expected seconds above 0"),
    ({'duration': 10**400}, r'expected seconds above 0'),
    ({'duration': '9'}, r'expected seconds above 0'),
  ],
)
def test_bad_rows(tmp_path, change, message):
  bad = dict(ROW, desc_id=9) | change
  path = lines(tmp_path, ROW, bad)
  with pytest.raises(ValueError, match=rf'jsonl:2: .*{message}'):
    annotations.read(path)


@pytest.mark.parametrize(
  'rows, message',
  [
    ([ROW, '{"desc_id": 1,'], r':2: cannot be read as JSON'),
    ([ROW, '[1]'], r':2: expected a JSON object, found list'),
    ([ROW, '{"desc": "x"}'], r":2: no 'desc_id'"),
    ([ROW, dict(ROW, desc='x')], r':2: desc_id 3 is that of .*:1, too'),
    ([ROW, dict(desc_id=4, desc='x')], r':2: no vid_name, but other rows'),
    ([''], r'no queries'),
    (['[' * 100000], r':1: cannot be read as JSON'),
  ],
)
def test_bad_files(tmp_path, rows, message):
  with pytest.raises(ValueError, match=message):
    annotations.read(lines(tmp_path, *rows))


def test_no_text(tmp_path):
  path = tmp_path / 'x.jsonl'
  path.write_bytes(b'\xff\xfe\x00')
  with pytest.raises(ValueError, match='no UTF-8'):
    annotations.read(path)


def table(tmp_path, value):
  path = tmp_path / 'x_video2dur_idx.json'
  text = value if isinstance(value, str) else json.dumps(value)
  path.write_text(text, 'utf-8')
  return path


def test_durations_keep_their_order(tmp_path):
  told = {'val': {'b': [9.5, 7], 'a': [3, 2]}, 'test': {'c': [1, 0]}}
  found = durations.read(table(tmp_path, told))
  assert list(found) == ['val', 'test_public']
  assert list(found['val'].items()) == [
    ('b', durations.Video(9.5, 7)), ('a', durations.Video(3.0, 2))
  ]  # fmt: skip


@pytest.mark.parametrize(
  'value, message',
  [
    ('{', 'cannot be read as JSON'),
    ('[' * 100000, 'cannot be read as JSON'),
    ([1], r'expected \{split'),
    ({'val': [1]}, "split 'val' is list"),
    ({'val': {'a': 3}}, r"'3', expected \[seconds, number\]"),
    ({'val': {'a': [3]}}, r'expected \[seconds, number\]'),
    ({'val': {'a': [3, 1.0]}}, "number '1.0', expected an integer"),
    ({'val': {'a': [3, -1]}}, "number '-1', expected an integer"),
    ({'val': {'a': [3, True]}}, "number 'True', expected an integer"),
    ({'val': {'a': [0, 1]}}, "duration '0', expected seconds"),
    ({'val': {'a': [float('nan'), 1]}}, "duration 'nan', expected seconds"),
    ({'val': {'a': ['3', 1]}}, "duration '3', expected seconds"),
    ({'val': {'a/b': [3, 1]}}, "'a/b' cannot be a key"),
    ({'val': {'a': [3, 1]}, 'train': {'b': [4, 1]}}, "is that of 'a', too"),
    ('{"val": {"a": [3, 1], "a": [4, 2]}}', "'a' is there twice"),
  ],
)
def test_bad_durations(tmp_path, value, message):
  with pytest.raises(ValueError, match=f'idx.json: .*{message}'):
    durations.read(table(tmp_path, value))


def rows_of(*videos):
  return [
    (f'f:{i}', dict(ROW, desc_id=i, **video))
    for i, video in enumerate(videos, 1)
  ]


def test_durations_from_annotations():
  rows = rows_of(
    dict(vid_name='b', duration=5),
    dict(vid_name='a', duration=7.5),
    dict(vid_name='b', duration=5.0),
  )
  assert list(durations.of_rows(rows).items()) == [
    ('b', durations.Video(5.0, 0)), ('a', durations.Video(7.5, 1))
  ]  # fmt: skip
  with pytest.raises(ValueError, match=r'f:2: .*lasts 6.0 s here and 5.0 s'):
    durations.of_rows(rows_of(dict(duration=5), dict(duration=6)))
  with pytest.raises(ValueError, match=r'f:1: without a file of durations'):
    durations.of_rows(rows_of(dict()))


def check(rows, slack=1.5, others=()):
  videos = {'a': durations.Video(10.0, 0)}
  return annotations.check_videos(
    rows, videos, slack=slack, source='idx.json', others=dict(others)
  )


def test_moments_a_little_beyond_their_video_are_counted():
  rows = rows_of(
    dict(vid_name='a', ts=[8, 10]),
    dict(vid_name='a', ts=[8, 11.5]),
    dict(vid_name='a', ts=[[8, 9], [0, 10.1]], duration=11),
  )
  assert check(rows) == 2
  assert rows[1][1]['ts'] == [8, 11.5]
  assert check([('f:1', dict(desc_id=0, desc='hidden'))]) == 0


@pytest.mark.parametrize(
  'row, message',
  [
    (dict(vid_name='a', ts=[8, 11.6]), r'ends at 11.6 s, but .* lasts 10.0 s'),
    (dict(vid_name='a', ts=[[1, 2], [12, 13]]), r'ends at 13.0 s'),
    (dict(vid_name='a', duration=12), r'lasts 12 s, but 10.0 s in idx.json'),
    (dict(vid_name='b'), r"video 'b' is not among the 1 .*split 'val'"),
    (dict(vid_name='c'), r"video 'c' is not among the 1 of this split in idx"),
  ],
)
def test_rows_that_contradict_the_videos(row, message):
  with pytest.raises(ValueError, match=f'f:1: .*{message}'):
    check(rows_of(row), others={'b': 'val'})
