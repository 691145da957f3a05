# SPDX-License-Identifier: Apache-2.0
"""How long videos last."""

import json

import numpy as np
import pytest

from tests.data import frame_sets
from vidret_jax.data import video_seconds


def write(path, value):
  path.write_text(value if isinstance(value, str) else json.dumps(value))
  return path


def test_tables(tmp_path):
  a = write(tmp_path / 'a.json', {'x': 3, 'y': 2.5})
  b = write(tmp_path / 'b.csv', 'video,seconds\ny,2.5\nz,1\n')
  assert video_seconds.read([a, b]) == {'x': 3, 'y': 2.5, 'z': 1}
  write(b, 'video,seconds\ny,7\n')
  with pytest.raises(ValueError, match="b.csv: 'y' lasts 7 s, but 2.5"):
    video_seconds.read([a, b])


def test_videos(tmp_path):
  frames = np.zeros((12, 36, 48, 3), np.uint8)
  for name in ('a.avi', 'b.mp4'):
    frame_sets.write_video(tmp_path / name, frames)
  assert video_seconds.read([tmp_path]) == {'a': 2.4, 'b': 2.4}
  (tmp_path / 'c.mp4').write_text('no video')
  with pytest.raises(ValueError, match='c.mp4: is no video'):
    video_seconds.read([tmp_path])


def test_names_with_endings():
  assert video_seconds.look_up({'a': 2.0}, 'a.mov', 'here') == 2
  assert video_seconds.look_up({'a.mov': 3.0, 'a': 2.0}, 'a.mov', 'here') == 3
  with pytest.raises(ValueError, match="here: no duration of video 'b'"):
    video_seconds.look_up({'a': 2.0}, 'b', 'here')


@pytest.mark.parametrize(
  'name, text, part',
  [
    ('a.csv', 'id,scene\nx,y\n', "columns ['id', 'scene']"),
    ('a.csv', 'id,length\nx,y\n', "a.csv:2: 'y', expected"),
    ('a.csv', 'id,length\nx\n', 'a.csv:2'),
    ('a.csv', 'id,length\nx,-3\n', "duration of 'x'"),
    ('a.json', '[]', 'JSON object'),
    ('a.json', '{"x": "y"}', "duration of 'x'"),
  ],
)
def test_bad_durations(tmp_path, name, text, part):
  with pytest.raises(ValueError) as error:
    video_seconds.read([write(tmp_path / name, text)])
  assert part in str(error.value)
