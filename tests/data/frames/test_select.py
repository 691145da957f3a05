# SPDX-License-Identifier: Apache-2.0
"""Numbers of frames."""

import numpy as np
import pytest

from vidret_jax.data.frames import select


@pytest.mark.parametrize('n', [2, 13, 30, 59, 300])
@pytest.mark.parametrize('m', [2, 5, 12])
def test_uniform(n, m):
  got = select.uniform(n, m)
  np.testing.assert_array_equal(got, np.linspace(0, n - 1, m, dtype=int))
  assert got[0] == 0 and got[-1] == n - 1
  assert select.uniform(n, 1).tolist() == [0]


def test_folder():
  assert len(select.folder(256)) == 256
  assert len(select.folder(257)) == 128
  assert select.folder(257)[-1] == 256
  assert len(select.folder(0)) == 0


def test_reduce():
  assert select.reduce(10, 3, 'first').tolist() == [0, 1, 2]
  assert select.reduce(10, 3, 'last').tolist() == [7, 8, 9]
  assert select.reduce(10, 3, 'uniform').tolist() == [0, 4, 9]
  assert select.reduce(10, 3, 'last', 'reversed').tolist() == [9, 8, 7]
  for how in select.SELECTS:
    assert select.reduce(3, 3, how).tolist() == [0, 1, 2]
    assert select.reduce(0, 3, how).tolist() == []


def test_shuffled():
  draw = [
    select.reduce(9, 4, 'uniform', 'shuffled', np.random.default_rng(s))
    for s in (0, 0, 1, 2, 3)
  ]
  assert all(sorted(d) == [0, 2, 5, 8] for d in draw)
  assert draw[0].tolist() == draw[1].tolist()
  assert len({tuple(d) for d in draw}) > 1
  with pytest.raises(ValueError, match='needs a random generator'):
    select.reduce(9, 4, 'uniform', 'shuffled')


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(max_frames=0), 'max_frames=0'),
    (dict(select='middle'), "select='middle'.*uniform"),
    (dict(order='random'), "frame_order='random'.*shuffled"),
  ],
)
def test_unknown_options(options, message):
  with pytest.raises(ValueError, match=message):
    select.reduce(5, **{'max_frames': 2, **options})


@pytest.mark.parametrize(
  'options, want',
  [
    (dict(fps=5, count=23), [0, 5, 10, 15, 20]),
    (dict(fps=5, count=25), [0, 5, 10, 15, 20]),
    (dict(fps=5, count=26), [0, 5, 10, 15, 20, 25]),
    (dict(fps=5.97, count=11.9), [0, 5, 10]),
    (dict(fps=29.97, count=60), [0, 29, 58]),
    (dict(fps=5, count=12, framerate=2), [0, 2, 5, 7, 10]),
    (dict(fps=5, count=7, framerate=5), [0, 1, 2, 3, 4, 5, 6]),
    (dict(fps=10, count=10, framerate=4), [0, 2, 4, 6]),
    (dict(fps=5, count=23, start=1, end=3), [5, 10, 15]),
    (dict(fps=5, count=23, start=3, end=1), [5, 10, 15]),
    (dict(fps=5, count=23, start=2, end=2), [10, 15]),
    (dict(fps=5, count=23, start=0, end=99), [0, 5, 10, 15, 20]),
    (dict(fps=5, count=23, start=-4, end=1.9), [0, 5]),
    (dict(fps=5, count=23, start=50, end=60), []),
    (dict(fps=5, count=0), []),
    (dict(fps=5, count=9, readable=7), [0, 5]),
    (dict(fps=5, count=9, readable=12), [0, 5, 10]),
  ],
)
def test_seconds(options, want):
  assert select.seconds(**options).tolist() == want


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(fps=0, count=9), '0 frames per second'),
    (dict(fps=0.9, count=9), '0 frames per second'),
    (dict(fps=2, count=9, framerate=3), '2 frames per second, expected 3'),
    (dict(fps=5, count=9, framerate=0), 'framerate=0'),
    (dict(fps=1, count=1 << 60), 'seconds, expected at most'),
    (dict(fps=5, count=9, start=1), 'give both or none'),
  ],
)
def test_seconds_that_cannot_be(options, message):
  with pytest.raises(ValueError, match=message):
    select.seconds(**options)


def test_names():
  names = ['v_10.jpg', 'a_b_2.JPG', 'v_003.jpeg', '_1.jpg']
  assert select.sort_names(names) == [
    *('_1.jpg', 'a_b_2.JPG', 'v_003.jpeg', 'v_10.jpg')
  ]
  assert select.is_frame('v_1.jpg') and not select.is_frame('v_1.jpg.txt')
  for name in ('v1.jpg', 'v_x.jpg', 'v_1.png', 'v_1_.jpg', '', 'v_-1.jpg'):
    assert not select.is_frame(name)
    with pytest.raises(ValueError, match='<anything>_<integer>.jpg'):
      select.sort_names([name])
