# SPDX-License-Identifier: Apache-2.0
"""Frames of videos at even times, and their features.

Half of `clip_features`: from video files to the frame features that its `pool`
turns into clips.
"""

import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import (
  clip_features,
  clip_files,
  clip_pooling,
  whole_files,
)
from vidret_jax.data import (
  folder as folder_lib,
)
from vidret_jax.data.frames import transform as transform_lib
from vidret_jax.data.frames import video as video_lib

_BATCH = 32  # Frames that are encoded together.


def read(
  path: pathlib.Path,
  *,
  fps: float,
  first: float,
  max_seconds: float,
  size: int,
) -> np.ndarray:
  """Frames at first, first + 1 / fps, ... seconds of a video.

  Of each time, what is shown then: the last frame that begins before it.

  Args:
    path: of the file.
    fps: frames per second to take.
    first: time of frame 0.
    max_seconds: where to stop.
    size: height and width, after a centre crop.

  Returns:
    uint8 [n, size, size, 3] RGB, n at least 1.

  Raises:
    video_lib.UnreadableVideo: it cannot be decoded.
  """
  limit = clip_pooling.frame_limit(fps, first, max_seconds)

  def choose(facts, readable):
    times = first + np.arange(limit) / fps
    # Rounding must not fall into the frame before.
    numbers = np.floor(times * facts.fps + 1e-6).astype(np.int64)
    found = numbers[numbers < readable]
    return found if len(found) else np.zeros(min(1, readable), np.int64)

  def finish(pixels):
    return transform_lib.resize(pixels, size)

  frames = video_lib.read(path, choose, finish, size)
  if not frames:
    raise video_lib.UnreadableVideo('not one frame can be decoded')
  return np.stack(frames)


def features(
  encoder: Any,
  videos: clip_features.Path,
  out: clip_features.Path,
  *,
  fps: float = 3.0,
  first: float = 0.1,
  max_seconds: float = 300.0,
  overwrite: bool = False,
  report: clip_features.Report = lambda done, total: None,
) -> clip_features.Made:
  """Frame features of all videos of a folder, by file name without ending.

  Args:
    encoder: has `image_size` and `frames(uint8 [n, r, r, 3])`, which returns
      float32 [n, d].
    videos: folder of files. Those that cannot be read are left out and named.
    out: file to be written.
    fps: frames per second.
    first: time of frame 0 in seconds.
    max_seconds: videos are cut here.
    overwrite: replace `out`.
    report: called with (done, total).

  Raises:
    ValueError: no videos, two of one name, or none that can be read.
  """
  whole_files.refuse_existing(out, overwrite)
  clip_features.check_times(fps, first, max_seconds)
  made = clip_features.Made(pathlib.Path(out))
  files = _files(videos)
  unreadable = []
  with whole_files.create_hdf5(out, overwrite) as target:
    for name in clip_features.counted(files, report):
      try:
        pixels = read(
          *(files[name],),
          fps=fps,
          first=first,
          max_seconds=max_seconds,
          size=encoder.image_size,
        )
      except (video_lib.UnreadableVideo, transform_lib.UnreadableImage) as e:
        unreadable.append(f'{files[name]} ({e})')
        continue
      parts = [
        encoder.frames(pixels[start : start + _BATCH])
        for start in range(0, len(pixels), _BATCH)
      ]
      rows = np.concatenate(parts)
      target.create_dataset(name, data=rows)
      made.add(rows)
    if not made.names:
      raise ValueError(
        f'{videos}: none of the {len(files)} videos can be read, such as '
        f'{unreadable[0]}.'
      )
  made.note('videos cannot be read and are left out', unreadable)
  return made


def _files(folder):
  found = {}
  for path in folder_lib.find(folder):
    file = pathlib.Path(folder, path)
    name = clip_files.check_key(path.rpartition('.')[0], str(file))
    if name in found:
      raise ValueError(
        f'{folder}: {found[name].name} and {file.name} are both {name!r}. '
        'Rename one of them.'
      )
    found[name] = file
  if not found:
    raise ValueError(f'{folder}: no videos; expected files such as a.mp4.')
  return found
