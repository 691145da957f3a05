# SPDX-License-Identifier: Apache-2.0
"""Classes of captions and clips."""

import numpy as np
import pytest

from vidret_jax.data.graphs import classes


@pytest.mark.parametrize(
  'value, want',
  [
    (3, [3]),
    ([3, 17, 3], [3, 17, 3]),
    ([], []),
    ('[3, 17]', [3, 17]),
    (' [ 3 ,17 ] ', [3, 17]),
    ('[]', []),  # Upstream stops here.
  ],
)
def test_parse(value, want):
  assert classes.parse(value) == want


@pytest.mark.parametrize(
  'value',
  [
    *(None, True, 1.0, -1, 2**31, 'x', '3', '[3', '[3,]', '[-1]', '[1.5]'),
    *([1, '2'], [None], [True], [-1], [[1]], {'1': 2}, '[' + '9' * 5000 + ']'),
  ],
)
def test_what_is_no_class(value):
  with pytest.raises(
    ValueError, match='expected an integer from 0 on'
  ) as error:
    classes.parse(value)
  assert len(str(error.value)) < 250


def test_classes_beyond_the_last():
  assert classes.parse('[0, 96]', 97) == [0, 96]
  with pytest.raises(ValueError, match='class 97, expected one from 0 to 96'):
    classes.parse([0, 97], 97)


def test_pooled():
  # A quarter of 5 captions is 1.25: two occurrences, in one caption or in two.
  said = [[7, 7], [4], [1], [4], []]
  assert classes.pooled(said) == [7, 4]
  assert classes.pooled(said, share=0.2) == [7, 4, 1]
  assert classes.pooled(said[:4]) == [7, 4, 1]
  assert classes.pooled([[]]) == classes.pooled([]) == []


def test_padded():
  out = classes.padded([[5, 1, 5], [], [2]])
  assert out.dtype == np.int32
  assert out.tolist() == [[1, 5], [-1, -1], [2, -1]]
  assert classes.padded([[]]).tolist() == [[-1]]
  assert classes.padded([]).shape == (0, 1)
  assert classes.padded([[3]], width=3).tolist() == [[3, -1, -1]]
  with pytest.raises(ValueError, match='2 classes in a row, .* at most 1'):
    classes.padded([[3, 4]], width=1)
