# SPDX-License-Identifier: Apache-2.0
"""Frames at even times: against ffmpeg's own filters, and hostile files."""

import fractions

import av
import numpy as np
import pytest

from tests.data.frames import pictures
from vidret_jax.data.copies import video_frames
from vidret_jax.data.frames import video as video_lib


def ffmpeg(path, *filters):
  """RGB frames that ffmpeg's filters make of a video."""
  found = []
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    graph = av.filter.Graph()
    nodes = [graph.add_buffer(template=stream)]
    nodes += [graph.add(name, text) for name, text in filters]
    nodes.append(graph.add('buffersink'))
    for a, b in zip(nodes, nodes[1:]):
      a.link_to(b)
    graph.configure()

    def pull():
      while True:
        try:
          found.append(nodes[-1].pull().to_ndarray(format='rgb24'))
        except (av.error.BlockingIOError, av.error.EOFError):
          return

    for frame in container.decode(stream):
      graph.push(frame)
      pull()
    graph.push(None)
    pull()
  return found


def write_times(path, times, size=(48, 32)):
  """A video whose frame i is shown at times[i] milliseconds."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('mpeg4', rate=1000)
    stream.width, stream.height = size
    stream.bit_rate = 8_000_000
    stream.codec_context.time_base = fractions.Fraction(1, 1000)
    for i, time in enumerate(times):
      pixels = np.full((size[1], size[0], 3), pictures.grey_level(i), np.uint8)
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      frame.pts, frame.time_base = time, fractions.Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def shown(path, fps=1.0, **options):
  options = dict(min_frames=1) | options
  found = video_frames.read(path, fps=fps, resize=32, crop=28, **options)
  assert found.shape[1:] == (28, 28, 3) and found.dtype == np.uint8
  return pictures.numbers(found)


@pytest.mark.parametrize(
  'name, count, rate',
  [
    ('a.mp4', 23, 5),
    ('a.avi', 12, 5),
    ('a.mkv', 38, fractions.Fraction(24000, 1001)),
    ('a.mov', 3, 1),
  ],
)
def test_the_times_of_ffmpeg(name, count, rate, tmp_path):
  path = pictures.write_video(tmp_path / name, count, rate=rate)
  for fps in (1, 2.5, 0.5, 10):
    expected = pictures.numbers(np.stack(ffmpeg(path, ('fps', str(fps)))))
    assert shown(path, fps) == expected


def test_frames_of_uneven_times(tmp_path):
  """Pauses, and a file that starts late."""
  path = write_times(tmp_path / 'a.mkv', [0, 900, 1400, 5100, 5200, 6600])
  expected = pictures.numbers(np.stack(ffmpeg(path, ('fps', '1'))))
  assert shown(path) == expected == [0, 2, 2, 2, 2, 4, 4]
  late = write_times(tmp_path / 'b.mkv', [7000, 7400, 8600, 9700])
  assert shown(late) == [1, 1, 2]


def test_shorter_than_half_a_second(tmp_path):
  path = pictures.write_video(tmp_path / 'a.mp4', 2)
  assert ffmpeg(path, ('fps', '1')) == []
  assert shown(path) == [1]
  assert shown(path, min_frames=4) == [1] * 4


def test_repeated_until_long_enough(tmp_path):
  path = pictures.write_video(tmp_path / 'a.mp4', 3, rate=1)
  assert shown(path, min_frames=4) == [0, 1, 2] * 2
  assert shown(path, min_frames=13) == [0, 1, 2] * 8
  assert shown(path, min_frames=3) == [0, 1, 2]
  assert video_frames.read(path).shape == (6, 224, 224, 3)


def test_resized_and_cropped_as_ffmpeg_does(tmp_path):
  size = (86, 48)
  path = tmp_path / 'a.mp4'
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('mpeg4', rate=1)
    stream.width, stream.height = size
    stream.bit_rate = 8_000_000
    # Grey: how colours of half the resolution are blended is no matter here.
    grey = np.repeat(pictures.natural(48, 86)[..., :1], 3, -1)
    frame = av.VideoFrame.from_ndarray(grey, format='rgb24')
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
  [found] = video_frames.read(path, resize=37, crop=29, min_frames=1)
  # 86 * 37 / 48 is 66.3.
  assert video_frames.even_shape(*size, 37) == (68, 38)
  scale = ('scale', '68:38:flags=bicubic')
  [whole] = ffmpeg(path, scale, ('format', 'rgb24'))
  # (38 - 29) // 2 and (68 - 29) // 2.
  np.testing.assert_allclose(found.astype(int), whole[4:33, 19:48], atol=2)


@pytest.mark.parametrize('size, shape', [((48, 32), (384, 256))])
def test_sizes(size, shape):
  assert video_frames.even_shape(*size, 256) == shape
  assert video_frames.even_shape(*size[::-1], 256) == shape[::-1]
  assert video_frames.even_shape(640, 360, 256) == (456, 256)
  assert video_frames.even_shape(1920, 1080, 256) == (456, 256)
  assert video_frames.even_shape(3, 1001, 256) == (256, 85420)


def test_hostile_files(tmp_path):
  pause = write_times(tmp_path / 'a.mkv', [0, 5_000_000])
  with pytest.raises(video_lib.UnreadableVideo, match='lasts 5000 s'):
    shown(pause)
  with pytest.raises(video_lib.UnreadableVideo, match='more than 1 frame'):
    shown(write_times(tmp_path / 'b.mkv', [0, 3000]), max_frames=1)
  steps = write_times(tmp_path / 'c.mkv', [0, 600_000, 1_200_000])
  with pytest.raises(video_lib.UnreadableVideo, match='ticks from its start'):
    list(video_frames.ticks(steps, lambda frame: frame, fps=1000))
  noise = tmp_path / 'noise.mp4'
  noise.write_bytes(np.random.default_rng(0).bytes(4000))
  with pytest.raises(video_lib.UnreadableVideo, match='no video'):
    shown(noise)
  with pytest.raises(video_lib.UnreadableVideo, match='no video'):
    shown(tmp_path / 'absent.mp4')


def test_a_damaged_end(tmp_path):
  path = pictures.write_video(
    tmp_path / 'a.mp4', 38, options={'movflags': 'faststart'}, codec='mjpeg'
  )
  path.write_bytes(path.read_bytes()[: -path.stat().st_size // 2])
  found = shown(path)
  assert found == [2, 7, 12, 17, 22, 27, 32, 37][: len(found)] and found


@pytest.mark.parametrize(
  'options, part',
  [
    (dict(fps=0), 'fps=0'),
    (dict(fps=-1), 'fps=-1'),
    (dict(fps=float('nan')), 'fps=nan'),
    (dict(crop=300), 'crop=300'),
    (dict(crop=0), 'crop=0'),
  ],
)
def test_options(options, part, tmp_path):
  path = pictures.write_video(tmp_path / 'a.mp4', 2)
  with pytest.raises(ValueError, match=part):
    video_frames.read(path, **options)
