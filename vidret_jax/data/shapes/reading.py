# SPDX-License-Identifier: Apache-2.0
"""Reads overlaid words from frames and subtitles from .srt files."""

import os
import pathlib
import re

import numpy as np

from vidret_jax.data import words
from vidret_jax.data.shapes import font

_LETTERS = sorted(font.GLYPHS)
_TEMPLATES = np.stack([font.GLYPHS[k].ravel() for k in _LETTERS])
_SRT_TIME = re.compile(r'(\d+):(\d+):(\d+)[,.](\d+)')


def overlaid_words(luma: np.ndarray, every: int = 4) -> list[str]:
  """Recognises words by matching every letter box with the alphabet.

  Args:
    luma: [t, h, w], brightness of the frames, 0 to 255.
    every: looks at every n-th frame.

  Returns:
    The words in order of first sight, each seen in at least two frames.
  """
  seen = {}
  for frame in luma[::every]:
    for word in _words_of(frame):
      seen[word] = seen.get(word, 0) + 1
  return [word for word, n in seen.items() if n > 1]


def _words_of(frame: np.ndarray) -> list[str]:
  """The words in one frame, at the two heights where captions are burnt in."""
  height, width = frame.shape
  tall = font.ROWS * font.SCALE
  pitch = (font.COLUMNS + 1) * font.SCALE
  found = []
  for top in (4, height - tall - 4):
    band = frame[top : top + tall]
    # Words are centred: the longest centred row of letters is the word.
    for count in range((width - 8) // pitch, 1, -1):
      word = _letters(band, count, pitch)
      if word:
        found.append(word)
        break
  return found


def _letters(band: np.ndarray, count: int, pitch: int) -> str:
  """Reads `count` letters of fixed pitch about the middle, or '' if not so."""
  start = (band.shape[1] - (count * pitch - font.SCALE)) // 2
  letters = []
  for i in range(count):
    x = start + i * pitch
    box = band[:, x : x + font.COLUMNS * font.SCALE]
    cells = box.reshape(font.ROWS, font.SCALE, font.COLUMNS, font.SCALE)
    bits = np.clip((cells.mean(axis=(1, 3)) - 60) / 150, 0, 1).ravel()
    miss = np.abs(_TEMPLATES - bits).mean(axis=1)
    if miss.min() > 0.15:
      return ''
    letters.append(_LETTERS[int(miss.argmin())])
  return ''.join(letters)


def subtitle_lines(
  path: str | os.PathLike | None,
) -> list[tuple[float, float, str]]:
  """(start, end, text) of every line of an .srt file, in seconds.

  Raises:
    ValueError: a block without a time line.
  """
  if path is None or not pathlib.Path(path).is_file():
    return []
  lines = []
  text = pathlib.Path(path).read_text(encoding='utf-8')
  for block in re.split(r'\n\s*\n', text.strip()):
    rows = block.splitlines()
    times = _SRT_TIME.findall(rows[1]) if len(rows) > 1 else []
    if len(times) != 2:
      raise ValueError(
        f'{path}: expected "number, start --> end, text" in {block!r}; '
        'delete the corpus folder to have it built again.'
      )
    start, end = (
      int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000
      for h, m, s, ms in times
    )
    lines.append((start, end, ' '.join(rows[2:])))
  return lines


def write_srt(path: str | os.PathLike, lines) -> None:
  """Writes (start, end, text) lines as an .srt file."""

  def stamp(seconds: float) -> str:
    ms = round(seconds * 1000)
    h, m, s = ms // 3600000, ms // 60000 % 60, ms // 1000 % 60
    return f'{h:02d}:{m:02d}:{s:02d},{ms % 1000:03d}'

  blocks = [
    f'{i}\n{stamp(start)} --> {stamp(end)}\n{text}\n'
    for i, (start, end, text) in enumerate(lines, 1)
  ]
  pathlib.Path(path).write_text('\n'.join(blocks), encoding='utf-8')


def spoken_words(path: str | os.PathLike | None) -> list[str]:
  """Tokens of all lines of an .srt file; none where there is no file."""
  lines = subtitle_lines(path)
  return [word for _, _, line in lines for word in words.tokenize(line)]
