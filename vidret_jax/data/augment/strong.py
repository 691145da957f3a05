# SPDX-License-Identifier: Apache-2.0
"""The strong view of a clip, all but its time and video in video.

In upstream's order (`StrongAugmentations`): crop and flip, then RandAugment
(GT), both the same for all frames, then overlays and blur (FT), which every
frame draws for itself. Time (TT) comes before, in `temporal`; video in video
(ViV) needs the whole batch, see `ops.video_in_video`.
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np
from PIL import Image

from vidret_jax.data.augment import fonts as fonts_lib
from vidret_jax.data.augment import overlays, randaugment, weak


@dataclasses.dataclass(frozen=True)
class Options:
  """What is done to pixels; defaults are those of HAP-VR's script.

  Attributes:
    crop: see `weak.Options`.
    randaugment: operations per clip, 0 for none.
    magnitude: of the operations, 0 to 30.
    overlay: probability that a frame gets a text, and that it gets a picture.
    blur: probability that a frame is blurred.
  """

  crop: weak.Options = weak.Options(scale=(0.5, 1.0))
  randaugment: int = 2
  magnitude: int = 9
  overlay: float = 0.3
  blur: float = 0.5

  def __post_init__(self):
    randaugment.check(self.randaugment, self.magnitude)
    for name in ('overlay', 'blur'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
          f'{name}={getattr(self, name)}: expected a probability.'
        )


def apply(
  frames: np.ndarray,
  slots: np.ndarray,
  options: Options,
  rng,
  frame_rng: Callable[[int], np.random.RandomState],
  fonts: fonts_lib.Fonts,
  pictures: Sequence[Image.Image],
) -> np.ndarray:
  """Changes the pixels of a clip.

  Args:
    frames: uint8 [n, h, w, 3], each frame once.
    slots: int64 [t], the frame that each slot of the clip shows.
    options: see `Options`.
    rng: of the clip.
    frame_rng: slot -> generator of its own.
    fonts: of overlaid texts.
    pictures: to overlay, RGBA.

  Returns:
    uint8 [t, R, R, 3].
  """
  size = options.crop.size
  frames = weak.apply(frames, options.crop, rng)
  for name, value in randaugment.draw(
    rng, options.randaugment, options.magnitude, size, size
  ):
    frames = randaugment.apply(frames, name, value)
  clip = frames[slots]
  if options.overlay or options.blur:
    for slot, frame in enumerate(clip):
      clip[slot] = overlays.drawn_over(
        frame,
        frame_rng(slot),
        overlay=options.overlay,
        blur=options.blur,
        fonts=fonts,
        pictures=pictures,
      )
  return clip
