# SPDX-License-Identifier: Apache-2.0
"""Moments in the form of the TVR release."""

import pytest

from vidret_jax.data import moment_release


def repaired(*spans, duration=10.0):
  query = moment_release.Query('a', 'x', duration, spans)
  rows, _, repairs = moment_release.release({'val': [query]})
  return rows['val'][0]['ts'], repairs['val']


def test_repairs():
  assert repaired((1.0, 10.0)) == ([1, 10], moment_release.Repairs())
  ts, found = repaired((12.0, 3.0))
  assert ts == [3, 10] and found.swapped == found.cut == ['a']
  ts, found = repaired((11.0, 12.0), (2.0, 2.0), (0.0, 1.0))
  assert ts == [[10, 10], [2, 2], [0, 1]]
  assert found.cut == ['a'] and found.empty == ['a', 'a']


def test_two_durations_of_a_video():
  queries = [moment_release.Query('a', 'x', d, ((0, 1),)) for d in (5.0, 6.0)]
  with pytest.raises(ValueError, match="val: video 'a' lasts 5 s and 6 s"):
    moment_release.release({'val': queries})
