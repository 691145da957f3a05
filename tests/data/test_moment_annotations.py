# SPDX-License-Identifier: Apache-2.0
"""Published annotations of three datasets."""

import json

import pytest

from vidret_jax.data import moment_annotations as lib
from vidret_jax.data import moment_release, video_seconds
from vidret_jax.data.moments import annotations, durations

ANET = {
  'v_b': {
    'duration': 82.75,
    'timestamps': [[0.83, 19.86], [60, 90.0]],
    'sentences': [' A woman walks.', 'She sits.\n'],
  },
  'v_a': {'duration': 10, 'timestamps': [[7.5, 2]], 'sentences': ['He runs.']},
}
DIDEMO = [
  {
    'annotation_id': 44,
    'description': 'a dog',
    'video': 'x@N00.mov',
    'times': [[0, 0], [0, 1], [5, 5], [0, 0]],
    'num_segments': 6,
  },
  {'description': 'a cat', 'video': 'y.avi', 'times': [[4, 4]]},
]


def write(path, value):
  path.write_text(value if isinstance(value, str) else json.dumps(value))
  return path


def test_activitynet(tmp_path):
  found = lib.activitynet(write(tmp_path / 'train.json', ANET))
  assert [(q.video, q.text, q.duration) for q in found] == [
    ('v_b', 'A woman walks.', 82.75),
    ('v_b', 'She sits.', 82.75),
    ('v_a', 'He runs.', 10.0),
  ]
  assert found[0].spans == ((0.83, 19.86),)


def test_charades(tmp_path):
  table = write(
    tmp_path / 'a.csv', 'id,scene,length\nAO8RW,"Hall, way",33.67\n'
  )
  lengths = video_seconds.read([table])
  text = 'AO8RW 0.0 6.9##a person puts 1 ## 2.\n\n'
  (found,) = lib.charades(write(tmp_path / 'train.txt', text), lengths)
  assert found == moment_release.Query(
    'AO8RW', 'a person puts 1 ## 2.', 33.67, ((0, 6.9),)
  )


def test_didemo(tmp_path):
  path = write(tmp_path / 'train_data.json', DIDEMO)
  first, second = lib.didemo(path)
  assert first.spans == ((0, 5), (0, 10), (25, 30), (0, 5))
  assert first.duration == second.duration == 30
  # Names with or without the ending of the file; 30 s are annotated.
  lengths = {'x@N00': 27.5, 'y.avi': 61}
  assert [q.duration for q in lib.didemo(path, lengths)] == [27.5, 30]
  short = [{**DIDEMO[0], 'num_segments': 5, 'times': [[0, 4]]}]
  (found,) = lib.didemo(write(path, short))
  assert found.duration == 25


def test_own(tmp_path):
  text = 'Video,Start,end,sentence\na,1.5,4,"he runs, fast"\nb,0,2,x\n'
  path = write(tmp_path / 'train.csv', text)
  first, second = lib.own(path, {'a': 9.0, 'b': 2.5})
  assert first == moment_release.Query('a', 'he runs, fast', 9.0, ((1.5, 4),))
  assert second.duration == 2.5
  with pytest.raises(ValueError, match="expected one of .*'duration'"):
    lib.own(path)
  text = 'duration,vid_name,start,end,desc\n9,a,1,2,x\n'
  assert lib.own(write(path, text))[0].duration == 9


@pytest.mark.parametrize(
  'line, part',
  [
    ('a,1', 'too short'),
    ('a/b,1,2,x', "'a/b'"),
    ('a,x,2,y', "'x', expected seconds"),
    ('a,nan,2,y', 'moment is [nan'),
    ('a,1,2, ', 'no sentence'),
    ('c,1,2,x', "no duration of video 'c'"),
  ],
)
def test_bad_own(tmp_path, line, part):
  path = write(tmp_path / 'val.csv', f'video,start,end,sentence\n{line}\n')
  with pytest.raises(ValueError) as error:
    lib.own(path, {'a': 9.0})
  assert part in str(error.value) and 'val.csv:2' in str(error.value)


def test_release_is_what_the_readers_take(tmp_path):
  train = lib.activitynet(write(tmp_path / 'train.json', ANET))
  late = {'v_b': {**ANET['v_b'], 'timestamps': [[83, 85], [0, 5]]}}
  test = lib.activitynet(write(tmp_path / 'val_2.json', late))
  rows, tables, repairs = moment_release.release({'train': train, 'test': test})
  assert tables == {
    'train': {'v_b': [82.75, 0], 'v_a': [10.0, 1]},
    'test': {'v_b': [82.75, 0]},
  }
  assert [r['desc_id'] for s in rows.values() for r in s] == [0, 1, 2, 3, 4]
  assert rows['train'][0] == {
    'vid_name': 'v_b',
    'duration': 82.75,
    'ts': [0.83, 19.86],
    'desc': 'A woman walks.',
    'type': 'v',
    'desc_id': 0,
  }
  assert [r['ts'] for r in rows['train'][1:]] == [[60, 82.75], [2, 7.5]]
  assert rows['test'][0]['ts'] == [82.75, 82.75]
  assert repairs['train'] == moment_release.Repairs(
    swapped=['v_a'], cut=['v_b']
  )
  assert repairs['test'] == moment_release.Repairs(cut=['v_b'], empty=['v_b'])
  videos = durations.read(write(tmp_path / 'dur.json', tables))
  for split, name in (('train', 'train'), ('test', 'test_public')):
    lines = '\n'.join(map(json.dumps, rows[split]))
    read = annotations.read(write(tmp_path / 'rows.jsonl', lines))
    assert [row for _, row in read] == rows[split]
    beyond = annotations.check_videos(
      read, videos[name], slack=0, source='dur.json', others={}
    )
    assert beyond == 0


def test_several_annotators(tmp_path):
  path = write(tmp_path / 'train_data.json', DIDEMO)
  rows, _, repairs = moment_release.release({'val': lib.didemo(path)})
  first, second = rows['val']
  assert first['ts'] == [[0, 5], [0, 10], [25, 30], [0, 5]]
  assert second['ts'] == [20, 25]
  assert annotations.spans(first)[1] == (0, 10)
  short = lib.didemo(path, {'x@N00.mov': 12, 'y.avi': 22})
  rows, _, repairs = moment_release.release({'val': short})
  assert rows['val'][0]['ts'][2] == [12, 12]
  assert repairs['val'].empty == ['x@N00.mov']


def changed(**options):
  return {
    'v': {'duration': 5, 'timestamps': [[0, 1]], 'sentences': ['x']} | options
  }


@pytest.mark.parametrize(
  'value, parts',
  [
    ([], ('JSON object',)),
    ('{', ('cannot be read',)),
    ({}, ('no annotations',)),
    ({'v': {'duration': 5}}, ("'v'", 'timestamps')),
    ({'a/b': ANET['v_a']}, ("'a/b'",)),
    (changed(duration=0), ('duration is 0',)),
    (changed(duration=10**400), ('duration is ',)),
    (changed(timestamps=[]), ('do not belong together',)),
    (changed(timestamps=[[0]]), ('timestamp 0 is [0]',)),
    (changed(timestamps=[[float('nan'), 1]]), ('timestamp 0',)),
    (changed(timestamps=[[-1, 1]]), ('timestamp 0',)),
    (changed(sentences=[' ']), ('sentence 0',)),
  ],
)
def test_bad_activitynet(tmp_path, value, parts):
  path = write(tmp_path / 'train.json', value)
  with pytest.raises(ValueError) as error:
    lib.activitynet(path)
  message = str(error.value)
  assert all(p in message for p in ('train.json', *parts)), message


@pytest.mark.parametrize(
  'line, part',
  [
    ('AO8RW 0.0 6.9 a person', 'expected VIDEO START END##sentence'),
    ('AO8RW x 6.9##a person', "'x', expected seconds"),
    ('AO8RW 0 nan##a person', 'moment is [0.0, nan'),
    ('OTHER 0 1##a person', "no duration of video 'OTHER'"),
    ('AO8RW 0 1## ', 'no sentence'),
  ],
)
def test_bad_charades(tmp_path, line, part):
  path = write(tmp_path / 'test.txt', f'AO8RW 0 1##x\n{line}\n')
  with pytest.raises(ValueError) as error:
    lib.charades(path, {'AO8RW': 30.0})
  assert part in str(error.value) and 'test.txt:2' in str(error.value)


@pytest.mark.parametrize(
  'change, part',
  [
    ({'times': [[0, 6]]}, '[0, 6]'),
    ({'times': [[2, 1]]}, '[2, 1]'),
    ({'times': [[0.0, 1]]}, '[0.0, 1]'),
    ({'times': []}, 'times is []'),
    ({'video': 1}, 'video is'),
    ({'num_segments': 'x'}, 'num_segments'),
    ({'description': None}, 'no sentence'),
  ],
)
def test_bad_didemo(tmp_path, change, part):
  path = write(tmp_path / 'val_data.json', [DIDEMO[1], {**DIDEMO[0], **change}])
  with pytest.raises(ValueError) as error:
    lib.didemo(path)
  assert part in str(error.value) and 'val_data.json: entry 1' in str(
    error.value
  )
