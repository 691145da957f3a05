# SPDX-License-Identifier: Apache-2.0
"""How long videos last: from tables, JSON, or the video files."""

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import folder as folder_lib
from vidret_jax.data import whole_files
from vidret_jax.data.frames import video as video_lib

MAX_SECONDS = 1e6
_COLUMNS = {
  'video': ('id', 'video', 'vid_name', 'video_id', 'name'),
  'seconds': ('length', 'duration', 'seconds'),
}


def read(paths: Sequence[str | os.PathLike]) -> dict[str, float]:
  """Video -> seconds, of tables (CSV with a header), JSON objects or folders.

  Columns are id and length, as in Charades_v1_train.csv, or other plain names
  for them; of a folder, its video files are looked at.

  Raises:
    ValueError: no such columns, a number that is none, or two durations of a
      video.
  """
  found = {}
  for path in map(pathlib.Path, paths):
    for name, value in _pairs(path):
      seconds = positive(value, f'{path}: duration of {name!r}')
      if found.setdefault(name, seconds) != seconds:
        raise ValueError(
          f'{path}: {name!r} lasts {seconds:g} s, but {found[name]:g} s '
          'before. Keep one of them.'
        )
  return found


def _pairs(path):
  if path.is_dir():
    for name in folder_lib.find(path):
      yield name.rpartition('.')[0], of_video(path / name)
  elif path.suffix.lower() == '.json':
    yield from whole_files.read_json(path, dict).items()
  else:
    for where, row in whole_files.read_table(path, _COLUMNS):
      yield row['video'], number(row['seconds'], where)


def of_video(path: pathlib.Path) -> float:
  """Seconds of a video file, by its frames and their rate.

  Raises:
    ValueError: it is none.
  """
  told = []

  def choose(facts, readable):
    told.append((facts.reported or readable) / facts.fps)
    return np.zeros(0, np.int64)  # Nothing is decoded.

  try:
    video_lib.read(path, choose, lambda pixels: pixels, 1)
  except video_lib.UnreadableVideo as error:
    raise ValueError(f'{path}: {error}.') from None
  return round(told[0], 3)


def look_up(durations: Mapping[str, float], name: str, where: str) -> float:
  """The duration of a video, whose name may have the ending of its file.

  Raises:
    ValueError: there is none.
  """
  found = durations.get(name, durations.get(name.rpartition('.')[0]))
  if found is None:
    raise ValueError(
      f'{where}: no duration of video {name!r} in the {len(durations)} that '
      '--durations gives.'
    )
  return found


def number(text: str, where: str) -> float:
  """Reads seconds.

  Raises:
    ValueError: they are none.
  """
  try:
    return float(text)
  except ValueError:
    raise ValueError(f'{where}: {text[:40]!r}, expected seconds.') from None


def positive(value: Any, where: str) -> float:
  """Checks seconds.

  Raises:
    ValueError: no number, or none above 0.
  """
  if type(value) not in (int, float) or not 0 < value <= MAX_SECONDS:
    raise ValueError(
      f'{where} is {repr(value)[:40]}, expected seconds above 0.'
    )
  return float(value)
