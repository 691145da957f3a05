# SPDX-License-Identifier: Apache-2.0
"""The weak view of a clip: a shorter part, slightly cropped, maybe mirrored.

As HAP-VR and S2VS have it (upstream `WeakAugmentations`).
"""

import dataclasses

import numpy as np

from vidret_jax.data.augment import crops


@dataclasses.dataclass(frozen=True)
class Options:
  """How frames are cropped; also the first part of the strong view.

  Attributes:
    size: R, side of the frames in pixels.
    scale: smallest and largest share of the area that a crop keeps.
    flip: probability that a clip is mirrored.
    antialias: see `crops.resized`.
  """

  size: int = 224
  scale: tuple[float, float] = (0.8, 1.0)
  flip: float = 0.5
  antialias: bool = False

  def __post_init__(self):
    crops.check('scale', self.scale)
    if self.size < 1:
      raise ValueError(f'size={self.size}: expected 1 or more pixels.')
    if not 0 <= self.flip <= 1:
      raise ValueError(f'flip={self.flip}: expected a probability.')


def apply(frames: np.ndarray, options: Options, rng) -> np.ndarray:
  """Crops all frames alike.

  Args:
    frames: uint8 [n, h, w, 3].
    options: see `Options`.
    rng: a `numpy.random.RandomState`.

  Returns:
    uint8 [n, R, R, 3].
  """
  box = crops.draw(rng, *frames.shape[1:3], options.scale)
  flip = rng.random_sample() < options.flip
  return crops.resized(
    frames, box, options.size, antialias=options.antialias, flip=flip
  )
