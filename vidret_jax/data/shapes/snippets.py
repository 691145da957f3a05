# SPDX-License-Identifier: Apache-2.0
"""Clip features of the corpus: its experts as twelve snippets in time.

Some experts are measured in parts of time (measure.py); laid side by side at
twelve equal steps they are what a network over clip features reads, as the
snippets of TBN or the frames of a ResNet elsewhere.
"""

from collections.abc import Sequence
import pathlib

import numpy as np

from vidret_jax.data.graphs import features
from vidret_jax.data.shapes import measure

STEPS = 12  # The least number that 3, 4 and 6 parts divide.
# Parts of time within the vector of an expert, in order; the others of one
# vector hold for the whole clip.
PARTS = {'colour': 4, 'layout': 3, 'motion': 6}
STREAMS = (
  'colour',
  'layout',
  'motion',
  'shape',
  'texture',
  'audio',
  'ocr',
  'speech',
)


def check(streams: Sequence[str]) -> None:
  """Refuses unknown, repeated or no streams.

  Raises:
    ValueError: naming the stream.
  """
  if not streams or isinstance(streams, str):
    raise ValueError(
      f'streams={streams!r}: expected one or more of {list(STREAMS)}.'
    )
  for name in streams:
    if name not in STREAMS or list(streams).count(name) > 1:
      raise ValueError(
        f'streams: {name!r} is unknown or given twice; choose each once from '
        f'{list(STREAMS)}.'
      )


def widths(streams: Sequence[str]) -> list[int]:
  """Width of each stream in a snippet; D is their sum."""
  return [measure.DIMS[name] // PARTS.get(name, 1) for name in streams]


def stream(name: str, value: np.ndarray) -> np.ndarray:
  """One expert at twelve steps of time.

  Parts of time are repeated. Windows of sound are averaged into the steps;
  there are at most 24, so of clips longer than six seconds the last ones are
  missing and the steps come a bit early. Words have no time: their mean stands
  at every step, as do shape and texture.

  Args:
    name: of the expert.
    value: float [n, d] as measured; n = 0 where it is missing.

  Returns:
    float32 [12, w], zeros where the expert is missing. Else the mean square of
    its row norms is 1: the units of experts have nothing in common, and no
    network should have to learn them. Strong and weak moments of a clip keep
    their proportion.
  """
  [w] = widths([name])
  if not len(value):
    return np.zeros((STEPS, w), np.float32)
  value = np.asarray(value, np.float64)
  if name in PARTS:
    rows = np.repeat(value.reshape(-1, w), STEPS // PARTS[name], axis=0)
  elif name == 'audio':
    cuts = np.arange(STEPS + 1) * len(value) / STEPS
    low, high = cuts[:-1].astype(int), np.ceil(cuts[1:]).astype(int)
    rows = np.stack(
      [value[a:b].mean(axis=0) for a, b in zip(low, high, strict=True)]
    )
  else:
    rows = np.repeat(value.mean(axis=0, keepdims=True), STEPS, axis=0)
  size = np.sqrt(np.mean((rows**2).sum(axis=1)))
  return (rows / max(size, 1e-6)).astype(np.float32)


def clip(path: pathlib.Path, streams: Sequence[str]) -> np.ndarray:
  """float32 [12, D], the streams side by side, of a clip's measured experts.

  Args:
    path: experts/<id>.npz of a corpus folder.
    streams: names of experts.
  """
  with np.load(path, allow_pickle=False) as file:
    return np.concatenate([stream(n, file[n]) for n in streams], axis=1)


class Clips:
  """Features of some clips, in memory: 21 kB a clip with all streams.

  Attributes:
    shape: (f, d) of a clip.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    ids: Sequence[str],
    streams: Sequence[str],
    max_frames: int,
  ):
    """Reads them.

    Args:
      folder: of the corpus.
      ids: of the clips.
      streams: names of experts.
      max_frames: f; with fewer than twelve, some of the snippets.
    """
    check(streams)
    self.shape = (max_frames, sum(widths(streams)))
    self._rows = np.zeros((len(ids), *self.shape), np.float32)
    self._mask = np.zeros(max_frames, bool)
    for row, name in zip(self._rows, ids, strict=True):
      found = clip(folder / 'experts' / f'{name}.npz', streams)
      row[:], self._mask[:] = features.select(found, max_frames)

  def read(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `vidret_jax.data.graphs.store.Clips`."""
    absent = clips < 0
    rows = self._rows[np.maximum(clips, 0)]
    rows[absent] = 0
    return rows, self._mask & ~absent[:, None]
