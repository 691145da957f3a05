# SPDX-License-Identifier: Apache-2.0
"""Subtitle files of players (.srt, .vtt) and the JSON lines made of them.

A line is {"vid_name": ..., "sub": [{"text", "start", "end"}, ...]}, seconds,
as `preprocess_subtitles.py` of TVRetrieval writes it.
"""

from collections.abc import Iterator
import html
import os
import pathlib
import re
from typing import Any

import numpy as np

from vidret_jax.data import clip_files, whole_files

SUFFIXES = ('.srt', '.vtt')
_TIME = r'(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})'
_SPAN = re.compile(rf'\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$')
_TAG = re.compile(r'</?[a-zA-Z][^<>]*>|<\d[\d:.]*>')
_MAX_LINE = 10_000  # Characters; bounds what the expressions look at.
_MAX_SECONDS = 1e6


def clean(text: str) -> str:
  """The text of a sentence as the encoders see it.

  Line ends and parentheses become spaces, colons stand alone, runs of white
  space become one space (`clean_single_sub_sentence`).
  """
  text = re.sub(r'[\n()]', ' ', text).replace(':', ' : ')
  return re.sub(r'\s{2,}', ' ', text)


def read(
  path: str | os.PathLike, *, hours: bool = True, encoding: str | None = None
) -> list[dict[str, Any]]:
  """Reads one subtitle file.

  Args:
    path: ends with .srt or .vtt.
    hours: count them; the original takes minutes, seconds and milliseconds
      only.
    encoding: None for UTF-8, or Latin-1 if it is none.

  Returns:
    Dicts of text, start and end, in the order of the file.

  Raises:
    ValueError: a line of times that cannot be understood, an end before its
      start, no sentence at all, or bytes that are no text.
  """
  path = pathlib.Path(path)
  text = _decode(path, encoding).replace('\r\n', '\n').replace('\r', '\n')
  is_vtt = path.suffix.lower() == '.vtt'
  found = []
  for number, block in _blocks(text):
    arrow = next((i for i, x in enumerate(block[:2]) if '-->' in x), None)
    if arrow is None:
      if not is_vtt:  # In .vtt it is a header or a note.
        if not found:
          _bad_times(path, number, block[0])
        # What follows an empty line within a sentence.
        found[-1]['text'] = clean(found[-1]['text'] + '\n' + '\n'.join(block))
      continue
    match = _SPAN.match(block[arrow][:_MAX_LINE])
    if not match:
      _bad_times(path, number + arrow, block[arrow])
    start = _seconds(match.groups()[:4], hours)
    end = _seconds(match.groups()[4:], hours)
    if end < start:
      raise ValueError(
        f'{path}:{number + arrow}: ends at {end:g} s, before its start at '
        f'{start:g} s. Correct the file'
        + ('.' if hours else ', or count hours.')
      )
    said = '\n'.join(block[arrow + 1 :])
    if is_vtt:  # Marks of voices, styles and word times are no words.
      said = html.unescape(_TAG.sub('', said))
    found.append({'text': clean(said), 'start': start, 'end': end})
  if not found:
    raise ValueError(
      f'{path}: no sentence; expected blocks of a line of times, such as '
      '00:00:01,500 --> 00:00:03,000, and lines of text.'
    )
  return found


def _decode(path, encoding):
  raw = path.read_bytes()
  try:
    return raw.decode(encoding or 'utf-8-sig')
  except UnicodeDecodeError as error:
    if encoding is None:
      return raw.decode('latin-1')
    raise ValueError(
      f'{path}: is not {encoding} ({error}). Give its --encoding.'
    ) from None
  except LookupError:
    raise ValueError(f'--encoding {encoding}: not known to Python.') from None


def _blocks(text) -> Iterator[tuple[int, list[str]]]:
  """Yields (line number, lines) of what empty lines separate."""
  block, began = [], 1
  for number, line in enumerate(text.split('\n'), 1):
    if line.strip():
      began = began if block else number
      block.append(line)
    elif block:
      yield began, block
      block = []
  if block:
    yield began, block


def _bad_times(path, number, line):
  raise ValueError(
    f'{path}:{number}: {line[:80]!r} is no line of times; expected such as '
    '00:00:01,500 --> 00:00:03,000.'
  )


def _seconds(parts, hours):
  hour, minute, second, fraction = parts
  # Three digits are the rule; fewer are read as decimals of a second.
  thousandths = int(fraction.ljust(3, '0'))
  total = 60 * int(minute) + int(second) + 0.001 * thousandths
  return total + 3600 * int(hour or 0) if hours else total


def files_of(folder: str | os.PathLike) -> dict[str, pathlib.Path]:
  """Video name -> subtitle file, in the order of names.

  Raises:
    ValueError: none, or two for a video.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise FileNotFoundError(f'{folder}: no such folder of subtitles.')
  found = {}
  for path in sorted(folder.iterdir()):
    if path.suffix.lower() in SUFFIXES and path.is_file():
      name = clip_files.check_key(path.stem, str(path))
      if name in found:
        raise ValueError(
          f'{folder}: {found[name].name} and {path.name} are both of video '
          f'{name!r}. Keep one of them.'
        )
      found[name] = path
  if not found:
    raise ValueError(
      f'{folder}: no subtitle file; expected <video>.srt or <video>.vtt.'
    )
  return found


def read_lines(path: str | os.PathLike) -> Iterator[tuple[str, list[dict]]]:
  """Yields (video, sentences) of a file of subtitles as JSON lines.

  Raises:
    ValueError: a line that is not as expected, or a video twice.
  """
  seen = set()
  for where, row in whole_files.read_lines(path, ('vid_name', 'sub')):
    name, said = row['vid_name'], row['sub']
    if not isinstance(name, str) or not isinstance(said, list):
      raise ValueError(
        f'{where}: expected vid_name as a string and sub as a list, found '
        f'{type(name).__name__} and {type(said).__name__}.'
      )
    clip_files.check_key(name, where)
    if name in seen:
      raise ValueError(
        f'{where}: video {name!r} was there before. Keep one line of it.'
      )
    seen.add(name)
    for i, sentence in enumerate(said):
      _check(sentence, f'{where}: sentence {i} of {name!r}')
    yield name, said


def _check(sentence, where):
  if not isinstance(sentence, dict) or not isinstance(
    sentence.get('text'), str
  ):
    raise ValueError(
      f'{where} is {str(sentence)[:80]!r}, expected an object with text, start '
      'and end.'
    )
  times = [sentence.get(k) for k in ('start', 'end')]
  if (
    any(type(t) not in (int, float) for t in times)
    or not 0 <= times[0] <= times[1] <= _MAX_SECONDS
  ):
    raise ValueError(
      f'{where} lasts from {times[0]!r} to {times[1]!r}, expected seconds, 0 '
      '<= start <= end.'
    )


def times(said: list[dict]) -> np.ndarray:
  """float32 [sentences, 2] start and end of the sentences of a video."""
  return np.array([(x['start'], x['end']) for x in said], np.float32).reshape(
    -1, 2
  )
