# SPDX-License-Identifier: Apache-2.0
"""Frames of videos at even times."""

import numpy as np
import pytest

from tests.data import frame_sets
from vidret_jax.data import clip_frames
from vidret_jax.data.frames import video as video_lib


class Brightness:
  """An encoder whose only feature is the mean grey level."""

  image_size = 16

  def frames(self, pixels):
    assert pixels.dtype == np.uint8 and pixels.shape[1:] == (16, 16, 3)
    return pixels.mean((1, 2, 3), keepdims=True)[:, 0, 0].astype(np.float32)


@pytest.fixture
def videos(tmp_path):
  """Frame i, of 5 in a second, has the grey level 10 + 5 i."""
  frames = np.empty((40, 36, 48, 3), np.uint8)
  frames[:] = 10 + 5 * np.arange(40, dtype=np.uint8)[:, None, None, None]
  folder = tmp_path / 'videos'
  frame_sets.write_video(folder / 'a.avi', frames)
  frame_sets.write_video(folder / 'b.avi', frames[:1])
  return folder


def numbers(path, **options):
  """Which frames are read."""
  options = dict(fps=3.0, first=0.1, max_seconds=300.0) | options
  found = clip_frames.read(path, size=16, **options)
  return np.round((found.mean((1, 2, 3)) - 10) / 5).astype(int).tolist()


def test_times(videos):
  # 0.1, 0.43, 0.77, 1.1, ... seconds.
  assert numbers(videos / 'a.avi', max_seconds=2) == [0, 2, 3, 5, 7, 8]
  assert len(numbers(videos / 'a.avi')) == 24
  assert numbers(videos / 'a.avi', fps=1, first=0) == list(range(0, 40, 5))
  # More than there are: some twice.
  assert numbers(videos / 'a.avi', fps=10, first=0, max_seconds=0.5) == [
    *(0, 0, 1, 1, 2)
  ]
  # One that ends before the first time still has a frame.
  assert numbers(videos / 'b.avi', first=0.7) == [0]


def test_features(videos, tmp_path):
  import h5py

  (videos / 'broken.mp4').write_text('no video')
  out = tmp_path / 'frames.h5'
  made = clip_frames.features(Brightness(), videos, out, fps=1, first=0)
  assert (made.names, made.rows, made.width) == (2, 9, 1)
  assert 'left out: 1' in made.notes[0] and 'broken.mp4' in made.notes[0]
  with h5py.File(out) as file:
    assert sorted(file) == ['a', 'b']
    np.testing.assert_allclose(file['a'][:, 0], 10 + 25 * np.arange(8), atol=2)


def test_bad_folders(videos, tmp_path):
  out = tmp_path / 'frames.h5'

  def error(**options):
    with pytest.raises(ValueError) as caught:
      clip_frames.features(Brightness(), videos, out, **options)
    assert not out.exists()
    return str(caught.value)

  assert '--fps 0' in error(fps=0)
  (videos / 'a.mp4').write_text('')
  assert "a.avi and a.mp4 are both 'a'" in error()
  (videos / 'a.mp4').rename(videos / 'c.mp4')
  for name in ('a.avi', 'b.avi'):
    (videos / name).unlink()
  assert 'none of the 1 videos can be read' in error()
  below = videos / 'below'
  below.mkdir()
  (videos / 'c.mp4').rename(below / 'c.mp4')
  assert "'below/c' cannot be a key" in error()
  (below / 'c.mp4').unlink()
  assert 'no videos' in error()


def test_unreadable(tmp_path):
  path = tmp_path / 'a.mp4'
  path.write_text('no video')
  with pytest.raises(video_lib.UnreadableVideo):
    numbers(path)
