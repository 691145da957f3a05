# SPDX-License-Identifier: Apache-2.0
"""What happens to the time of a clip, as lists of frame numbers.

Nothing here touches pixels, so a clip is planned before it is decoded and only
the frames that are left over are read. An `index` holds frame numbers, `BLANK`
for a black frame and `NOISE` - k for the k-th frame of noise.

The order of the draws is that of S2VS (`augmentations.py`, `TemporalTransform`
and its parts), so that a `numpy.random.RandomState` seeded as upstream's global
generator makes the same clips.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

from vidret_jax.data.augment import draws

BLANK = -1
NOISE = -2
KINDS = ('shuffle_dropout', 'fast', 'slow', 'reverse', 'pause', 'none')


@dataclasses.dataclass(frozen=True)
class Options:
  """How often what happens; defaults are those of HAP-VR's script.

  Attributes:
    shuffle_dropout: probability of cutting a clip into short segments, of
      which some are shuffled, deleted or blanked.
    fast: probability of every second or third frame only.
    slow: probability of every frame twice.
    reverse: probability of running backwards.
    pause: probability of a frame that stands still; what is missing to 1
      leaves the clip as it is.
    shuffle: of shuffle_dropout, probability that segments are shuffled.
    dropout: of shuffle_dropout, probability that a segment is dropped.
    content: of shuffle_dropout, probability that a dropped segment is deleted;
      otherwise its frames become black or noise. (Upstream's flags for these
      three reach nothing; their defaults are the numbers in use.)
  """

  shuffle_dropout: float = 0.5
  fast: float = 0.1
  slow: float = 0.1
  reverse: float = 0.1
  pause: float = 0.1
  shuffle: float = 0.5
  dropout: float = 0.3
  content: float = 0.5

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not 0 <= value <= 1:
        raise ValueError(
          f'temporal.{field.name}={value}: expected a probability.'
        )
    if sum(self.shares) > 1 + 1e-6:
      raise ValueError(
        f'temporal: {dict(zip(KINDS[:-1], self.shares, strict=True))} sum to '
        f'{sum(self.shares):g}, expected at most 1.'
      )

  @property
  def shares(self) -> tuple[float, ...]:
    """Of all kinds but 'none'."""
    return self.shuffle_dropout, self.fast, self.slow, self.reverse, self.pause


def two_views(
  count: int, size: int, options: Options | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """The times of the weak and the strong view of a video.

  Both are taken from one part of twice the size.

  Args:
    count: frames of the video.
    size: W, frames of a view.
    options: of the strong view; None changes nothing but the part.
    seed: of the example.

  Returns:
    (int64 [W] frame numbers, int64 [W] frame numbers, `BLANK` or noise).

  Raises:
    ValueError: a video without frames.
  """
  rng = draws.generator(seed, draws.LOAD)
  index = np.arange(count)
  if count > 2 * size:
    start = rng.randint(count - 2 * size)
    index = index[start : start + 2 * size]
  index = window(index, 2 * size, rng)
  weak = window(index, size, draws.generator(seed, draws.WEAK_TIME))
  rng = draws.generator(seed, draws.STRONG_TIME)
  if options is not None:
    # Pixels of noise are drawn where they are made.
    index = transform(index, options, rng, lambda: None, size)
  return weak, window(index, size, rng)


def window(index: np.ndarray, size: int, rng) -> np.ndarray:
  """A random part of `size` frames; a clip that is shorter is repeated.

  The last possible start is never drawn, as upstream (`RandomTemporalCrop`).

  Args:
    index: int64 [n], n >= 1.
    size: frames wanted.
    rng: a `numpy.random.RandomState`.

  Raises:
    ValueError: no frames.
  """
  if not len(index):
    raise ValueError('a clip without frames cannot be repeated')
  while len(index) < size:
    index = np.concatenate([index, index])
  start = rng.randint(max(len(index) - size, 1))
  return index[start : start + size]


def transform(
  index: np.ndarray,
  options: Options,
  rng,
  noise: Callable[[], None],
  size: int,
) -> np.ndarray:
  """One of the kinds, drawn.

  Args:
    index: int64 [n].
    options: see `Options`.
    rng: a `numpy.random.RandomState`.
    noise: called for each frame of noise at the place in the order of draws
      where upstream draws its pixels.
    size: frames that are cut out afterwards; a pause is shorter than a quarter.

  Returns:
    int64 [m].
  """
  shares = options.shares
  shares = (*shares, max(0.0, 1.0 - sum(shares)))
  kind = KINDS[rng.choice(len(KINDS), p=np.divide(shares, sum(shares)))]
  if kind == 'shuffle_dropout':
    return shuffle_dropout(
      index, options.shuffle, options.dropout, options.content, rng, noise
    )
  if kind == 'fast':
    return fast(index, rng)
  if kind == 'slow':
    return slow(index)
  if kind == 'reverse':
    return reverse(index)
  if kind == 'pause':
    return pause(index, size, rng)
  return index


def shuffle_dropout(
  index: np.ndarray,
  shuffle: float,
  dropout: float,
  content: float,
  rng,
  noise: Callable[[], None],
) -> np.ndarray:
  """Segments of 4 to 15 frames, some of them moved, deleted or blanked.

  A clip that is no multiple of the segments loses its last frames. Segments
  are only dropped if the sum of their codes (1 deleted, 2 blanked) is below
  their number, as upstream.

  Args:
    index: int64 [n].
    shuffle: probability that the segments are shuffled.
    dropout: probability that a segment is dropped.
    content: probability that a dropped segment is deleted, not blanked.
    rng: see `transform`.
    noise: see `transform`.
  """
  length = rng.randint(4, 16)
  rest = len(index) % length
  if len(index) > rest:
    index = index[: len(index) - rest]
  else:
    length = len(index)
  segments = index.reshape(-1, length).copy()
  if rng.random_sample() < shuffle:
    rng.shuffle(segments)
  count = len(segments)
  dropped = rng.random_sample(count) < dropout
  code = dropped * (1 + (rng.random_sample(count) > content))
  if 0 < code.sum() < count:
    made = 0
    for s in np.flatnonzero(code == 2):
      for t in range(length):
        if rng.random_sample() > 0.5:
          segments[s, t] = BLANK
        else:
          noise()
          segments[s, t] = NOISE - made
          made += 1
    segments = segments[code != 1]
  return segments.reshape(-1)


def fast(index: np.ndarray, rng) -> np.ndarray:
  """Every second or third frame."""
  return index[:: rng.randint(2, 4)]


def slow(index: np.ndarray) -> np.ndarray:
  """Every frame twice."""
  return np.repeat(index, 2)


def reverse(index: np.ndarray) -> np.ndarray:
  """Backwards."""
  return index[::-1]


def pause(index: np.ndarray, size: int, rng) -> np.ndarray:
  """A frame that stays for less than a quarter of `size` frames more.

  Clips of one frame, and sizes below 4, have nothing to draw from: they stay
  as they are (upstream's generator raises there).
  """
  if len(index) < 2 or size < 4:
    return index
  start = rng.randint(len(index) - 1)
  extra = rng.randint(size // 4)
  return np.insert(index, start, np.repeat(index[start], extra))
