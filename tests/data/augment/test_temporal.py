# SPDX-License-Identifier: Apache-2.0
"""Times of views: lengths, short videos, seeds, how often what happens."""

import collections

import numpy as np
import pytest

from vidret_jax.data.augment import temporal


def views(count, size, seed, options=None):
  return temporal.two_views(count, size, options or temporal.Options(), seed)


@pytest.mark.parametrize('count', [1, 2, 3, 7, 8, 15, 16, 17, 90])
def test_every_video_gives_two_views_of_its_own_frames(count):
  for seed in range(40):
    for times in views(count, 8, seed):
      assert times.shape == (8,)
      assert times.max() < count
  weak = [views(count, 8, seed)[0] for seed in range(40)]
  assert np.min(weak) >= 0


def test_both_views_come_from_one_part_of_a_long_video():
  starts = set()
  for seed in range(60):
    weak, strong = views(1000, 8, seed)
    both = np.concatenate([weak, strong[strong >= 0]])
    assert both.max() - both.min() < 16
    starts.add(int(weak[0]) // 100)
  assert len(starts) > 6


def test_a_seed_decides_everything():
  for seed in (0, 3, 2**62):
    for one, other in zip(views(50, 8, seed), views(50, 8, seed)):
      np.testing.assert_array_equal(one, other)
  assert not np.array_equal(views(500, 8, 1)[0], views(500, 8, 2)[0])


def test_without_options_the_strong_view_is_a_part_as_it_is():
  for seed in range(20):
    _, strong = temporal.two_views(100, 8, None, seed)
    np.testing.assert_array_equal(np.diff(strong), 1)


def test_every_kind_happens_as_often_as_it_says():
  seen = collections.Counter()
  for seed in range(400):
    index = np.arange(100)
    rng = np.random.RandomState(seed)
    got = temporal.transform(index, temporal.Options(), rng, lambda: None, 28)
    if len(got) == 200:
      seen['slow'] += 1
    elif len(got) in (34, 50):
      seen['fast'] += 1
    elif len(got) == 100 and (np.diff(got) == -1).all():
      seen['reverse'] += 1
  for kind in ('slow', 'fast', 'reverse'):
    assert 20 < seen[kind] < 62, seen  # 40 expected, four deviations.


def test_clips_too_short_for_a_pause_stay():
  rng = np.random.RandomState(0)
  assert temporal.pause(np.arange(1), 28, rng).tolist() == [0]
  assert temporal.pause(np.arange(5), 3, rng).tolist() == [0, 1, 2, 3, 4]


def test_dropout_always_leaves_something():
  for seed in range(300):
    rng = np.random.RandomState(seed)
    for count in (1, 5, 20):
      got = temporal.shuffle_dropout(
        np.arange(count), 0.5, 0.9, 0.5, rng, lambda: None
      )
      assert len(got)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(fast=1.5), r'temporal\.fast=1\.5'),
    (dict(shuffle_dropout=0.5, fast=0.6), 'sum to'),
  ],
)
def test_bad_probabilities_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    temporal.Options(**options)


def test_no_frames():
  with pytest.raises(ValueError, match='without frames'):
    temporal.two_views(0, 8, None, 0)
