# SPDX-License-Identifier: Apache-2.0
"""How training views are made, as a config says it."""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

import numpy as np

from vidret_jax.data import splitmix
from vidret_jax.data.augment import strong as strong_lib
from vidret_jax.data.augment import temporal as temporal_lib
from vidret_jax.data.augment import weak as weak_lib

PARTS = ('GT', 'FT', 'TT', 'ViV')
_STREAM = 32  # Of the first number of `mix`; the others follow.


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Strengths of all augmentations; defaults are those of HAP-VR's script.

  Attributes:
    parts: which groups of them are on: 'GT' RandAugment, 'FT' overlays and
      blur, 'TT' time, 'ViV' video in video.
    temporal: see `temporal.Options`.
    randaugment: see `strong.Options`, as are magnitude, overlay and blur.
    magnitude: see `strong.Options`.
    overlay: see `strong.Options`.
    blur: see `strong.Options`.
    mixing: of ViV, probability that a clip is pasted over another.
    share: smallest and largest lambda, the share of the clip below that stays
      visible.
    weak_scale: share of the area that a crop of the weak view keeps.
    strong_scale: the same of the strong view.
    flip: probability that a view is mirrored.
    antialias: whether shrinking smooths; see `crops.resized`. For video in
      video the model has an option of this name.
    fonts: folder of fonts; None takes Pillow's.
    pictures: folder of PNGs to overlay (emoji); None takes our own drawings.
  """

  parts: tuple[str, ...] = PARTS
  temporal: Mapping[str, float] = dataclasses.field(default_factory=dict)
  randaugment: int = 2
  magnitude: int = 9
  overlay: float = 0.3
  blur: float = 0.5
  mixing: float = 0.3
  share: tuple[float, float] = (0.3, 0.7)
  weak_scale: tuple[float, float] = (0.8, 1.0)
  strong_scale: tuple[float, float] = (0.5, 1.0)
  flip: float = 0.5
  antialias: bool = False
  fonts: str | os.PathLike[str] | None = None
  pictures: str | os.PathLike[str] | None = None

  def __post_init__(self):
    unknown = [part for part in self.parts if part not in PARTS]
    if unknown:
      raise ValueError(
        f'augment.parts names {unknown[0]!r}; choose from {PARTS}.'
      )
    if not 0 <= self.mixing <= 1:
      raise ValueError(f'mixing={self.mixing}: expected a probability.')
    if len(self.share) != 2 or not 0 < self.share[0] <= self.share[1] < 1:
      raise ValueError(
        f'share={tuple(self.share)}: expected two shares of the area, the '
        'smaller first, between 0 and 1.'
      )

  def times(self) -> temporal_lib.Options | None:
    """Options of time; None where it stays as it is.

    Raises:
      ValueError: a probability that is none, or an unknown option.
    """
    options = _built(temporal_lib.Options, 'augment.temporal', self.temporal)
    return options if 'TT' in self.parts else None

  def weak(self, size: int) -> weak_lib.Options:
    """Options of the weak view, R = size pixels."""
    return self._crop(size, self.weak_scale)

  def strong(self, size: int) -> strong_lib.Options:
    """Options of the strong view, R = size pixels."""
    graphic, framewise = 'GT' in self.parts, 'FT' in self.parts
    return strong_lib.Options(
      crop=self._crop(size, self.strong_scale),
      randaugment=self.randaugment if graphic else 0,
      magnitude=self.magnitude,
      overlay=self.overlay if framewise else 0.0,
      blur=self.blur if framewise else 0.0,
    )

  def _crop(self, size, scale):
    return weak_lib.Options(size, tuple(scale), self.flip, self.antialias)

  def mix(self, seeds: np.ndarray) -> np.ndarray:
    """What is drawn for video in video.

    Args:
      seeds: int64 [b], of the examples.

    Returns:
      float32 [b, 5]: use, host, share, y, x; see `ops.video_in_video`.
    """
    drawn = [splitmix.uniform(seeds, _STREAM + i) for i in range(5)]
    low, high = self.share
    rate = self.mixing if 'ViV' in self.parts else 0
    drawn[0] = drawn[0] < rate
    drawn[2] = low + (high - low) * drawn[2]
    return np.stack(drawn, axis=1).astype(np.float32)


def make(options: Mapping[str, Any] | None) -> Recipe:
  """The recipe of a config's `augment`.

  Raises:
    ValueError: an option that is unknown or has a value it cannot have.
  """
  recipe = _built(Recipe, 'augment', options or {})
  recipe.times()  # Refuses bad options now.
  return recipe


def _built(kind, name, options):
  known = [field.name for field in dataclasses.fields(kind)]
  unknown = [key for key in options if key not in known]
  if unknown:
    raise ValueError(f'{name} has no {unknown[0]!r}; choose from {known}.')
  return kind(**options)
