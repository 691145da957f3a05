# SPDX-License-Identifier: Apache-2.0
"""Streams of clip features: to one length, side by side, some frames of them.

No normalisation and no augmentation, the same frames in training and test, as
in the readers of HGR and RANP.
"""

from collections.abc import Sequence

import numpy as np


def align(streams: Sequence[np.ndarray]) -> np.ndarray:
  """Streams side by side.

  If their lengths differ, each is resampled to the shortest, at positions
  evenly spread from its first to its last frame, rounded down.

  Args:
    streams: float arrays [t_i, d_i].

  Returns:
    float32 [t, sum of d_i].

  Raises:
    ValueError: no stream, or one without frames.
  """
  _check(streams)
  if len({len(x) for x in streams}) > 1:
    t = min(len(x) for x in streams)
    streams = [x[np.linspace(0, len(x) - 1, t).astype(int)] for x in streams]
  return np.concatenate(streams, axis=1).astype(np.float32, copy=False)


def align_1ka(streams: Sequence[np.ndarray], length: int = 48) -> np.ndarray:
  """Streams side by side, as the reader of the 1k-A split of MSR-VTT has them.

  A stream shorter than `length` is stretched to it by repeating frames, a
  longer one is cut; then every frame of every stream is made a unit vector
  (zeros stay). Upstream does this to streams of different lengths only and
  stops with an undefined variable where they are equal; here the rule is the
  same for all.

  Args:
    streams: float arrays [t_i, d_i].
    length: frames of the result.

  Returns:
    float32 [length, sum of d_i].

  Raises:
    ValueError: no stream, or one without frames.
  """
  _check(streams)
  out = []
  for x in streams:
    x = np.asarray(x, np.float32)
    if len(x) < length:
      # The ratio in float32, as the nearest neighbours of PyTorch have it.
      ratio = np.float32(len(x)) / np.float32(length)
      at = np.floor(np.arange(length, dtype=np.float32) * ratio).astype(int)
      x = x[np.minimum(at, len(x) - 1)]
    x = x[:length]
    norm = np.sqrt(np.sum(x * x, axis=1, keepdims=True))
    out.append(x / np.maximum(norm, np.float32(1e-12)))
  return np.concatenate(out, axis=1)


def select(x: np.ndarray, max_frames: int) -> tuple[np.ndarray, np.ndarray]:
  """A fixed number of frames.

  A clip with fewer is padded with zeros; of a longer one frames are taken at
  positions evenly spread from first to last, rounded (halves to even).

  Args:
    x: float [t, d].
    max_frames: f.

  Returns:
    float32 [f, d] and mask bool [f].

  Raises:
    ValueError: x has no frames.
  """
  _check([x])
  t = len(x)
  if t >= max_frames:
    at = np.round(np.linspace(0, t - 1, max_frames)).astype(int)
    return np.asarray(x[at], np.float32), np.ones(max_frames, bool)
  out = np.zeros((max_frames, x.shape[1]), np.float32)
  out[:t] = x
  return out, np.arange(max_frames) < t


def _check(streams):
  if not streams:
    raise ValueError('no stream of features, expected at least one')
  for x in streams:
    if np.ndim(x) != 2 or not len(x):
      raise ValueError(
        f'features of shape {np.shape(x)}, expected (frames, width) with at '
        'least one frame'
      )
