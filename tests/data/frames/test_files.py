# SPDX-License-Identifier: Apache-2.0
"""Clips on disk: folders of frames, video files, where they are."""

import os

import numpy as np
import pytest

from tests.data.frames import pictures
from vidret_jax.data.frames import files, transform


@pytest.fixture
def folder(tmp_path):
  """Twenty frames; a frame's grey level is its number."""
  path = tmp_path / 'clip.1'
  path.mkdir()
  for i in range(20):
    pixels = np.full((30, 40, 3), pictures.grey_level(i), np.uint8)
    (path / f'clip.1_{i}.jpg').write_bytes(pictures.encode(pixels))
  return path


@pytest.fixture
def film(tmp_path):
  return pictures.write_video(tmp_path / 'film.mp4', 23)


@pytest.mark.parametrize(
  'options, want',
  [
    (dict(), [0, 4, 9, 14, 19]),
    (dict(select='first'), [0, 1, 2, 3, 4]),
    (dict(select='last', order='reversed'), [19, 18, 17, 16, 15]),
    (dict(max_frames=30), list(range(20))),
    (dict(max_frames=1), [0]),
  ],
)
def test_folder(options, want, folder):
  got = files.read(folder, **{'size': 16, 'max_frames': 5, **options})
  assert got.shape == (len(want), 16, 16, 3) and got.dtype == np.uint8
  assert pictures.numbers(got) == want


def test_only_chosen_frames_are_read(folder):
  (folder / 'clip.1_7.jpg').write_bytes(b'damaged')
  (folder / '.DS_Store').write_bytes(b'')
  (folder / 'notes.txt').write_text('twenty frames')
  got = files.read(folder, size=16, max_frames=5)
  assert pictures.numbers(got) == [0, 4, 9, 14, 19]


def test_long_folders_are_thinned_out_first(tmp_path):
  blob = pictures.encode(np.zeros((8, 8, 3), np.uint8))
  for i in range(257):
    (tmp_path / f'v_{i}.jpg').write_bytes(blob + b'%d' % i)
  got = [int(b[len(blob) :]) for b in files.encoded(tmp_path)]
  assert got == np.linspace(0, 256, 128, dtype=int).tolist()
  few = [
    int(b[len(blob) :])
    for b in files.encoded(tmp_path, max_frames=3, select='uniform')
  ]
  assert few == [got[0], got[63], got[127]]


def test_shuffled(folder):
  draw = [
    pictures.numbers(
      files.read(
        folder,
        size=16,
        max_frames=5,
        order='shuffled',
        rng=np.random.default_rng(seed),
      )
    )
    for seed in (0, 0, 1, 2)
  ]
  assert draw[0] == draw[1] and len({tuple(d) for d in draw}) > 1
  assert all(sorted(d) == [0, 4, 9, 14, 19] for d in draw)


@pytest.mark.parametrize(
  'options, want',
  [
    (dict(), [0, 5, 10, 15, 20]),
    (dict(max_frames=3), [0, 10, 20]),
    (dict(framerate=2, max_frames=99), [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]),
    (dict(start=1, end=3), [5, 10, 15]),
    (dict(start=3, end=1, order='reversed'), [15, 10, 5]),
  ],
)
def test_video(options, want, film):
  got = files.read(film, **{'size': 16, 'max_frames': 5, **options})
  assert got.shape == (len(want), 16, 16, 3)
  assert pictures.numbers(got) == want


def test_a_shorter_video_is_chosen_from_again(tmp_path):
  path = pictures.write_video(
    tmp_path / 'a.mp4', 38, options={'movflags': 'faststart'}, codec='mjpeg'
  )
  raw = path.read_bytes()
  path.write_bytes(raw[: len(raw) * 2 // 3])
  all_of_it = files.read(path, size=16, max_frames=99, framerate=5)
  n = len(all_of_it)
  assert 10 < n < 38
  got = files.read(path, size=16, max_frames=4, framerate=5)
  want = np.linspace(0, n - 1, 4, dtype=int).tolist()
  assert pictures.numbers(got) == want


@pytest.mark.parametrize('name', transform.TRANSFORMS)
def test_encoded_frames(folder, name):
  blobs = files.encoded(folder, max_frames=5)
  got = files.decode(blobs, 16, name)
  want = files.read(folder, size=16, max_frames=5, transform=name)
  np.testing.assert_array_equal(got, want)
  assert len(files.encoded(folder)) == 20
  with pytest.raises(files.UnreadableClip, match='frame 1 of 2: cannot be'):
    files.decode([blobs[0], blobs[1][:-99]], 16, name)
  with pytest.raises(files.UnreadableClip, match='no frames'):
    files.decode([], 16)


def spoil_frame(folder):
  path = folder / 'clip.1_19.jpg'
  path.write_bytes(path.read_bytes()[:-99])
  return folder, r'clip.1_19.jpg: cannot be decoded'


def empty(folder):
  for path in folder.iterdir():
    path.unlink()
  return folder, 'holds no frames, expected <anything>_<integer>.jpg'


def misnamed(folder):
  (folder / 'cover.jpg').write_bytes(b'')
  return folder, "'cover.jpg' is no frame name"


def pipe(folder):
  (folder / 'clip.1_0.jpg').unlink()
  os.mkfifo(folder / 'clip.1_0.jpg')
  return folder, 'clip.1_0.jpg: is no file'


def absent(folder):
  return folder / 'absent.mp4', 'no such folder or video file'


def text(folder):
  (folder / 'a.mp4').write_text('hello')
  return folder / 'a.mp4', 'is no video that can be read'


def cut_film(folder):
  path = pictures.write_video(folder / 'a.mp4', 9)
  path.write_bytes(path.read_bytes()[:-300])
  return path, 'is no video that can be read'


def slow_film(folder):
  # Of fewer frames a second than are asked for.
  return pictures.write_video(folder / 'a.mp4', 3, rate=1), 'expected 2 or more'


@pytest.mark.parametrize(
  'spoil',
  [spoil_frame, empty, misnamed, pipe, absent, text, cut_film, slow_film],
)
def test_unreadable(spoil, folder):
  path, message = spoil(folder)
  with pytest.raises(files.UnreadableClip, match=message) as e:
    files.read(path, size=16, max_frames=5, framerate=2)
  assert str(path) in str(e.value)


def test_no_frame_in_this_part(film):
  with pytest.raises(files.UnreadableClip, match='between 50 s and 60 s'):
    files.read(film, size=16, start=50, end=60)


@pytest.mark.parametrize(
  'options',
  [
    *(dict(select='x'), dict(order='x'), dict(transform='x')),
    *(dict(framerate=0), dict(max_frames=0), dict(start=1)),
  ],
)
def test_options_are_checked_before_files(options, tmp_path):
  with pytest.raises(ValueError, match='=') as e:
    files.read(tmp_path / 'absent', **options)
  assert not isinstance(e.value, files.UnreadableClip)


def touch(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b'')


def test_find(tmp_path):
  touch(tmp_path, 'a.mp4', 'a.avi', 'a/a_1.jpg', 'b.avi', 'b/b_1.jpg')
  touch(tmp_path, 'c/c_1.jpg', 'd', 'v.1.mp4', 'e.mkv')
  found = {key: files.find(tmp_path, key) for key in 'abcde'}
  assert [found[key] and found[key].name for key in 'abcde'] == [
    *('a.mp4', 'b.avi', 'c', 'd', None)
  ]
  assert files.find(tmp_path, 'v.1').name == 'v.1.mp4'
  (tmp_path / 'c' / 'x.mp4').write_bytes(b'')
  for key in ('', '.', '..', '../a', 'c/x', 'a\0', str(tmp_path / 'a')):
    assert files.find(tmp_path / 'c', key) is None


def test_index(tmp_path):
  touch(tmp_path, '0003_A/0003_A.00.01-00.02.avi', 'x/-4wsuPCjDBc_5_15.mp4')
  touch(tmp_path, 'x/k.avi', 'y/k.mkv', 'a/k.MP4', 'y/note.txt', 'b/k.mp4')
  touch(tmp_path, 'z/film/film_1.jpg', 'z/both/both_1.jpg', 'z/both.mkv')
  touch(tmp_path, 'd/clip.mov.mp4', 'd/1@N00.avi', 'top.mp4', 'y/top.mp4')
  touch(tmp_path, 'own/own.mp4', 'bare/note.txt')
  os.symlink(tmp_path, tmp_path / 'z' / 'loop')
  os.symlink(tmp_path / 'absent', tmp_path / 'dangling')
  index = files.Index(tmp_path)

  def name(key):
    found = index.find(key)
    return found and str(found.relative_to(tmp_path))

  assert name('0003_A.00.01-00.02') == '0003_A/0003_A.00.01-00.02.avi'
  assert name('-4wsuPCjDBc_5_15') == 'x/-4wsuPCjDBc_5_15.mp4'
  assert name('k') == 'a/k.MP4'
  assert name('film') == 'z/film'
  assert name('both') == 'z/both.mkv'
  assert name('top') == 'top.mp4'
  assert name('clip.mov') == 'd/clip.mov.mp4'
  assert name('1@N00.mp4') == 'd/1@N00.avi'
  assert name('own') == 'own/own.mp4' and name('bare') == 'bare'
  assert name('note') is None and name('0003_A.00') is None
  with pytest.raises(ValueError, match='no such folder'):
    files.Index(tmp_path / 'absent')
