# SPDX-License-Identifier: Apache-2.0
"""Files of found moments: written, read back, and refused where broken."""

import json

import numpy as np
import pytest

from tests.evaluators import moment_problem as problem
from vidret_jax.evaluators import moment_files
from vidret_jax.metrics import moments


def write(path, tasks=None, **changes):
  given = dict(
    tasks=tasks or problem.lists(),
    rows=problem.rows(),
    video2idx=problem.VIDEO2IDX,
    numbers=problem.NUMBERS,
  )
  moment_files.write(path, **(given | changes))


def read(path, content):
  text = content if isinstance(content, str) else json.dumps(content)
  path.write_text(text, encoding='utf-8')
  return moment_files.read(path)


def test_written_and_read_back(tmp_path):
  path = tmp_path / 'deep' / 'p.json'
  tasks = problem.lists()
  tiny = np.float32([1e-45, 1e-38, 0.1, 1e13, 16777215])
  tasks['VR'].scores[0], tasks['VR'].valid[0] = tiny, True
  tasks['SVMR'].valid[2] = False
  write(path, tasks)
  raw = json.loads(path.read_text())
  assert list(raw) == ['video2idx', *moments.TASKS]
  assert raw['video2idx'] == problem.VIDEO2IDX
  assert raw['VCMR'][1]['desc'] == problem.rows()[1]['desc']
  assert all(row[1:3] == [0, 0] for x in raw['VR'] for row in x['predictions'])
  found = moment_files.read(path)
  assert found.video2idx == problem.VIDEO2IDX
  for task, want in tasks.items():
    got = found.tasks[task]
    assert got.ids == tuple(str(row['desc_id']) for row in problem.rows())
    for i, here in enumerate(want.valid):
      n = here.sum()
      assert got.lists.valid[i].sum() == n
      for name in ('items', 'spans', 'scores'):
        mine, theirs = getattr(want, name), getattr(got.lists, name)[i, :n]
        if name == 'items':
          mine = problem.NUMBERS[mine]
        if mine is not None:
          np.testing.assert_array_equal(theirs, mine[i][here])
  assert '1 lists are empty and count as misses' in found.notes[0]


def test_bad_lists_write_nothing(tmp_path):
  path = tmp_path / 'p.json'
  path.write_text('before')
  good = problem.lists()['VCMR']._replace(valid=np.ones((6, 5), bool))
  for changes, message in (
    (dict(scores=np.full((6, 5), np.nan)), 'and score nan'),
    (dict(spans=np.full((6, 5, 2), np.inf)), r'span \[inf, inf\]'),
    (dict(items=np.full((6, 5), 3)), 'has item 3'),
    (dict(items=np.full((6, 5), -1)), 'has item -1'),
    (dict(scores=None), 'with scores'),
    (dict(items=good.items[1:]), r'items \[5, 5\]'),
  ):
    with pytest.raises(ValueError, match=message):
      write(path, {'VCMR': good._replace(**changes)})
  with pytest.raises(ValueError, match='XR: expected one of'):
    write(path, {'XR': good})
  with pytest.raises(KeyError):  # In the middle of the file.
    write(path, rows=[*problem.rows()[:-1], {}])
  assert path.read_text() == 'before'
  assert [x.name for x in tmp_path.iterdir()] == ['p.json']


ROW = [7, 0.5, 4.5, 0.9]


@pytest.mark.parametrize(
  'row, message',
  [
    ([7, 1, 2, 3, 4], r'row 1 is \[7, 1, 2, 3, 4\], expected \[video_idx, st'),
    ([7, 1], r'row 1 is \[7, 1\]'),
    ('abcd', "row 1 is 'abcd'"),
    ({'a': 1, 'b': 2, 'c': 3, 'd': 4}, "row 1 is {'a'"),
    ([7, '1', 2, 3], r"row 1 is \[7, '1', 2, 3\]"),
    ([7, None, 2, 3], 'row 1 is .7, None'),
    ([7, [1], 2, 3], r'row 1 is \[7, \[1\]'),
    (5, 'row 1 is 5'),
    ([7, 1, 2], 'some rows have a score and some have none, expected all'),
    ([10**400, 1, 2, 3], r'row 1 is \[10{50,}\.\.\.'),
    ([7, 10**20, 2, 3], 'row 1 is .* all finite'),
    ([7.5, 1, 2, 3], 'row 1 is .7.5, 1.0, 2.0, 3.0.'),
    ([7, float('nan'), 2, 3], 'row 1 is .7.0, nan'),
    ([7, 1, float('inf'), 3], 'row 1 is .*inf'),
    ([7, 1, 2, 1e300], 'row 1 is .*1e.300'),
    ([7, 1, 2, float('-inf')], r'row 1 is .*-inf.* \(1 such rows\)'),
  ],
)
def test_rows_that_are_none(tmp_path, row, message):
  content = problem.content()
  content['VCMR'][2]['predictions'] = [ROW, row]
  with pytest.raises(ValueError, match=f'p.json, VCMR, desc_id 102: {message}'):
    read(tmp_path / 'p.json', content)


def changed(**changes):
  return {k: x for k, x in (problem.content() | changes).items() if x != ()}


@pytest.mark.parametrize(
  'content, message',
  [
    ([1], r'holds \[1\], expected an object'),
    ({}, "has nothing, expected 'video2idx'"),
    (changed(video2idx=()), "has 'VCMR', expected 'video2idx'"),
    (changed(VCMR=(), VCRM=[]), "has 'video2idx', 'VCRM', expected"),
    (changed(video2idx=[1]), r'video2idx is \[1\], expected an object'),
    (changed(video2idx={'a': '1'}), "video2idx of 'a' is '1'"),
    (changed(video2idx={'a': 1.5}), "video2idx of 'a' is 1.5"),
    (changed(video2idx={'a': 10**20}), "video2idx of 'a' is 1000"),
    (changed(video2idx={'a': 1, 'b': 1}), "gives 1 to 'a' and to 'b'"),
    ('{"video2idx": {"a": 1, "a": 2}}', "key 'a' occurs twice"),
    (changed(VCMR={}), 'VCMR: is {}, expected a list'),
    (changed(VCMR=[3]), "VCMR, entry 0: expected an object with 'desc_id', f"),
    (changed(VCMR=[{'id': 3}]), r"found \['id'\]"),
    (changed(VCMR=[{'desc_id': None}]), 'desc_id is None, expected a whole'),
    (changed(VCMR=[{'desc_id': 1}]), 'desc_id 1: predictions is missing'),
    (
      changed(VCMR=[{'desc_id': 1, 'predictions': 'x'}]),
      "desc_id 1: predictions is 'x'",
    ),
    (
      changed(VCMR=[*problem.content()['VCMR'], problem.content()['VCMR'][1]]),
      'desc_id 101 occurs twice, in the entries 1 and 6',
    ),
    (json.dumps(problem.content())[:-9], 'is no JSON .* Cut off'),
    ('', 'is no JSON'),
    ('[' * 200_000, 'lists within lists'),
    ('{"video2idx": {"a": ' + '9' * 5000 + '}}', 'Exceeds the limit'),
  ],
)
def test_files_that_are_none(tmp_path, content, message):
  with pytest.raises(ValueError, match=f'p.json.*{message}'):
    read(tmp_path / 'p.json', content)


def test_not_a_text(tmp_path):
  (tmp_path / 'p.json').write_bytes(b'\x80\x04\x95')
  with pytest.raises(ValueError, match='p.json: is no text in UTF-8'):
    moment_files.read(tmp_path / 'p.json')


def test_what_deserves_a_look(tmp_path):
  content = problem.content()
  for i, rows in {
    1: [[7, 4.5, 0.5, 1.0], ROW],
    2: [ROW, [7, 1, 2, 0.95], ROW, [7, 1, 2, 1]],
    3: [ROW[:3]] * 2,
    4: [],
    5: [[8, *ROW[1:]]] * 103,
  }.items():
    content['VCMR'][i]['predictions'] = rows
  content['VR '] = []
  found = read(tmp_path / 'p.json', content)
  notes = [text.split('p.json', 1)[1] for text in found.notes]
  assert notes == [
    ": 'VR ' is no task and not looked at",
    ', VCMR: 1 rows end before they start, and overlap nothing (first: desc_id '
    '101)',
    ', VCMR: 100 rows name a video that video2idx does not have (first: '
    'desc_id 105)',
    ', VCMR: 2 rows have no score (first: desc_id 103)',
    ', VCMR: 1 lists are not sorted by score; their order counts (first: '
    'desc_id 102)',
    ', VCMR: 1 lists are longer than what counts (first: desc_id 105)',
    ', VCMR: 1 lists are empty and count as misses (first: desc_id 104)',
  ]
  lists = found.tasks['VCMR'].lists
  np.testing.assert_array_equal(lists.valid.sum(1), [2, 2, 4, 2, 0, 100])
  assert moment_files.read(tmp_path / 'p.json', limit=3).tasks[
    'VCMR'
  ].lists.items.shape == (6, 3)


def test_aligned(tmp_path):
  content = problem.content()
  content['VCMR'] = content['VCMR'][::-1]
  for i, entry in enumerate(content['VCMR']):
    entry['predictions'][0][1] = i
  found = read(tmp_path / 'p.json', content)
  ids = [str(100 + i) for i in range(6)]
  lists = moment_files.aligned(found, ids, 'p')['VCMR']
  np.testing.assert_array_equal(lists.spans[:, 0, 0], [5, 4, 3, 2, 1, 0])
  assert lists.counted is None
  for wanted, message in (
    (ids[:-1], '1 are unknown: .105.'),
    ([*ids, '9'], "p, VCMR: the 6 queries .* 7 .* 1 are missing: '9'; 0 are"),
    (list('ABCDEFG'), "7 are missing: 'A', 'B', 'C', 'D', 'E', ...; 6 are"),
  ):
    with pytest.raises(ValueError, match=message):
      moment_files.aligned(found, wanted, 'p')
  lists = moment_files.aligned(found, ['9', '105'], 'p', match=False)['VCMR']
  np.testing.assert_array_equal(lists.counted, [False, True])
  np.testing.assert_array_equal(lists.valid, [[0, 0], [1, 1]])
  with pytest.raises(ValueError, match='no query is one of the annotations'):
    moment_files.aligned(found, ['9'], 'p', match=False)
