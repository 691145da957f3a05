# SPDX-License-Identifier: Apache-2.0
"""Writes small folders of frames, as ffmpeg makes them of videos."""

import pathlib

import numpy as np
from PIL import Image


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  """uint8 [height, width, 3] of smooth colours."""
  coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
  image = Image.fromarray(coarse).resize((width, height), Image.BICUBIC)
  return np.asarray(image)


def write(
  root: pathlib.Path,
  counts: dict[str, int],
  *,
  height: int = 36,
  width: int = 48,
  seed: int = 0,
) -> pathlib.Path:
  """Writes `<root>/<video>/00000.jpg` and so on.

  Args:
    root: is made.
    counts: video -> frames.
    height: of the frames in pixels.
    width: of the frames in pixels.
    seed: of the pictures.

  Returns:
    root.
  """
  rng = np.random.default_rng(seed)
  for video, count in counts.items():
    (root / video).mkdir(parents=True)
    for i in range(count):
      image = Image.fromarray(picture(rng, height, width))
      image.save(root / video / f'{i:05d}.jpg', quality=90)
  return root
