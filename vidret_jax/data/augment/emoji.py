# SPDX-License-Identifier: Apache-2.0
"""Small pictures with a transparent ground, drawn here or read from a folder.

Upstream takes Twemoji's from the AugLy library. The ones drawn here (faces,
hearts, stars, ...) need no files; a folder of PNGs does what upstream does.
"""

import functools
import math
import os
import pathlib

import numpy as np
from PIL import Image, ImageDraw

_SIDE = 128  # Pixels of a drawing; overlays are smaller at 224 pixels.
_FINE = 4  # Drawn this many times larger, then shrunk.
_MAX_SIDE = 1024
_YELLOW, _DARK = (255, 204, 77), (102, 69, 0)
_COLOURS = (
  *((221, 46, 68), (85, 172, 238), (120, 177, 89), (244, 144, 12)),
  *((170, 142, 214), (255, 204, 77)),
)
_MOUTHS = ('smile', 'open', 'flat', 'sad')
_EYES = ('round', 'closed', 'wink')
_SIGNS = ('heart', 'star', 'flower', 'drop')


@functools.lru_cache(maxsize=1)
def drawn() -> tuple[Image.Image, ...]:
  """The drawings: 12 faces, and four signs in six colours; RGBA."""
  faces = [_face(mouth, eyes) for mouth in _MOUTHS for eyes in _EYES]
  signs = [_sign(kind, colour) for kind in _SIGNS for colour in _COLOURS]
  return (*faces, *signs)


def folder(path: str | os.PathLike[str]) -> tuple[Image.Image, ...]:
  """All PNGs at and below a folder, by path; large ones are shrunk.

  Raises:
    ValueError: no such folder, no PNG in it, or one that cannot be read.
  """
  path = pathlib.Path(path)
  files = sorted(path.rglob('*.png'))
  if not files:
    raise ValueError(
      f'emoji={str(path)!r}: no PNG files there. Name a folder of small '
      'pictures, or leave the option out to use the ones drawn here.'
    )
  return tuple(_read(file) for file in files)


def _read(file):
  try:
    with Image.open(file, formats=('PNG',)) as image:
      if max(image.size) > _MAX_SIDE:
        raise ValueError(
          f'{image.width} x {image.height} pixels, expected at most '
          f'{_MAX_SIDE} a side'
        )
      image = image.convert('RGBA')
  # Pillow's decoders raise nearly anything on damaged files.
  except Exception as error:
    raise ValueError(
      f'{file}: is no picture to overlay ({error}). Take it out of the folder.'
    ) from None
  image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
  return image


def _canvas():
  image = Image.new('RGBA', (_SIDE * _FINE,) * 2, (0, 0, 0, 0))
  return image, ImageDraw.Draw(image)


def _shrunk(image):
  return image.resize((_SIDE, _SIDE), Image.Resampling.BOX)


def _box(x, y, across, down=None):
  """Corners of an ellipse with a centre and radii in parts of the side."""
  down = across if down is None else down
  side = _SIDE * _FINE
  ends = (x - across, y - down, x + across, y + down)
  return [value * side for value in ends]


def _face(mouth, eyes):
  image, draw = _canvas()
  line = _SIDE * _FINE // 22
  draw.ellipse(_box(0.5, 0.5, 0.48), fill=_YELLOW)
  for place in (0.34, 0.66):
    if eyes == 'round' or (eyes == 'wink' and place < 0.5):
      draw.ellipse(_box(place, 0.38, 0.06, 0.09), fill=_DARK)
    else:
      draw.arc(_box(place, 0.42, 0.09), 190, 350, fill=_DARK, width=line)
  if mouth == 'smile':
    draw.chord(_box(0.5, 0.55, 0.28), 0, 180, fill=_DARK)
  elif mouth == 'open':
    draw.ellipse(_box(0.5, 0.7, 0.12, 0.15), fill=_DARK)
  elif mouth == 'flat':
    draw.line(_box(0.5, 0.7, 0.2, 0), fill=_DARK, width=line)
  else:
    draw.arc(_box(0.5, 0.85, 0.22), 200, 340, fill=_DARK, width=line)
  return _shrunk(image)


def _sign(kind, colour):
  image, draw = _canvas()
  turn = np.linspace(0, 2 * math.pi, 121)[:-1]
  if kind == 'heart':
    x = 16 * np.sin(turn) ** 3 / 34
    y = -13 * np.cos(turn) + 5 * np.cos(2 * turn) + 2 * np.cos(3 * turn)
    y = (y + np.cos(4 * turn) - 2.5) / 34
  elif kind == 'drop':
    x = 0.55 * np.sin(turn) * np.sin(turn / 2) ** 1.5
    y = -0.45 * np.cos(turn)
  else:
    if kind == 'star':
      turn = np.arange(10) * math.pi / 5
      radius = np.where(np.arange(10) % 2, 0.2, 0.48)
    else:
      radius = 0.36 + 0.12 * np.cos(6 * turn)
    x, y = radius * np.sin(turn), -radius * np.cos(turn)
  points = (np.stack([x, y], axis=1) + 0.5) * _SIDE * _FINE
  draw.polygon([tuple(point) for point in points.tolist()], fill=colour)
  if kind == 'flower':
    draw.ellipse(_box(0.5, 0.5, 0.14), fill=_YELLOW)
  return _shrunk(image)
