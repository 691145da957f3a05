# SPDX-License-Identifier: Apache-2.0
"""Boxes of random resized crops, and what is cut out of frames."""

import numpy as np
from PIL import Image
import pytest

from tests.data import frame_folders
from vidret_jax.data.augment import crops, weak


def test_boxes_lie_within_and_have_their_share():
  shares, ratios = [], []
  for seed in range(300):
    rng = np.random.RandomState(seed)
    top, left, height, width = crops.draw(rng, 256, 340, (0.5, 1.0))
    assert 0 <= top <= 256 - height and 0 <= left <= 340 - width
    shares.append(height * width / (256 * 340))
    ratios.append(width / height)
  assert 0.49 < min(shares) < 0.55 and max(shares) <= 1
  assert 0.74 < min(ratios) and max(ratios) < 1.34


@pytest.mark.parametrize('shape', [(10, 200), (200, 10), (1, 1)])
def test_frames_of_any_shape_have_a_box(shape):
  for seed in range(20):
    rng = np.random.RandomState(seed)
    top, left, height, width = crops.draw(rng, *shape, (0.8, 1.0))
    assert 0 < height <= shape[0] - top and 0 < width <= shape[1] - left


def test_a_whole_frame_of_the_same_size_stays():
  frame = frame_folders.picture(np.random.default_rng(0), 32, 32)[None]
  for antialias in (False, True):
    got = crops.resized(frame, (0, 0, 32, 32), 32, antialias=antialias)
    np.testing.assert_array_equal(got, frame)


def test_a_flip_mirrors_the_result():
  frame = frame_folders.picture(np.random.default_rng(0), 40, 50)[None]
  box = (3, 4, 30, 41)
  plain = crops.resized(frame, box, 24)
  np.testing.assert_array_equal(
    crops.resized(frame, box, 24, flip=True), plain[:, :, ::-1]
  )


def test_antialiasing_is_that_of_pillow_but_for_its_rounding():
  frame = frame_folders.picture(np.random.default_rng(1), 90, 80)
  got = crops.resized(frame[None], (0, 0, 90, 80), 30, antialias=True)[0]
  image = Image.fromarray(frame).resize((30, 30), Image.Resampling.BILINEAR)
  assert np.abs(got.astype(int) - np.asarray(image).astype(int)).max() <= 1


def test_all_frames_have_the_same_crop():
  rng = np.random.default_rng(0)
  frame = frame_folders.picture(rng, 40, 50)
  clip = np.stack([frame, frame, frame])
  got = weak.apply(clip, weak.Options(size=24), np.random.RandomState(5))
  assert got.shape == (3, 24, 24, 3)
  np.testing.assert_array_equal(got[0], got[1])
  np.testing.assert_array_equal(got[0], got[2])


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(scale=(0.0, 1.0)), 'scale='),
    (dict(scale=(0.9, 0.5)), 'scale='),
    (dict(flip=2.0), 'flip=2.0'),
    (dict(size=0), 'size=0'),
  ],
)
def test_bad_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    weak.Options(**options)
