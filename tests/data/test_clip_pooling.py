# SPDX-License-Identifier: Apache-2.0
"""From frames and tokens to clips."""

import numpy as np
import pytest

from vidret_jax.data import clip_pooling


def frames(count):
  return np.arange(count, dtype=np.float32)[:, None]


def spans(count, **options):
  """First and last frame of each clip."""
  top = clip_pooling.pool_frames(frames(count), **options)[:, 0]
  low = -clip_pooling.pool_frames(-frames(count), **options)[:, 0]
  return list(zip(low.astype(int).tolist(), top.astype(int).tolist()))


def test_clips_of_three_frames_a_second():
  # 0.1, 0.43, 0.77, 1.1, 1.43 | 1.77, 2.1, 2.43, 2.77 | 3.1, ...
  assert spans(15) == [(0, 4), (5, 8), (9, 13), (14, 14)]
  np.testing.assert_allclose(
    clip_pooling.pool_frames(frames(9), pool='avg')[:, 0], [2, 6.5]
  )
  assert clip_pooling.pool_frames(frames(0)).shape == (0, 1)


def test_other_rates():
  assert spans(5, fps=2, first=0, clip_seconds=1) == [(0, 1), (2, 3), (4, 4)]
  # A frame on the edge begins the next clip.
  assert spans(4, fps=1, first=0, clip_seconds=1.5) == [(0, 1), (2, 2), (3, 3)]


def test_the_last_clip_before_the_limit():
  """The original fails at a video that reaches it."""
  long = clip_pooling.pool_frames(frames(1000))
  assert len(long) == 200 and long[-1] == 899
  assert clip_pooling.frame_limit(3.0, 0.1, 300.0) == 900
  assert spans(20, max_seconds=4) == [(0, 4), (5, 8), (9, 11)]
  assert clip_pooling.frame_limit(3.0, 0.1, 4.0) == 12


def test_alignment():
  rows = np.ones((3, 2), np.float32)
  np.testing.assert_array_equal(clip_pooling.align(rows, 2), rows[:2])
  longer = clip_pooling.align(rows, 5)
  np.testing.assert_array_equal(longer[:3], rows)
  assert longer.shape == (5, 2) and not longer[3:].any()


def test_sentences_of_clips():
  times = [(0.2, 1.5), (1.4, 3.1), (4.5, 4.5), (4.5, 6)]
  assert clip_pooling.sentences_of_clips(times, 1.5) == {
    0: [0, 1],
    1: [1],
    2: [1],
    3: [3],
  }
  assert clip_pooling.sentences_of_clips(np.zeros((0, 2)), 1.5) == {}
  with pytest.raises(ValueError, match='Are the times seconds'):
    clip_pooling.sentences_of_clips([(0, 1e6)] * 4, 1.5)


def test_pooled_sentences():
  tokens = np.array([[1, 9], [5, 2], [3, 3], [7, 0]], np.float32)
  spoken = {0: [0, 1], 2: [1, 2], 3: [3], 4: [5], 9: [0]}
  # Sentence 1 has no tokens; sentences 3 and 5 were not embedded.
  rows, mask = clip_pooling.pool_sentences(tokens, [2, 0, 2], spoken, 5)
  np.testing.assert_array_equal(rows, [[5, 9], [0, 0], [7, 3], [7, 3], [7, 3]])
  np.testing.assert_array_equal(mask, [1, 0, 1, 1, 1])
  rows, mask = clip_pooling.pool_sentences(
    tokens, [2, 0, 2], {1: [1], 0: [0]}, 2, 'avg'
  )
  np.testing.assert_array_equal(rows, [[3, 5.5], [0, 0]])
  np.testing.assert_array_equal(mask, [1, 0])


def test_no_embedded_sentence():
  rows, mask = clip_pooling.pool_sentences(
    np.zeros((0, 4), np.float32), [], {0: [0]}, 2
  )
  assert rows.shape == (2, 4) and not rows.any() and not mask.any()
