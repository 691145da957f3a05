# SPDX-License-Identifier: Apache-2.0
"""Draws a contact sheet of `shapes`: frames over time, captions below.

python -m vidret_jax.tools.contact_sheet --out docs/images/shapes.jpg
"""

from collections.abc import Sequence
import pathlib
import textwrap

from absl import app, flags
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidret_jax.data import shapes
from vidret_jax.data.shapes import annotations, encode

_ROOT = flags.DEFINE_string('root', None, 'Data folder.')
_OUT = flags.DEFINE_string('out', 'shapes.jpg', 'Image to write.')
_CLIPS = flags.DEFINE_integer('clips', 8, 'Clips to show.', lower_bound=1)
_FRAMES = flags.DEFINE_integer('frames', 8, 'Frames of each.', lower_bound=1)
_COPIES = flags.DEFINE_bool('copies', False, 'Edited copies with their source.')

_LINE = 15


def strip(clip: pathlib.Path, frames: int) -> np.ndarray:
  """uint8 [h, frames * w, 3], evenly spaced frames of a clip."""
  film, _ = encode.read(clip, 'rgb24')
  at = np.linspace(0, len(film) - 1, frames + 2)[1:-1].round().astype(int)
  return np.concatenate(list(film[at]), axis=1)


def describe(row, width: int) -> list[str]:
  """Lines of text about one annotation row."""
  if row['copy']['source']:
    copy = row['copy']
    lines = [f'{copy["edit"]} ({copy["relation"]}) of {copy["source"]}']
  else:
    lines = [f'"{c["text"]}"' for c in row['captions'][:2]]
    spoken = ' / '.join(s['text'] for s in row['subtitles']) or 'none'
    lines.append(f'sound: {row["sound"] or "none"}; subtitle: {spoken}')
  return [part for line in lines for part in textwrap.wrap(line, width)]


def choose(rows, n: int, copies: bool) -> list:
  """Rows that show as many different things as possible."""
  if copies:
    edits = {}
    for row in rows:
      if row['split'] == 'copies':
        edits.setdefault(row['copy']['edit'], row)
    return list(edits.values())[:n]
  left = [r for r in rows if r['split'] == 'test']
  seen, found = set(), []
  while left and len(found) < n:
    # Greedy: the clip with most attributes that none before it has.
    best = max(left, key=lambda r: len(_attributes(r) - seen))
    seen |= _attributes(best)
    found.append(best)
    left.remove(best)
  return found


def _attributes(row) -> set:
  return {
    *(('verb', e['verb']) for e in row['events']),
    *(('shape', a['shape']) for a in row['actors']),
    *(('colour', a['colour']) for a in row['actors']),
    *row['ground'].items(),
    ('sound', row['sound']),
    ('words', bool(row['overlays'])),
    ('speech', bool(row['subtitles'])),
  }


def sheet(corpus: pathlib.Path, rows, frames: int) -> Image.Image:
  """One strip per row with its text below."""
  font = ImageFont.load_default(11)
  blocks = []
  for row in rows:
    picture = Image.fromarray(strip(corpus / row['video'], frames))
    lines = describe(row, picture.width // 6)
    height = picture.height + _LINE * len(lines) + 8
    block = Image.new('RGB', (picture.width, height), 'white')
    block.paste(picture, (0, 0))
    draw = ImageDraw.Draw(block)
    for i, line in enumerate(lines):
      draw.text((2, picture.height + 1 + _LINE * i), line, 'black', font)
    blocks.append(np.asarray(block))
  return Image.fromarray(np.concatenate(blocks))


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments {list(argv[1:])}.')
  corpus = shapes.prepare(_ROOT.value)
  rows = choose(annotations.read(corpus), _CLIPS.value, _COPIES.value)
  out = pathlib.Path(_OUT.value)
  out.parent.mkdir(parents=True, exist_ok=True)
  sheet(corpus, rows, _FRAMES.value).save(out, quality=82, optimize=True)
  print(f'{len(rows)} clips -> {out}')


if __name__ == '__main__':
  app.run(main)
