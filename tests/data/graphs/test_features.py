# SPDX-License-Identifier: Apache-2.0
"""Which frames are taken, on streams that count."""

import numpy as np
import pytest

from vidret_jax.data.graphs import features


def count(n, width=1):
  return np.repeat(np.arange(n, dtype=np.float32)[:, None], width, axis=1)


def test_streams_of_one_length_are_laid_side_by_side():
  out = features.align([count(3, 2), count(3) + 10])
  assert out.dtype == np.float32
  assert out.tolist() == [[0, 0, 10], [1, 1, 11], [2, 2, 12]]


def test_the_shortest_stream_decides():
  out = features.align([count(7), count(3), count(4)])
  # 7 -> 0, 3, 6; 4 -> 0, 1.5, 3, rounded down.
  assert out.tolist() == [[0, 0, 0], [3, 1, 1], [6, 2, 3]]


def test_short_clips_are_padded():
  out, mask = features.select(count(2) + 1, 4)
  assert out.dtype == np.float32
  assert out[:, 0].tolist() == [1, 2, 0, 0]
  assert mask.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
  't, chosen',
  [(4, [0, 1, 2, 3]), (5, [0, 1, 3, 4]), (8, [0, 2, 5, 7])],
)
def test_frames_of_long_clips(t, chosen):
  out, mask = features.select(count(t), 4)
  assert out[:, 0].tolist() == chosen and mask.all()


def test_halves_are_rounded_to_even():
  out, _ = features.select(count(6), 3)  # 0, 2.5, 5
  assert out[:, 0].tolist() == [0, 2, 5]


def test_1ka_stretches_cuts_and_normalises():
  short, long = count(2, 2), count(9, 1) + 1
  out = features.align_1ka([short, long], length=6)
  assert out.shape == (6, 3)
  half = np.float32(np.sqrt(0.5))
  np.testing.assert_array_equal(out[:3, :2], 0)  # Zeros stay zeros.
  np.testing.assert_allclose(out[3:, :2], half, rtol=1e-6)
  np.testing.assert_array_equal(out[:, 2], 1)
  # The same for streams of one length, which upstream cannot read.
  assert features.align_1ka([short, short], length=3).shape == (3, 4)


@pytest.mark.parametrize('call', [features.align, features.align_1ka])
@pytest.mark.parametrize(
  'streams', [[], [np.zeros((0, 3))], [np.zeros(3)], [np.zeros((1, 2, 3))]]
)
def test_no_frames(call, streams):
  with pytest.raises(ValueError, match='expected'):
    call(streams)


def test_nothing_to_select():
  with pytest.raises(ValueError, match='at least one frame'):
    features.select(np.zeros((0, 3)), 4)
