# SPDX-License-Identifier: Apache-2.0
"""Frames of video files by number; damaged and hostile files."""

import os
import struct

import av
import numpy as np
import pytest

from tests.data.frames import pictures
from vidret_jax.data.frames import video


def read(path, wanted=None, seen=None):
  """Numbers that the frames show, and the facts."""
  found = []

  def choose(facts, readable):
    found.append((facts, readable))
    return np.arange(readable) if wanted is None else np.array(wanted)

  frames = video.read(path, choose, lambda pixels: pixels, 32)
  return pictures.numbers(np.stack(frames)), found


@pytest.mark.parametrize(
  'name, options',
  [
    ('a.avi', dict(codec='mjpeg')),
    ('a.avi', dict(gop_size=4)),
    ('a.mp4', dict(gop_size=12, max_b_frames=2)),
    ('a.mkv', dict(gop_size=12, max_b_frames=2)),
    ('a.mov', dict(rate=30)),
  ],
)
def test_frames_by_number(name, options, tmp_path):
  path = pictures.write_video(tmp_path / name, 23, **options)
  shown, [(facts, readable)] = read(path)
  assert shown == list(range(23))
  assert (facts.fps, facts.reported, readable) == (
    *(options.get('rate', 5), 23, 23),
  )
  # Any order, repeats; nothing behind the last one is decoded.
  assert read(path, [7, 0, 7, 3])[0] == [7, 0, 7, 3]


def test_upright(tmp_path):
  """A file that says it was filmed with the camera turned."""
  path = pictures.write_video(tmp_path / 'a.mp4', 2)
  raw, one = path.read_bytes(), 1 << 16
  plain = struct.pack('>9i', one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
  turned = struct.pack('>9i', 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
  at = raw.index(plain, raw.index(b'tkhd'))
  path.write_bytes(raw[:at] + turned + raw[at + len(plain) :])
  shapes = video.read(path, lambda *_: np.arange(1), np.shape, 32)
  assert shapes == [(48, 32, 3)]


def test_ends_before_its_header_says(tmp_path):
  path = pictures.write_video(
    tmp_path / 'a.mp4', 23, options={'movflags': 'faststart'}, codec='mjpeg'
  )
  raw = path.read_bytes()
  path.write_bytes(raw[: len(raw) * 2 // 3])
  shown, found = read(path)
  readable = [n for _, n in found]
  assert readable[0] == 23 and 1 < readable[-1] < 23
  assert shown == list(range(readable[-1]))


def wrong_fourcc(path):
  raw = pictures.write_video(path, 3, codec='mjpeg').read_bytes()
  path.write_bytes(raw.replace(b'MJPG', b'ZZZZ'))


def not_one_frame(path):
  raw = pictures.write_video(path, 3, codec='mjpeg').read_bytes()
  start, end = raw.index(b'movi') + 4, raw.index(b'idx1')
  path.write_bytes(raw[:start] + bytes(end - start) + raw[end:])


def only_sound(path):
  with av.open(str(path), 'w', format='avi') as container:
    stream = container.add_stream('pcm_s16le', rate=8000)
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 800), np.int16), format='s16', layout='mono'
    )
    frame.rate = 8000
    container.mux(stream.encode(frame))


def no_index(path):
  """The end of an mp4, with the index that the frames are found by, is cut."""
  mp4 = pictures.write_video(path.with_suffix('.mp4'), 9)
  path.write_bytes(mp4.read_bytes()[:-300])


def playlist(path):
  other = pictures.write_video(path.with_suffix('.ts'), 9, codec='mpeg2video')
  path.write_text(
    '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n'
    + other.name
    + '\n#EXT-X-ENDLIST\n'
  )


def script(path):
  other = pictures.write_video(path.with_suffix('.mp4'), 9)
  path.write_text(f"ffconcat version 1.0\nfile '{other.name}'\n")


def huge(path):
  """Frames of 20 000 x 10 000, by the headers of the stream and the JPEGs."""
  raw = pictures.write_video(path, 3, codec='mjpeg').read_bytes()
  at = raw.index(b'strf') + 8  # BITMAPINFOHEADER: size, width, height.
  raw = raw[: at + 4] + struct.pack('<ii', 20_000, 10_000) + raw[at + 12 :]
  at = raw.index(b'\xff\xc0')
  small = raw[at : at + 9]
  large = small[:5] + struct.pack('>HH', 10_000, 20_000)
  path.write_bytes(raw.replace(small, large))


@pytest.mark.parametrize(
  'write, message',
  [
    (lambda p: p.write_bytes(b''), 'is empty'),
    (os.mkfifo, 'is no file'),  # Nothing waits for who might write into it.
    (lambda p: p.write_bytes(os.urandom(999)), 'no video that can be read'),
    (lambda p: p.write_text('hello'), 'no video that can be read'),
    (wrong_fourcc, 'unknown way'),
    (not_one_frame, 'not one frame can be decoded'),
    (only_sound, 'no video stream'),
    (no_index, 'no video that can be read'),
    (playlist, 'no video that can be read'),
    (script, 'no video that can be read'),
    (huge, '20000 x 10000'),
  ],
)
def test_refuses(write, message, tmp_path):
  path = tmp_path / 'clip.avi'
  write(path)
  with pytest.raises(video.UnreadableVideo, match=message):
    read(path)


@pytest.mark.parametrize('seed', range(40))
def test_random_damage_gives_frames_or_the_error(seed, tmp_path):
  path = tmp_path / ('a.avi' if seed % 2 else 'a.mp4')
  raw = bytearray(pictures.write_video(path, 9).read_bytes())
  rng = np.random.default_rng(seed)
  for at in rng.integers(0, len(raw), 30):
    raw[at] = rng.integers(256)
  path.write_bytes(raw)
  try:
    frames = video.read(path, lambda _, n: np.arange(min(n, 99)), np.shape, 32)
  except video.UnreadableVideo:
    return
  assert all(len(shape) == 3 for shape in frames)
