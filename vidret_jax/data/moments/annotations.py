# SPDX-License-Identifier: Apache-2.0
"""Sentences and their moments: `<name>_<split>_release.jsonl`.

One JSON object per line: desc_id, desc and, unless the split is hidden,
vid_name and ts; type and duration where they are known.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from vidret_jax.data import clip_files, whole_files
from vidret_jax.data.moments import durations

KINDS = ('v', 't', 'vt')
_MAX_ID = 2**53  # JSON numbers are exact up to there.
_KEYS = ('desc_id', 'desc', 'vid_name', 'ts', 'type', 'duration')

Row = Mapping[str, Any]


def read(path: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
  """Reads the rows of a split.

  Returns:
    ('file:line', row) of each, in the file's order; a row has those of the keys
    above that are known, as in the file.

  Raises:
    ValueError: a line that is no such row, an id that is there twice, no rows,
      or some rows with an answer and some without.
  """
  out, seen = [], {}
  for where, found in whole_files.read_lines(path, ('desc_id', 'desc')):
    row = {k: found[k] for k in _KEYS if found.get(k) is not None}
    _check(row, where)
    other = seen.setdefault(row['desc_id'], where)
    if other != where:
      raise ValueError(
        f'{where}: desc_id {row["desc_id"]} is that of {other}, too; expected '
        'an id of its own for every query. Renumber one of them.'
      )
    out.append((where, row))
  if not out:
    raise ValueError(f'{path}: no queries. Fetch it again.')
  hidden = [where for where, row in out if 'vid_name' not in row]
  if hidden and len(hidden) < len(out):
    raise ValueError(
      f'{hidden[0]}: no vid_name, but other rows of the file have one; '
      'expected it in all rows, or in none of a hidden test set.'
    )
  return out


def _check(row, where) -> None:
  name = row.get('desc_id')
  if type(name) is not int or not 0 <= name < _MAX_ID:
    raise ValueError(
      f'{where}: desc_id is {str(name)[:40]!r} ({type(name).__name__}), '
      'expected an integer from 0 on. It is the key of the query features and '
      'of prediction files.'
    )
  text = row.get('desc')
  if not isinstance(text, str) or not text.strip() or not _is_text(text):
    raise ValueError(
      f'{where}: desc is {str(text)[:60]!r}, expected a sentence.'
    )
  if ('vid_name' in row) != ('ts' in row):
    has, lacks = ('vid_name', 'ts') if 'vid_name' in row else ('ts', 'vid_name')
    raise ValueError(
      f'{where}: {has} without {lacks}; expected both, or none of them in a '
      'hidden test set.'
    )
  if 'vid_name' in row:
    video = row['vid_name']
    if not isinstance(video, str) or not _is_text(video):
      raise ValueError(
        f'{where}: vid_name is {str(video)[:60]!r}, expected a string.'
      )
    clip_files.check_key(video, where)
    spans(row, where)
  if 'type' in row and row['type'] not in KINDS:
    raise ValueError(
      f'{where}: type is {str(row["type"])[:40]!r}, expected one of {KINDS}, '
      'or no type.'
    )
  if 'duration' in row:
    durations.seconds(row['duration'], where)


def spans(row: Row, where: str = '') -> list[tuple[float, float]]:
  """Start and end of the moment in seconds, by each annotator.

  Args:
    row: with ts, two numbers or a list of such pairs.
    where: for errors.

  Raises:
    ValueError: something else, an end before its start, or numbers below 0 or
      not finite.
  """
  ts = row['ts']
  several = isinstance(ts, list) and ts and isinstance(ts[0], list)
  out = []
  for pair in ts if several else [ts]:
    if (
      not isinstance(pair, list)
      or len(pair) != 2
      or any(type(t) not in (int, float) for t in pair)
      or not all(abs(t) <= durations.MAX_SECONDS for t in pair)  # Nor NaN.
    ):
      raise ValueError(
        f'{where}: ts is {str(ts)[:80]}, expected [start, end] in seconds, or '
        'a list of such pairs of several annotators.'
      )
    if not 0 <= pair[0] <= pair[1]:
      raise ValueError(
        f'{where}: the moment lasts from {pair[0]} to {pair[1]} s, expected '
        '0 <= start <= end. Correct or remove the row.'
      )
    out.append((float(pair[0]), float(pair[1])))
  return out


def check_videos(
  rows: Sequence[tuple[str, Row]],
  videos: Mapping[str, durations.Video],
  *,
  slack: float,
  source: str,
  others: Mapping[str, str],
) -> int:
  """Compares annotations with the videos of their split.

  Args:
    rows: see `read`.
    videos: video -> its duration.
    slack: seconds that a moment may reach beyond its video, and that two
      durations of it may differ.
    source: of the durations, for errors.
    others: video -> other split that has it, for errors.

  Returns:
    The number of moments that end beyond their video, within the slack. They
    stay as they are: an evaluation takes what was annotated, and labels are
    never beyond the last clip.

  Raises:
    ValueError: an unknown video, another duration, or a moment outside.
  """
  beyond = 0
  for where, row in rows:
    name = row.get('vid_name')
    if name is None:
      continue
    if name not in videos:
      split = others.get(name)
      found = f' (it is in split {split!r})' if split else ''
      raise ValueError(
        f'{where}: video {name!r} is not among the {len(videos)} of this split '
        f'in {source}{found}. Add it there, or remove the row.'
      )
    lasts = videos[name].seconds
    if abs(row.get('duration', lasts) - lasts) > slack:
      raise ValueError(
        f'{where}: video {name!r} lasts {row["duration"]} s, but {lasts} s in '
        f'{source}. Correct one of them.'
      )
    end = max(end for _, end in spans(row, where))
    if end > lasts + slack:
      raise ValueError(
        f'{where}: the moment ends at {end} s, but video {name!r} lasts '
        f'{lasts} s; expected it inside, give or take {slack:g} s. Correct the '
        'row, or allow more with span_slack=<clips> in the data of the config.'
      )
    beyond += end > lasts
  return beyond


def _is_text(value: str) -> bool:
  """Whether it can be stored: JSON can hold halves of characters."""
  try:
    value.encode('utf-8')
  except UnicodeEncodeError:
    return False
  return True
