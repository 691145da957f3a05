# SPDX-License-Identifier: Apache-2.0
"""Fonts of overlaid texts: Pillow's own, or those of a folder.

Upstream takes fonts of the AugLy library, each with a list of the characters it
has. Here a font is asked which letters, digits and signs of European writing it
has.
"""

import functools
import io
import os
import pathlib
import threading

from PIL import ImageFont

# Latin with its extensions, Greek and Cyrillic.
_KNOWN = (*range(0x21, 0x7F), *range(0xA1, 0x180), *range(0x370, 0x460))
_NEVER = chr(0x10FFFF)  # No font has it.
_SUFFIXES = ('.ttf', '.otf')
_MAX_FILE = 64 << 20
# Faces per thread, of a few hundred kilobytes each: every font is used in some
# 70 sizes, and opening one is nothing beside writing with it.
_OPEN = 16


class Fonts:
  """Typefaces that can be had in any size."""

  def __init__(self, folder: str | os.PathLike[str] | None = None):
    """Finds the fonts.

    Args:
      folder: of .ttf and .otf files, at any depth; None takes Pillow's.

    Raises:
      ValueError: no font in the folder, or one that cannot be read.
    """
    self._files = (None,) if folder is None else _files(folder)
    # FreeType's faces are not made for several threads at once.
    self._opened = threading.local()
    self._characters = tuple(
      self._drawn_by(number) for number in range(len(self))
    )

  def __len__(self) -> int:
    return len(self._files)

  def characters(self, number: int) -> str:
    """What a font has something to draw for."""
    return self._characters[number]

  def _drawn_by(self, number):
    font = self.get(number, 16)
    nothing = {_look(font, _NEVER), _look(font, ' ')}
    found = [c for c in map(chr, _KNOWN) if _look(font, c) not in nothing]
    if not found:
      raise ValueError(
        f'{self._files[number]}: has no European letters. Take it out of the '
        'folder.'
      )
    return ''.join(found)

  def get(self, number: int, size: int) -> ImageFont.FreeTypeFont:
    """A font, of which every thread has its own.

    Args:
      number: 0 <= number < len(self).
      size: of the letters in pixels.

    Raises:
      ValueError: it cannot be read.
    """
    opened = self._opened.__dict__
    if (number, size) not in opened:
      file = self._files[number]
      if len(opened) >= _OPEN:
        opened.clear()
      try:
        # The other layout engine is not there on every machine.
        opened[number, size] = ImageFont.truetype(
          io.BytesIO(_own()) if file is None else file,
          size,
          layout_engine=ImageFont.Layout.BASIC,
        )
      except OSError as error:
        raise ValueError(
          f'{file}: cannot be read as a font ({error}). Take it out of the '
          'folder.'
        ) from None
    return opened[number, size]


def _look(font, character):
  mask = font.getmask(character, mode='L')
  return mask.size, bytes(mask)


@functools.lru_cache(maxsize=1)
def _own() -> bytes:
  return ImageFont.load_default(16).font_bytes


def _files(folder):
  folder = pathlib.Path(folder)
  files = sorted(
    path for path in folder.rglob('*') if path.suffix.lower() in _SUFFIXES
  )
  if not files:
    raise ValueError(
      f'fonts={str(folder)!r}: no .ttf or .otf file there. Name a folder of '
      "fonts, or leave the option out to use Pillow's."
    )
  for path in files:
    if path.stat().st_size > _MAX_FILE:
      raise ValueError(
        f'{path}: has {path.stat().st_size} bytes, expected at most '
        f'{_MAX_FILE}. Take it out of the folder.'
      )
  return tuple(str(path) for path in files)
