# SPDX-License-Identifier: Apache-2.0
"""Training pairs: what they hold, and that only seeds decide it."""

import numpy as np
import pytest

from vidret_jax.data import pipeline
from vidret_jax.data.augment import temporal
from vidret_jax.data.copies import clips
from vidret_jax.data.frames import files

COUNTS = (40, 12, 5, 1)
SMALL = dict(window=4, size=16, num_threads=0)
PLAIN = dict(parts=(), flip=0.0)
ROWS = np.arange(len(COUNTS))
SEEDS = np.array([11, 12, 13, 2**62], np.int64)


@pytest.fixture(scope='module')
def store():
  """Frame t of video v is of one colour: (t, v, 200)."""
  frames = np.zeros((len(COUNTS), max(COUNTS), 20, 24, 3), np.uint8)
  frames[..., 0] = np.arange(max(COUNTS))[:, None, None]
  frames[..., 1] = np.arange(len(COUNTS))[:, None, None, None]
  frames[..., 2] = 200
  ids = [f'video{i}' for i in range(len(COUNTS))]
  return clips.Mapped(ids, frames, np.array(COUNTS))


def test_views_hold_the_frames_of_their_times(store):
  for how in (PLAIN, dict(parts=('TT',))):
    source = clips.Pairs(store, augment=how, **SMALL)
    batch = source.gather(ROWS, SEEDS)
    options = temporal.Options() if how['parts'] else None
    for v, seed in enumerate(SEEDS.tolist()):
      weak, strong = temporal.two_views(COUNTS[v], 4, options, seed)
      for name, times in (('weak', weak), ('strong', strong)):
        got = batch[name][v]
        assert (got == got[:, :1, :1])[times >= 0].all()
        seen = times >= 0
        np.testing.assert_array_equal(got[seen, 0, 0, 0], times[seen])
        assert (got[seen, 0, 0, 1] == v).all()


def test_batches_are_as_the_spec_says(store):
  source = clips.Pairs(store, **SMALL)
  assert source.ids == ('video0', 'video1', 'video2', 'video3')
  batch = source.gather(np.array([2, -1, 0]), SEEDS[:3])
  assert set(batch) == set(source.spec)
  for key, (shape, dtype) in source.spec.items():
    assert batch[key].shape == (3, *shape) and batch[key].dtype == dtype
  assert batch['_mask'].tolist() == [True, False, True]
  for key in batch:
    assert not batch[key][1].any()


def test_batches_are_not_copied_on_their_way(store, monkeypatch):
  source, made = clips.Pairs(store, **SMALL), []
  gather = source.gather

  def keep(index, seeds):
    made.append(gather(index, seeds))
    return made[-1]

  monkeypatch.setattr(source, 'gather', keep)
  stream = pipeline.train_iter(source, batch_size=4, seed=0)
  batch = next(stream)
  stream.close()
  for key in ('weak', 'strong'):
    assert any(np.shares_memory(batch[key], x[key]) for x in made)


def test_rows_depend_on_their_seeds_only(store):
  whole = clips.Pairs(store, **SMALL).gather(ROWS, SEEDS)
  threads = clips.Pairs(store, **{**SMALL, 'num_threads': 3})
  again = threads.gather(ROWS[::-1], SEEDS[::-1])
  for key in whole:
    np.testing.assert_array_equal(again[key][::-1], whole[key])
  for i in range(len(ROWS)):  # As other hosts would read them.
    part = threads.gather(ROWS[i : i + 1], SEEDS[i : i + 1])
    for key in whole:
      np.testing.assert_array_equal(part[key][0], whole[key][i])
  other = threads.gather(ROWS, SEEDS + 1)
  assert (other['strong'] != whole['strong']).any(axis=(1, 2, 3, 4)).all()


def test_dropped_frames_are_black_or_noise(store):
  how = dict(
    parts=('TT',),
    temporal=dict(
      *(),
      **dict(shuffle_dropout=1.0, fast=0, slow=0, reverse=0, pause=0),
      **dict(shuffle=0.0, dropout=0.4, content=0.0),
    ),
  )
  source = clips.Pairs(store, window=20, size=16, num_threads=0, augment=how)
  options = source._times
  black = noise = 0
  for seed in range(30):
    _, times = temporal.two_views(COUNTS[0], 20, options, seed)
    if times.min() >= 0:
      continue
    clip = source.gather(np.array([0]), np.array([seed]))['strong'][0]
    for frame, time in zip(clip, times.tolist()):
      if time == temporal.BLANK:
        assert not frame.any()
        black += 1
      elif time <= temporal.NOISE:
        assert 20 < frame.std() and 90 < frame.mean() < 165
        noise += 1
  assert black and noise


def test_what_is_drawn_for_video_in_video(store):
  seeds = np.arange(4000)
  source = clips.Pairs(store, augment=dict(mixing=0.25), **SMALL)
  mix = source._recipe.mix(seeds)
  assert mix.shape == (4000, 5) and mix.dtype == np.float32
  assert set(mix[:, 0].tolist()) == {0, 1} and 0.22 < mix[:, 0].mean() < 0.28
  low, high = np.array([0, 0.3, 0, 0]), np.array([1, 0.7, 1, 1])
  assert (mix[:, 1:] >= low).all() and (mix[:, 1:] <= high).all()
  np.testing.assert_allclose(mix[:, 1:].mean(0), 0.5, atol=0.03)
  assert np.abs(np.corrcoef(mix.T) - np.eye(5)).max() < 0.06
  off = clips.Pairs(store, augment=dict(parts=('GT', 'TT')), **SMALL)
  assert not off._recipe.mix(seeds)[:, 0].any()


class Broken:
  """A store whose second video cannot be read."""

  ids = ('good', 'bad')

  def count(self, video):
    return 6

  def read(self, video, frames):
    if video:
      raise files.UnreadableClip('folder/bad/00003.jpg: is cut off')
    return np.full((len(frames), 20, 20, 3), 50, np.uint8)


def test_a_video_that_cannot_be_read_is_masked_and_named(caplog):
  source = clips.Pairs(Broken(), **SMALL)
  for _ in range(2):
    batch = source.gather(np.array([1, 0]), SEEDS[:2])
    assert batch['_mask'].tolist() == [False, True]
    assert not batch['weak'][0].any() and not batch['mix'][0].any()
    assert batch['weak'][1].any()
  told = [r.message for r in caplog.records if '00003.jpg' in r.message]
  assert len(told) == 1 and "'bad'" in told[0] and '1 of 2 videos' in told[0]


def test_a_video_that_cannot_be_read_ends_the_run_on_request():
  source = clips.Pairs(Broken(), unreadable='error', **SMALL)
  with pytest.raises(ValueError, match=r"'bad'.*00003\.jpg"):
    source.gather(np.array([0, 1]), SEEDS[:2])


class Gone:
  """Videos on a disk that is no longer there."""

  ids = tuple('abcdefghij')

  def count(self, video):
    raise FileNotFoundError(f'no such folder: {self.ids[video]}')


def test_a_disk_that_is_gone_ends_the_run():
  """Or it would train on nothing, and go on saving what it has."""
  for threads in (0, 2):
    source = clips.Pairs(Gone(), **{**SMALL, 'num_threads': threads})
    few = source.gather(np.arange(7), np.arange(7))
    assert not few['_mask'].any()  # May be chance.
    with pytest.raises(ValueError, match="none of the 8 videos.*'[a-h]'"):
      source.gather(np.r_[np.arange(8), -1], np.arange(9))


def test_a_font_that_fails_is_no_unreadable_video(store, monkeypatch):
  def fails(*_, **__):
    raise OSError('raster overflow')

  monkeypatch.setattr('vidret_jax.data.augment.overlays.text', fails)
  source = clips.Pairs(store, augment=dict(overlay=1.0), **SMALL)
  with pytest.raises(OSError, match='raster overflow'):
    source.gather(ROWS, SEEDS)


def test_a_video_without_frames_is_masked(store):
  none = clips.Mapped(['a'], np.zeros((1, 2, 9, 9, 3), np.uint8), np.zeros(1))
  batch = clips.Pairs(none, **SMALL).gather(np.array([0]), SEEDS[:1])
  assert batch['_mask'].tolist() == [False]


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(window=0), 'window=0'),
    (dict(size=0), 'size=0'),
    (dict(num_threads=-1), 'num_threads=-1'),
    (dict(unreadable='ignore'), "unreadable='ignore'"),
    (dict(augment=dict(blurr=1)), "augment has no 'blurr'"),
    (dict(augment=dict(temporal=dict(speed=1))), "has no 'speed'"),
    (dict(augment=dict(parts=('GT', 'XX'))), "'XX'"),
    (dict(augment=dict(share=(0.7, 0.3))), 'share='),
    (dict(augment=dict(mixing=2)), 'mixing=2'),
    (dict(augment=dict(overlay=-1)), 'overlay=-1'),
    (dict(augment=dict(magnitude=40)), 'magnitude=40'),
  ],
)
def test_bad_options_are_refused(store, options, message):
  with pytest.raises(ValueError, match=message):
    clips.Pairs(store, **{**SMALL, **options})


def test_no_videos():
  with pytest.raises(ValueError, match='no video'):
    clips.Pairs(clips.Mapped([], np.zeros((0, 1, 1, 1, 3)), []), **SMALL)
