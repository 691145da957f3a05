# SPDX-License-Identifier: Apache-2.0
"""Text, small pictures and blur on single frames.

As S2VS (`augmentations.py`, after AugLy, arXiv 2201.06494): every frame draws
its own, so overlays flicker.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from vidret_jax.data.augment import fonts as fonts_lib

_LETTERS = 100
_SIZES = (0.2, 0.5)  # Of the frame's shorter side, or of what fits.
_OPACITY = (0.7, 1.0)
_RADIUS = (0.1, 2.0)


def text(frame: Image.Image, fonts: fonts_lib.Fonts, rng) -> None:
  """Writes random letters somewhere.

  The text is as long as drawn between one letter and what fits. A frame stays
  as it is if no letter fits, or if all hundred do, as upstream.

  Args:
    frame: RGB; changed.
    fonts: to choose from.
    rng: a `numpy.random.RandomState`.
  """
  number = rng.randint(len(fonts))
  size = max(int(min(frame.size) * rng.uniform(*_SIZES)), 1)
  known = fonts.characters(number)
  letters = [known[i] for i in rng.randint(len(known), size=_LETTERS)]
  font = fonts.get(number, size)

  def extent(n):
    return font.getbbox(''.join(letters[:n]), anchor='lt')[2:]

  def fits(n):
    across, down = extent(n)
    return across <= frame.width and down <= frame.height

  if not fits(1):
    return
  # A longer text is never smaller. Few letters fit, so look there first.
  longest, beyond = 1, 2
  while fits(beyond):
    longest, beyond = beyond, min(2 * beyond, _LETTERS - 1)
    if longest == beyond:
      return  # All of them fit.
  while beyond - longest > 1:
    middle = (longest + beyond) // 2
    longest, beyond = (middle, beyond) if fits(middle) else (longest, middle)
  said = ''.join(letters[: rng.randint(1, longest + 1)])
  across, down = extent(len(said))
  left = int(rng.random_sample() * (frame.width - across))
  top = int(rng.random_sample() * (frame.height - down))
  colour = tuple(rng.randint(256, size=3).tolist())
  alpha = int(rng.uniform(*_OPACITY) * 255 + 0.5)
  ink, offset = font.getmask2(said, mode='L', anchor='lt')
  mask = Image.new('L', ink.size)
  mask.im.paste(ink, (0, 0, *ink.size))
  mask = mask.point([i * alpha // 255 for i in range(256)])
  frame.paste(colour, (left + offset[0], top + offset[1]), mask)


def picture(frame: Image.Image, pictures: Sequence[Image.Image], rng) -> None:
  """Pastes one of the pictures somewhere.

  Args:
    frame: RGB; changed.
    pictures: RGBA.
    rng: a `numpy.random.RandomState`.
  """
  chosen = pictures[rng.randint(len(pictures))]
  largest = min(frame.width / chosen.width, frame.height / chosen.height)
  scale = largest * rng.uniform(*_SIZES)
  size = tuple(max(int(side * scale), 1) for side in chosen.size)
  left = int(rng.random_sample() * (frame.width - size[0]))
  top = int(rng.random_sample() * (frame.height - size[1]))
  opacity = rng.uniform(*_OPACITY)
  chosen = chosen.resize(size, Image.Resampling.BILINEAR)
  mask = chosen.getchannel('A').point([int(i * opacity) for i in range(256)])
  frame.paste(chosen.convert('RGB'), (left, top), mask)


def blurred(frame: Image.Image, rng) -> Image.Image:
  """The frame out of focus, by a drawn radius."""
  return frame.filter(ImageFilter.GaussianBlur(rng.uniform(*_RADIUS)))


def drawn_over(
  pixels: np.ndarray,
  rng,
  *,
  overlay: float,
  blur: float,
  fonts: fonts_lib.Fonts,
  pictures: Sequence[Image.Image],
) -> np.ndarray:
  """A frame with whatever is drawn for it, in upstream's order.

  Args:
    pixels: uint8 [h, w, 3].
    rng: a `numpy.random.RandomState`.
    overlay: probability of a text, and of a picture.
    blur: probability of blur.
    fonts: of texts.
    pictures: RGBA.

  Returns:
    uint8 [h, w, 3].
  """
  write, paste, soften = rng.random_sample(3) < (overlay, overlay, blur)
  if not (write or paste or soften):
    return pixels
  frame = Image.fromarray(pixels)
  if write:
    text(frame, fonts, rng)
  if paste:
    picture(frame, pictures, rng)
  if soften:
    frame = blurred(frame, rng)
  return np.asarray(frame)
