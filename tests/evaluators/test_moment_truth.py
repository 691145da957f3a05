# SPDX-License-Identifier: Apache-2.0
"""Annotations of moments: read, turned into arrays, refused where broken."""

import json

import numpy as np
import pytest

from tests.evaluators import moment_problem as problem
from vidret_jax.evaluators import moment_truth


def annotations(rows):
  return moment_truth.annotations(rows, problem.VIDEO2IDX, 'gt')


def test_read(tmp_path):
  path = problem.write_rows(tmp_path / 'gt.jsonl')
  rows = moment_truth.read(path)
  assert rows == problem.rows()
  path.write_text('\ufeff' + path.read_text() + '\r\n\n', encoding='utf-8')
  assert moment_truth.read(path) == rows
  data = annotations(rows)
  assert data.ids == tuple(str(100 + i) for i in range(6))
  np.testing.assert_array_equal(data.truth.items, [7, 19_614, 3] * 2)
  assert data.truth.spans.dtype == np.float32
  np.testing.assert_array_equal(
    data.truth.spans[:, 0], [[i, i + 4.5] for i in range(6)]
  )
  assert data.kinds == ('v', 't', 'vt') * 2 and not data.notes


def test_several_annotators():
  rows = problem.rows(3)
  pairs = [[0, 5], [1.5, 2], [5, 9], [0, 1], [2, 3]]
  rows[0]['ts'], rows[2]['ts'] = pairs[:4], pairs
  truth = annotations(rows).truth
  np.testing.assert_array_equal(truth.annotators.sum(1), [4, 1, 5])
  np.testing.assert_array_equal(truth.spans[2], np.float32(pairs))
  np.testing.assert_array_equal(truth.spans[1, 0], [1, 5.5])


@pytest.mark.parametrize(
  'second, message',
  [
    ('{"desc_id": 5', '2: cannot be read as JSON'),
    ('[1, 2]', '2: expected a JSON object, found list'),
    ('{"desc": ""}', r"2: no 'desc_id'; .* found \['desc'\]"),
    ('{"desc_id": 1.5}', '2: desc_id is 1.5'),
    ('{"desc_id": true}', '2: desc_id is True'),
    ('{"desc_id": "100"}', '2: desc_id 100 is that of .*gt.jsonl:1, too'),
    ('{"video2idx": {}}', r"2: .* found \['video2idx'\]"),
    ('{"desc_id": ' + '9' * 5000 + '}', '2: cannot be read as JSON .Exceeds'),
    ('[' * 100_000, '2: cannot be read as JSON .maximum recursion'),
  ],
)
def test_broken_lines(tmp_path, second, message):
  path = tmp_path / 'gt.jsonl'
  path.write_text(f'{json.dumps(problem.rows()[0])}\n{second}\n')
  with pytest.raises(ValueError, match=f'gt.jsonl:{message}'):
    moment_truth.read(path)


def test_no_annotations(tmp_path):
  path = tmp_path / 'gt.jsonl'
  path.write_text('\n')
  with pytest.raises(ValueError, match='gt.jsonl: has no annotations'):
    moment_truth.read(path)
  path.write_bytes(b'\xff\xfe')
  with pytest.raises(ValueError, match='is no UTF-8 text'):
    moment_truth.read(path)


def without(key, *numbers):
  rows = problem.rows()
  for i in numbers or range(len(rows)):
    del rows[i][key]
  return rows


@pytest.mark.parametrize(
  'ts',
  [
    *('1-2', [], [1], [1, 2, 3, 4], [[1, 2], 3], ['1', 2], [1, None]),
    *([float('nan'), 1], [0, float('inf')], [0, 10**400], [True, 2], [[]]),
  ],
)
def test_moments_that_are_none(ts):
  rows = problem.rows()
  rows[3]['ts'] = ts
  with pytest.raises(ValueError, match=r'gt: ts of 103 is .*\[start, end\]'):
    annotations(rows)


def test_what_rows_lack():
  assert annotations(without('ts')).truth.spans is None
  assert annotations(without('type')).kinds is None
  for key in ('vid_name', 'ts', 'type'):
    with pytest.raises(ValueError, match=f"1 of 6 rows have no '{key}': '102'"):
      annotations(without(key, 2))
  with pytest.raises(ValueError, match='hidden cannot be evaluated here. Send'):
    annotations(without('vid_name'))
  rows = problem.rows()
  rows[1]['type'] = 'tv'
  with pytest.raises(ValueError, match="type of 101 is 'tv', expected one of"):
    annotations(rows)
  rows = problem.rows()
  rows[1]['vid_name'] = rows[2]['vid_name'] = 'x'
  with pytest.raises(ValueError, match="1 videos .* no number in .*: 'x'. It"):
    annotations(rows)


def test_backward_moments_are_noted():
  rows = problem.rows()
  rows[4]['ts'] = [5, 3]
  (note,) = annotations(rows).notes
  assert '1 true moments end before they start, such as that of 104' in note
