# SPDX-License-Identifier: Apache-2.0
"""The videos of a dataset: `<name>_video2dur_idx.json`, or the annotations.

{split: {video: [seconds, number]}}. The order of a split is the order in which
its videos are encoded and reported.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from vidret_jax.data import clip_files
from vidret_jax.data.moments import layout as layout_lib

MAX_SECONDS, _MAX_NUMBER = 1e6, 2**53  # JSON numbers are exact up to there.


@dataclasses.dataclass(frozen=True)
class Video:
  """One video.

  Attributes:
    seconds: it lasts.
    number: its id in prediction files, `video_idx`.
  """

  seconds: float
  number: int


def read(path: pathlib.Path) -> dict[str, dict[str, Video]]:
  """Reads the file of all splits.

  Returns:
    split -> video -> what is known of it, in the file's order.

  Raises:
    ValueError: not such a file, or a number or video that is there twice.
  """
  try:
    with open(path, encoding='utf-8') as stream:
      found = json.load(stream, object_pairs_hook=lambda x: _once(path, x))
  except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
    raise ValueError(
      f'{path}: cannot be read as JSON ({str(error)[:200]}). Fetch it again.'
    ) from None
  if not isinstance(found, dict):
    raise ValueError(
      f'{path}: expected {{split: {{video: [seconds, number]}}}}, found '
      f'{type(found).__name__}.'
    )
  out, owners = {}, {}
  for split, videos in found.items():
    if not isinstance(videos, dict):
      raise ValueError(
        f'{path}: split {split[:60]!r} is {type(videos).__name__}, expected '
        '{video: [seconds, number]}.'
      )
    known = out[layout_lib.canonical(split)] = {}
    for name, value in videos.items():
      where = f'{path}: video {name[:120]!r} of split {split[:60]!r}'
      video = known[clip_files.check_key(name, where)] = _video(value, where)
      other = owners.setdefault(video.number, name)
      if other != name:
        raise ValueError(
          f'{where}: number {video.number} is that of {other!r}, too; expected '
          'a number of its own for every video.'
        )
  return out


def _once(path, pairs) -> dict[str, Any]:
  out = {}
  for key, value in pairs:
    if key in out:
      raise ValueError(
        f'{path}: {key[:120]!r} is there twice; expected each video once in '
        'its split. Remove one.'
      )
    out[key] = value
  return out


def _video(value, where) -> Video:
  if not isinstance(value, list) or len(value) != 2:
    raise ValueError(
      f'{where}: {str(value)[:60]!r}, expected [seconds, number].'
    )
  if type(value[1]) is not int or not 0 <= value[1] < _MAX_NUMBER:
    raise ValueError(
      f'{where}: number {str(value[1])[:20]!r}, expected an integer from 0 on.'
    )
  return Video(seconds(value[0], where), value[1])


def seconds(value: Any, where: str) -> float:
  """Checks a duration.

  Raises:
    ValueError: no positive number.
  """
  if type(value) not in (int, float) or not 0 < value <= MAX_SECONDS:
    raise ValueError(
      f'{where}: duration {str(value)[:20]!r}, expected seconds above 0 and up '
      f'to {MAX_SECONDS:g}.'
    )
  return float(value)


def of_rows(
  rows: Sequence[tuple[str, Mapping[str, Any]]],
) -> dict[str, Video]:
  """Videos of annotations, numbered in the order of their first rows.

  Args:
    rows: ('file:line', row), see `annotations.read`.

  Raises:
    ValueError: rows without video or duration, or two durations of a video.
  """
  out = {}
  for where, row in rows:
    if 'vid_name' not in row or 'duration' not in row:
      raise ValueError(
        f'{where}: without a file of durations, each row needs vid_name and '
        "duration. Add them, or name the file with paths=dict(durations='...')."
      )
    name, length = row['vid_name'], float(row['duration'])
    video = out.setdefault(name, Video(length, len(out)))
    if video.seconds != length:
      raise ValueError(
        f'{where}: video {name!r} lasts {length} s here and {video.seconds} s '
        'in an earlier row; expected one duration. Correct one of them.'
      )
  return out
