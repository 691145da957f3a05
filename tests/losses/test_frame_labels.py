# SPDX-License-Identifier: Apache-2.0
"""Tests of losses/frame_labels.py."""

import jax
import numpy as np
import pytest

from vidret_jax.losses import frame_labels

FEATURES = np.random.default_rng(0).normal(size=(3, 8, 5)).astype('f')
ROWS, COLUMNS = np.array([0, 2, 1, 1]), np.array([0, 1, 2, 1])


def test_most_and_least_alike():
  scaled = FEATURES * np.array([1, 7, 0.1], 'f')[:, None, None]
  positive, negative = frame_labels.frame_labels(
    scaled, ROWS, COLUMNS, top=0.4, bottom=0.2
  )
  unit = np.float64(FEATURES)
  unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
  alike = unit[ROWS] @ unit[COLUMNS].transpose(0, 2, 1)
  order = np.argsort(-alike, axis=2)
  assert positive.dtype == negative.dtype == np.int32
  # 3.2 and 1.6 frames, rounded.
  np.testing.assert_array_equal(positive, order[:, :, :3])
  np.testing.assert_array_equal(negative, order[:, :, ::-1][:, :, :2])


@pytest.mark.parametrize(
  'frames, top, bottom, counts',
  # Half is rounded to even, and there is always one.
  [(5, 0.5, 0.3, (2, 2)), (11, 0.5, 0.5, (6, 6)), (8, 0.01, 0.01, (1, 1))],
)
def test_counts(frames, top, bottom, counts):
  features = np.ones((1, frames, 2), 'f')
  index = np.zeros(1, int)
  chosen = frame_labels.frame_labels(
    features, index, index, top=top, bottom=bottom
  )
  assert tuple(x.shape[-1] for x in chosen) == counts
  # All frames are equal, so the first are both.
  for x, count in zip(chosen, counts):
    np.testing.assert_array_equal(x[0], [range(count)] * frames)


def test_a_clip_that_is_looped():
  """Equal frames: the first of them, in either direction."""
  features = np.zeros((1, 6, 2), 'f')
  features[0, :, 0] = [1, 0, 1, 0, 1, 0]
  features[0, :, 1] = [0, 1, 0, 1, 0, 1]
  index = np.zeros(1, int)
  positive, negative = frame_labels.frame_labels(features, index, index)
  np.testing.assert_array_equal(positive[0], [[0, 2], [1, 3]] * 3)
  np.testing.assert_array_equal(negative[0], [[1, 3], [0, 2]] * 3)


def test_half_precision_is_compared_in_float32():
  half = FEATURES.astype(np.float16)
  got = frame_labels.frame_labels(half, ROWS, COLUMNS)
  want = frame_labels.frame_labels(half.astype('f'), ROWS, COLUMNS)
  for x, y in zip(got, want):
    np.testing.assert_array_equal(x, y)


def test_frames_without_features():
  positive, _ = jax.jit(frame_labels.frame_labels)(0 * FEATURES, ROWS, COLUMNS)
  np.testing.assert_array_equal(positive[0, 0], [0, 1, 2])


@pytest.mark.parametrize('top, bottom', [(0, 0.5), (0.5, -0.1), (0.6, 0.5)])
def test_wrong_shares_are_named(top, bottom):
  with pytest.raises(ValueError, match=f'top {top} and the bottom {bottom}'):
    frame_labels.frame_labels(FEATURES, ROWS, COLUMNS, top=top, bottom=bottom)
