# SPDX-License-Identifier: Apache-2.0
"""What is seen in each quarter of a second of a clip: a row of features.

Measured on the decoded picture, as measure.py does for whole clips; nothing
here sees the script. A row tells of the thing that changes most about then,
of the other one, and of the light they are in, as rows of a ResNet and an I3D
tell of look and motion elsewhere.
"""

import os

import numpy as np

from vidret_jax.data.shapes import blobs, encode, measure
from vidret_jax.data.shapes import script as script_lib

FRAMES = 2  # Of a snippet.
SECONDS = FRAMES / script_lib.FPS
THINGS = 2
# What is told of a thing, in this order, and in how many numbers.
BLOCKS = {
  'hue': blobs.HUES,
  'chroma': 3,
  'contour': (1 + blobs.HARMONICS) * blobs.RINGS,
  'motion': FRAMES * blobs.MOTIONS,
  'size': 10,
}
LIGHT = 3
DIM = THINGS * sum(BLOCKS.values()) + LIGHT
_ACTIVE = 13  # The row of `blobs.motion` that says how much changes.


def snippets(clip: str | os.PathLike) -> np.ndarray:
  """Measures a clip.

  Args:
    clip: an mp4 of 128 x 96 pixels.

  Returns:
    float32 [t, DIM], a row per snippet; the last one of an odd number of
    frames has the last frame twice.
  """
  planes, _ = encode.read(clip)
  if len(planes) % FRAMES:
    planes = np.concatenate([planes, planes[-1:]])
  y, u, v = measure.split_planes(planes)
  vivid, change = blobs.vivid(u, v), blobs.change(y)
  chroma = np.stack([_halved(y) - 128, u, v], axis=-1)
  found = [
    _thing(blob, chroma, change) for blob in blobs.by_hue(u, v, vivid, THINGS)
  ]
  rows = np.stack([rows for rows, _ in found], axis=1)
  order = np.argsort([-busy for _, busy in found], axis=0, kind='stable').T
  rows = np.take_along_axis(rows, order[..., None], axis=1)
  rows = rows.reshape(len(rows), -1)
  light = np.tile(_light(chroma, vivid), (len(rows), 1))
  return np.concatenate([rows, light], axis=1).astype(np.float32)


def _halved(y: np.ndarray) -> np.ndarray:
  """[t, h/2, w/2] from [t, h, w]: means of four pixels."""
  t, h, w = y.shape
  return y.reshape(t, h // 2, 2, w // 2, 2).mean(axis=(2, 4))


def _thing(blob, chroma, change) -> tuple[np.ndarray, np.ndarray]:
  """A thing in every snippet: ([t, d] features, [t] how much it changes)."""
  frames = len(chroma)
  t = frames // FRAMES
  if blob is None:
    return np.zeros((t, sum(BLOCKS.values()))), np.full(t, -1.0)
  t_at, y_at, x_at, mass = blob
  own = np.zeros(change.shape)
  own[t_at, y_at, x_at] = mass
  # What it leaves behind changes, too, and what it will cover.
  near = _grown(np.maximum(own, np.roll(own, 1, axis=0)))
  move = blobs.motion(own, change * near)
  # Some acts rest for a frame: look around a bit.
  busy = np.convolve(move[_ACTIVE], np.ones(5) / 5, 'same')
  colours = chroma[t_at, y_at, x_at]
  hues = blobs.hue(colours[:, 1], colours[:, 2])
  contour, seen = blobs.contour(*blob, frames)
  area = np.bincount(t_at, mass, frames)
  blocks = {
    'hue': _tints(hues, mass, t_at // FRAMES, t),
    'chroma': _means(colours, mass, t_at // FRAMES, t) / 64,
    'contour': _pooled(contour.transpose(1, 0, 2), seen),
    'motion': move.T.reshape(t, -1) / 2,
    'size': _pooled(_bumps(np.log2(area + 1), 4, 10, BLOCKS['size'])),
  }
  rows = np.concatenate([blocks[name] for name in BLOCKS], axis=1)
  return rows, busy.reshape(t, FRAMES).mean(axis=1)


def _grown(mask: np.ndarray) -> np.ndarray:
  """The mask and a rim of two pixels."""
  for axis in (1, 2):
    mask = np.maximum.reduce([np.roll(mask, k, axis) for k in range(-2, 3)])
  return mask


def _tints(hues, mass, at, t: int) -> np.ndarray:
  """[t, 16]: roots of the shares of hues in every snippet."""
  count = np.stack(
    [
      blobs.soft_histogram(hues[here], mass[here], blobs.HUES)
      for here in (at == i for i in range(t))
    ]
  )
  return np.sqrt(count / (count.sum(axis=1, keepdims=True) + 1.0))


def _means(values, mass, at, t: int) -> np.ndarray:
  """[t, d]: means of [n, d] by snippet, of what is vivid without doubt."""
  mass = mass * (mass > 0.9)
  total = np.bincount(at, mass, t) + 1e-3
  sums = [np.bincount(at, mass * column, t) for column in values.T]
  return np.stack(sums, axis=1) / total[:, None]


def _pooled(rows: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
  """[t, d]: means of the rows of frames, [frames, ...], where `seen`."""
  rows = rows.reshape(len(rows) // FRAMES, FRAMES, -1)
  if seen is None:
    return rows.mean(axis=1)
  seen = seen.reshape(-1, FRAMES, 1)
  return (rows * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)


def _bumps(x: np.ndarray, low: float, high: float, count: int) -> np.ndarray:
  """[n, count]: numbers as overlapping triangles between two limits."""
  centres = np.linspace(low, high, count)
  x = np.clip(x, low, high)
  gap = (high - low) / (count - 1)
  return np.clip(1 - np.abs(x[:, None] - centres) / gap, 0, 1)


def _light(chroma, vivid) -> np.ndarray:
  """[3]: colour of the ground, whose light also falls on the things."""
  calm = vivid.mean(axis=0) < 0.05
  mean = chroma.mean(axis=0)
  return np.median(mean[calm] if calm.any() else mean.reshape(-1, 3), 0) / 32
