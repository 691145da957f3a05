# SPDX-License-Identifier: Apache-2.0
"""Region features of videos that come as frames, made by the model itself."""

from collections.abc import Callable, Sequence
import functools
from typing import Any, Protocol

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.models import base

_BATCH = 256  # Frames at a time.


class Films(Protocol):
  """Videos as frames.

  Attributes:
    ids: names.
    lengths: int64 [v] frames; 0: the video is missing.
    found: bool [v].
    size: (height, width) of all frames.
  """

  ids: Sequence[str]
  lengths: np.ndarray
  found: np.ndarray
  size: tuple[int, int]

  def frames(self, i: int) -> np.ndarray:
    """uint8 [lengths[i], height, width, 3]."""


class Seen:
  """Videos as region features, in memory; see `copy_reading.View`.

  Attributes:
    ids: names.
    lengths: int64 [v] frames.
    found: bool [v].
    regions: of a frame.
    dim: of a region.
    dtype: float32.
  """

  dtype = np.dtype(np.float32)

  def __init__(self, films: Films, features: np.ndarray):
    """Wraps [frames of all videos, r, d], video after video."""
    self.ids, self.lengths, self.found = films.ids, films.lengths, films.found
    self.regions, self.dim = features.shape[1:]
    self._features = features
    self._start = np.concatenate([[0], np.cumsum(films.lengths)])

  def __len__(self) -> int:
    return len(self.ids)

  def read(self, i: int) -> np.ndarray:
    """float32 [lengths[i], regions, dim]."""
    return self._features[self._start[i] : self._start[i + 1]]


def see(
  model: base.Retriever,
  mesh: Mesh,
  variables: Any,
  films: Films,
  watch: Callable[..., Any] | None = None,
) -> Seen:
  """Shows all frames of videos to the backbone of a model.

  Args:
    model: with a method `see`: uint8 [n, h, w, 3] -> [n, r, d].
    mesh: of devices.
    variables: of the model.
    films: the videos.
    watch: see `evaluators.base.progress`; None shows nothing.

  Raises:
    TypeError: the model sees nothing.
  """
  if not hasattr(model, 'see'):
    raise TypeError(
      f'{type(model).__name__} makes no regions of frames: give it data that '
      'have region features.'
    )
  # Every process sees all videos, on its own devices.
  mesh = mesh.local_mesh
  parts = mesh.devices.size
  size = -(-_BATCH // parts) * parts
  rows = sharding.batch_sharding(mesh)
  call = _program(model, mesh)
  variables = jax.device_put(
    sharding.fetch(variables), sharding.replicated(mesh)
  )
  waiting = np.zeros((0, *films.size, 3), np.uint8)
  out = []

  def show(batch):
    spare = ((0, size - len(batch)), (0, 0), (0, 0), (0, 0))
    made = call(variables, jax.device_put(np.pad(batch, spare), rows))
    out.append(np.asarray(made)[: len(batch)])

  numbers = range(len(films.ids))
  for i in watch(numbers, len(numbers), 'frames') if watch else numbers:
    if films.lengths[i]:
      waiting = np.concatenate([waiting, films.frames(i)])
    while len(waiting) >= size:
      show(waiting[:size])
      waiting = waiting[size:]
  show(waiting)
  return Seen(films, np.concatenate(out))


@functools.lru_cache(maxsize=16)
def _program(model, mesh):
  rows = sharding.batch_sharding(mesh)
  return jax.jit(
    lambda variables, frames: model.apply(variables, frames, method='see'),
    out_shardings=rows,
  )
