# SPDX-License-Identifier: Apache-2.0
"""Takes experts away from videos, to see how a system degrades.

Works on the `available` array of a batch, bool [b, m] with the experts in
byte-wise order of their names, which is all a model may look at to learn what a
video has.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Hiding:
  """Which experts to hide.

  Attributes:
    names: all experts in the order of `available`.
    drop: names hidden from every video.
    only: if not empty, all but these are hidden.
    rate: each remaining expert of each video is hidden with this probability.
      A video keeps at least one: the last one is never drawn away.
    seed: of the draw; it depends on (seed, video number, expert), so the same
      experts are missing whatever the blocks, devices or model.
  """

  names: tuple[str, ...]
  drop: tuple[str, ...] = ()
  only: tuple[str, ...] = ()
  rate: float = 0.0
  seed: int = 0

  def __post_init__(self):
    for option in ('drop', 'only'):
      unknown = [n for n in getattr(self, option) if n not in self.names]
      if unknown:
        raise ValueError(
          f'{option}_experts names {", ".join(map(repr, unknown))}; this '
          f'dataset has {", ".join(self.names) or "no experts"}.'
        )
    if not 0 <= self.rate <= 1:
      raise ValueError(f'drop_rate={self.rate}: expected 0 to 1.')

  def __bool__(self) -> bool:
    return bool(self.drop or self.only or self.rate)

  def apply(self, available: np.ndarray, video: np.ndarray) -> np.ndarray:
    """What is left.

    Args:
      available: bool [b, m].
      video: int [b], number of each row's video, negative for padding.

    Returns:
      bool [b, m].
    """
    keep = np.array(
      [
        n not in self.drop and (not self.only or n in self.only)
        for n in self.names
      ],
      bool,
    )
    left = available & keep
    if not self.rate:
      return left
    drawn = np.zeros(left.shape)
    for row, number in enumerate(video):
      if number >= 0:
        key = np.array([self.seed, number], np.uint64)
        drawn[row] = np.random.Generator(np.random.Philox(key=key)).random(
          len(self.names)
        )
    kept = left & (drawn >= self.rate)
    # Of a video that would lose all, the expert drawn last stays.
    last = np.where(left, drawn, -1).argmax(1)
    lost = left.any(1) & ~kept.any(1)
    kept[lost, last[lost]] = True
    return kept


def expert_names(spec: Mapping[str, Any]) -> tuple[str, ...]:
  """Experts of an item source in the order of `available`; () if none."""
  if 'available' not in spec or 'experts' not in spec:
    return ()
  return tuple(sorted(spec['experts'], key=str.encode))


def make(
  spec: Mapping[str, Any],
  *,
  drop: Sequence[str] = (),
  only: Sequence[str] = (),
  rate: float = 0.0,
  seed: int = 0,
) -> Hiding:
  """`Hiding` for an item source.

  Raises:
    ValueError: unknown experts, or a dataset that has none to hide.
  """
  hiding = Hiding(
    expert_names(spec), tuple(drop), tuple(only), float(rate), int(seed)
  )
  if hiding and not hiding.names:
    raise ValueError(
      'drop_experts, only_experts and drop_rate need items with `experts` '
      f'and `available`; these have {sorted(spec)}.'
    )
  return hiding
