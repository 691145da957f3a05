# SPDX-License-Identifier: Apache-2.0
"""Moment annotations as they are published.

Reads ActivityNet Captions (arXiv 1705.00754), Charades-STA (arXiv 1705.02101)
and DiDeMo (arXiv 1708.01641), and tables of your own; `moment_release` brings
them into one form.
"""

from collections.abc import Mapping
import os
import re

from vidret_jax.data import clip_files, video_seconds, whole_files
from vidret_jax.data.moment_release import Query

DIDEMO_SEGMENT = 5.0  # Seconds.
DIDEMO_SECONDS = 30.0  # Only this much of a video was annotated.
_CHARADES = re.compile(r'(\S+) +(\S+) +(\S+?)##(.*)')
_OWN = {
  'video': ('video', 'vid_name', 'video_id', 'id'),
  'start': ('start', 'begin'),
  'end': ('end', 'stop'),
  'text': ('sentence', 'desc', 'description', 'query', 'caption', 'text'),
}
_OWN_DURATION = {'duration': ('duration', 'length', 'seconds')}

Path = str | os.PathLike


def activitynet(path: Path) -> list[Query]:
  """Reads {video: {duration, timestamps, sentences}}.

  Raises:
    ValueError: a video without as many times as sentences, or numbers that are
      none.
  """
  found = []
  for name, value in whole_files.read_json(path, dict).items():
    where = f'{path}: video {name!r}'
    clip_files.check_key(name, where)
    keys = ('duration', 'timestamps', 'sentences')
    if not isinstance(value, dict) or any(k not in value for k in keys):
      raise ValueError(
        f'{where} is {str(value)[:80]!r}, expected an object with {list(keys)}.'
      )
    duration = video_seconds.positive(value['duration'], f'{where}: duration')
    times, texts = value['timestamps'], value['sentences']
    if (
      not isinstance(times, list)
      or not isinstance(texts, list)
      or len(times) != len(texts)
    ):
      raise ValueError(
        f'{where}: timestamps and sentences do not belong together; expected '
        'two lists of one length.'
      )
    for i, (span, text) in enumerate(zip(times, texts)):
      span = _span(span, f'{where}: timestamp {i}')
      text = _text(text, f'{where}: sentence {i}')
      found.append(Query(name, text, duration, (span,)))
  return _some(found, path)


def charades(path: Path, durations: Mapping[str, float]) -> list[Query]:
  """Reads lines of "VIDEO START END##sentence".

  Args:
    path: of charades_sta_train.txt or charades_sta_test.txt.
    durations: video -> seconds; see `video_seconds`.

  Raises:
    ValueError: a line of another form, or a video without duration.
  """
  found = []
  for number, line in enumerate(whole_files.text_lines(path), 1):
    if not line.strip():
      continue
    where = f'{path}:{number}'
    match = _CHARADES.fullmatch(line.strip())
    if not match:
      raise ValueError(
        f'{where}: {line.strip()[:80]!r}, expected VIDEO START END##sentence.'
      )
    name, start, end, text = match.groups()
    clip_files.check_key(name, where)
    times = [video_seconds.number(x, where) for x in (start, end)]
    span = _span(times, f'{where}: moment')
    duration = video_seconds.look_up(durations, name, where)
    found.append(Query(name, _text(text, where), duration, (span,)))
  return _some(found, path)


def didemo(
  path: Path, durations: Mapping[str, float] | None = None
) -> list[Query]:
  """Reads a list of {annotation_id, description, video, times}.

  Args:
    path: of train_data.json, val_data.json or test_data.json. Times are first
      and last segment of five seconds, by each annotator.
    durations: video -> seconds; None: as many segments as a row tells
      (`num_segments`), or six. More than 30 s count as 30 s.

  Raises:
    ValueError: a row without these keys, segments that are none, or a video
      without duration.
  """
  found = []
  rows = whole_files.read_json(path, list)
  lengths = {} if durations is None else dict(durations)
  for i, row in enumerate(rows):
    where = f'{path}: entry {i}'
    keys = ('description', 'video', 'times')
    if not isinstance(row, dict) or any(k not in row for k in keys):
      raise ValueError(
        f'{where} is {str(row)[:80]!r}, expected an object with {list(keys)}.'
      )
    name = row['video']
    if not isinstance(name, str):
      raise ValueError(f'{where}: video is {str(name)[:40]!r}, not a string.')
    clip_files.check_key(name, where)
    if durations is None:
      count = row.get('num_segments', DIDEMO_SECONDS / DIDEMO_SEGMENT)
      count = video_seconds.positive(count, f'{where}: num_segments')
      lengths.setdefault(name, min(count * DIDEMO_SEGMENT, DIDEMO_SECONDS))
    duration = min(video_seconds.look_up(lengths, name, where), DIDEMO_SECONDS)
    spans = tuple(_segments(row['times'], where))
    text = _text(row['description'], where)
    found.append(Query(name, text, duration, spans))
  return _some(found, path)


def _segments(times, where):
  last = int(DIDEMO_SECONDS / DIDEMO_SEGMENT) - 1
  if not isinstance(times, list) or not times:
    raise ValueError(f'{where}: times is {str(times)[:60]}, expected a list.')
  for pair in times:
    if (
      not isinstance(pair, list)
      or len(pair) != 2
      or any(type(x) is not int for x in pair)
      or not 0 <= pair[0] <= pair[1] <= last
    ):
      raise ValueError(
        f'{where}: times has {str(pair)[:60]}, expected first and last segment '
        f'from 0 to {last}.'
      )
    yield DIDEMO_SEGMENT * pair[0], DIDEMO_SEGMENT * (pair[1] + 1)


def own(
  path: Path, durations: Mapping[str, float] | None = None
) -> list[Query]:
  """Reads a table of your own: video, start, end, sentence.

  Args:
    path: CSV with a header; times are seconds.
    durations: video -> seconds; None: of a column `duration`.

  Raises:
    ValueError: a column is absent, or a number is none.
  """
  found = []
  columns = _OWN if durations is not None else _OWN | _OWN_DURATION
  for where, row in whole_files.read_table(path, columns):
    name = clip_files.check_key(row['video'], where)
    times = [video_seconds.number(row[k], where) for k in ('start', 'end')]
    if durations is None:
      length = video_seconds.number(row['duration'], where)
      length = video_seconds.positive(length, f'{where}: duration')
    else:
      length = video_seconds.look_up(durations, name, where)
    span = _span(times, f'{where}: moment')
    found.append(Query(name, _text(row['text'], where), length, (span,)))
  return _some(found, path)


def _span(value, where):
  if (
    not isinstance(value, list)
    or len(value) != 2
    or any(type(x) not in (int, float) for x in value)
    or not all(0 <= x <= video_seconds.MAX_SECONDS for x in value)
  ):
    raise ValueError(
      f'{where} is {str(value)[:60]}, expected [start, end] in seconds.'
    )
  return float(value[0]), float(value[1])


def _text(value, where):
  if not isinstance(value, str) or not value.strip():
    raise ValueError(f'{where}: {str(value)[:40]!r} is no sentence.')
  return value.strip()


def _some(found, path):
  if not found:
    raise ValueError(f'{path}: no annotations. Fetch it again.')
  return found
