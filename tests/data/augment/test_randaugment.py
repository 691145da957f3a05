# SPDX-License-Identifier: Apache-2.0
"""RandAugment: what is drawn, and properties of single operations."""

import collections

import numpy as np
import pytest

from tests.data import frame_folders
from vidret_jax.data.augment import randaugment


@pytest.fixture(scope='module')
def clip():
  rng = np.random.default_rng(0)
  return np.stack([frame_folders.picture(rng, 20, 26) for _ in range(3)])


@pytest.mark.parametrize('name', randaugment.OPERATIONS)
@pytest.mark.parametrize('bin', [0, 30])
def test_every_operation_at_both_ends_of_its_strength(clip, name, bin):
  value = randaugment.strength(name, bin, *clip.shape[1:3])
  got = randaugment.apply(clip, name, value)
  assert got.shape == clip.shape and got.dtype == np.uint8
  unchanged = not bin and name not in ('AutoContrast', 'Equalize')
  if unchanged or name == 'Identity':
    level = 255 if name == 'Solarize' else 256  # 255 itself is inverted.
    keep = clip < level
    np.testing.assert_array_equal(got[keep], clip[keep])
  else:
    assert (got != clip).any()


@pytest.mark.parametrize('name', randaugment.OPERATIONS)
def test_frames_are_changed_one_by_one(clip, name):
  value = randaugment.strength(name, 9, *clip.shape[1:3])
  whole = randaugment.apply(clip, name, value)
  for frame, want in zip(clip, whole):
    got = randaugment.apply(frame[None], name, value)[0]
    np.testing.assert_array_equal(got, want)


def test_flat_frames_survive():
  flat = np.full((2, 8, 9, 3), 77, np.uint8)
  for name in randaugment.OPERATIONS:
    randaugment.apply(flat, name, randaugment.strength(name, 9, 8, 9))
  for name in ('AutoContrast', 'Equalize'):
    np.testing.assert_array_equal(randaugment.apply(flat, name, 0.0), flat)


def test_draws():
  rng = np.random.RandomState(0)
  drawn = [d for _ in range(700) for d in randaugment.draw(rng, 2, 9, 20, 30)]
  count = collections.Counter(name for name, _ in drawn)
  assert set(count) == set(randaugment.OPERATIONS)
  assert 60 < min(count.values()) and max(count.values()) < 140
  signs = {name: {np.sign(v) for n, v in drawn if n == name} for name in count}
  assert signs['Rotate'] == {-1, 1} and signs['Solarize'] == {1}


@pytest.mark.parametrize('count, magnitude', [(-1, 9), (2, 31), (2, -1)])
def test_bad_options_are_refused(count, magnitude):
  with pytest.raises(ValueError, match='expected 0'):
    randaugment.check(count, magnitude)


def test_an_unknown_operation_is_refused(clip):
  with pytest.raises(ValueError, match='Mixup'):
    randaugment.apply(clip, 'Mixup', 0.1)
