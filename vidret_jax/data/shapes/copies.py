# SPDX-License-Identifier: Apache-2.0
"""Edited copies of test videos, for video-to-video retrieval.

Relations are named as in FIVR-200K (arXiv 1809.04094): ND near duplicate, DS
duplicate scene, CS the same scene from another camera, IS the same incident
(here: the same actors go on), DA duplicate audio under another picture.
"""

import dataclasses

import numpy as np

from vidret_jax.data.shapes import render
from vidret_jax.data.shapes import script as script_lib

EDITS = {
  'crop': 'ND',
  'overlay': 'ND',
  'speed': 'ND',
  'blur': 'ND',
  'colour': 'ND',
  'inset': 'DS',
  'excerpt': 'DS',
  'camera': 'CS',
  'sequel': 'IS',
  'dub': 'DA',
}
PER_SOURCE = 4


@dataclasses.dataclass(frozen=True)
class Copy:
  """One copy; `other` is the video it is mixed with, or ''."""

  id: str
  source: str
  edit: str
  relation: str
  other: str = ''


def plan(recipe: script_lib.Recipe, scripts) -> list[Copy]:
  """Chooses sources and edits: four different edits of each source."""
  n = int(recipe.counts.get('copies', 0))
  test = [s.id for s in scripts if s.split == 'test']
  rng = script_lib.rng_of(recipe.seed, 'copies')
  sources = rng.permutation(len(test))
  edits = list(EDITS)
  copies = []
  for i in range(n):
    place = i // PER_SOURCE
    source = test[sources[place % len(test)]]
    edit = edits[i % len(edits)]
    other = ''
    if edit in ('inset', 'excerpt', 'dub') and len(test) > 1:
      # Hosts come from the far end of the order, sources from the near one.
      host = test[sources[-1 - place % len(test)]]
      other = host if host != source else test[sources[place % len(test) - 1]]
    copies.append(Copy(f'copies{i:05d}', source, edit, EDITS[edit], other))
  return copies


def apply(
  copy: Copy,
  recipe: script_lib.Recipe,
  film: np.ndarray,
  sound: np.ndarray,
  other: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Edits a decoded clip.

  Args:
    copy: what to do; not 'camera' or 'sequel', which are filmed anew.
    recipe: of the corpus, for the seed.
    film: uint8 [t, h, w, 3] of the source.
    sound: float32 [s] of the source.
    other: film and sound of `copy.other`.

  Returns:
    (film, sound) of the copy.
  """
  rng = script_lib.rng_of(recipe.seed, copy.id)
  t, h, w, _ = film.shape
  if other is None:
    other = film[::-1], sound
  if copy.edit == 'crop':
    scale = float(rng.uniform(0.75, 0.9))
    y0 = float(rng.uniform(0, h * (1 - scale)))
    x0 = float(rng.uniform(0, w * (1 - scale)))
    return _resize(film, h, w, y0, x0, scale), sound
  if copy.edit == 'overlay':
    frames = film.astype(np.float32)
    for frame in frames:
      render.overlay(frame, 'copy', 'top')
    return frames.clip(0, 255).astype(np.uint8), sound
  if copy.edit == 'speed':
    rate = (2 / 3, 4 / 3)[int(rng.integers(2))]
    at = (np.arange(int(t / rate)) * rate).astype(int).clip(0, t - 1)
    # Tape speed: pitch moves along.
    place = np.arange(int(len(sound) / rate)) * rate
    return film[at], np.interp(place, np.arange(len(sound)), sound)
  if copy.edit == 'blur':
    return _blur(_blur(film)), sound
  if copy.edit == 'colour':
    gain = rng.uniform(0.75, 1.25, 3)
    shift = float(rng.uniform(-25, 25))
    return (film * gain + shift).clip(0, 255).astype(np.uint8), sound
  if copy.edit == 'inset':
    host = other[0][np.arange(t) % len(other[0])].copy()
    host[:, 12 : 12 + h * 2 // 3, 8 : 8 + w * 2 // 3] = _resize(
      film, h * 2 // 3, w * 2 // 3, 0, 0, 1
    )
    return host, sound
  if copy.edit == 'excerpt':
    a, b = t // 4, max(t * 3 // 4, t // 4 + 1)
    rate = script_lib.RATE // script_lib.FPS
    return (
      np.concatenate([film[a:b], other[0][: t // 2]]),
      np.concatenate([sound[a * rate : b * rate], other[1][: t // 2 * rate]]),
    )
  if copy.edit == 'dub':
    return other[0], np.resize(sound, len(other[1]))
  raise ValueError(f'No edit {copy.edit!r} of a decoded clip.')


def _resize(film, height, width, y0, x0, scale) -> np.ndarray:
  """Nearest-neighbour view of the window at (y0, x0), `scale` of the frame."""
  h, w = film.shape[1:3]
  y = y0 + (np.arange(height) + 0.5) * h * scale / height
  x = x0 + (np.arange(width) + 0.5) * w * scale / width
  y, x = y.astype(int).clip(0, h - 1), x.astype(int).clip(0, w - 1)
  return film[:, y][:, :, x]


def _blur(film: np.ndarray) -> np.ndarray:
  """3 x 3 box filter with repeated borders."""
  wide = np.pad(film, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  wide = wide.astype(np.uint16)
  h, w = film.shape[1:3]
  total = sum(wide[:, i : i + h, j : j + w] for i in range(3) for j in range(3))
  return (total // 9).astype(np.uint8)
