# SPDX-License-Identifier: Apache-2.0
"""Pairs of views of unlabelled videos, from features that were made before.

The networks of a copy detector's regions and frame labels are frozen, so their
outputs can be kept. Then a step needs no pictures, and nothing that happens to
pictures can be learnt: of all augmentations only those of time are left (part,
speed, order, dropped and repeated frames), and video in video is none of them.
This is the cheap way to train, not the published one.

One HDF5 file:

  regions/<video>  float [T, R, D]  region vectors of each frame
  labels/<video>   float [T, L]     features of the labelling network

T is the same for both, R, D and L for all videos. `tools.extract` writes it.
A black frame becomes zeros, a frame of noise random directions of unit length
(regions), or of the length that another frame has (labels).
"""

from collections.abc import Mapping
import os
import pathlib
import threading
from typing import Any

import numpy as np

from vidret_jax.data import bad_file, hdf5_files
from vidret_jax.data.augment import draws, recipe, temporal

REGIONS, LABELS = 'regions', 'labels'


def make(
  *,
  path: str | os.PathLike,
  view: str = 'pairs',
  split: str = 'train',
  percentage: float = 1.0,
  window: int = 28,
  labels: bool = True,
  augment: Mapping[str, Any] | None = None,
) -> 'Pairs':
  """Opens a file of features.

  Args:
    path: of the file.
    view: 'pairs'.
    split: 'train'; nothing is held out.
    percentage: this part of the sorted list of videos, from its start; above 0,
      at most 1.
    window: W, frames of a view.
    labels: whether batches have label features, for the loss of frames.
    augment: options of `augment.recipe.Recipe`; those of pictures do nothing.

  Raises:
    ValueError: an option with a value it cannot have, or a bad file.
  """
  if view != 'pairs' or split != 'train':
    raise ValueError(
      f"no view {view!r} of split {split!r}: expected 'pairs' of 'train'."
    )
  if not 0 < percentage <= 1:
    raise ValueError(
      f'percentage={percentage}: expected a part of the videos, above 0 and at '
      'most 1.'
    )
  if window < 1:
    raise ValueError(f'window={window}: expected 1 frame or more.')
  return Pairs(
    pathlib.Path(path), percentage, window, labels, recipe.make(augment)
  )


class Pairs:
  """Two views of every video.

  Attributes:
    ids: video ids.
    spec: see `data.source.Source`.
  """

  def __init__(
    self,
    path: pathlib.Path,
    percentage: float,
    window: int,
    labels: bool,
    how: recipe.Recipe,
  ):
    """See `make`."""
    self._path, self._window, self._times = path, window, how.times()
    self._kinds = (REGIONS, LABELS) if labels else (REGIONS,)
    self._local = threading.local()
    with hdf5_files.open_file(path) as file:
      groups = {kind: _group(file, kind, path) for kind in self._kinds}
      with hdf5_files.readable(path):
        names = {kind: set(groups[kind]) for kind in self._kinds}
      for kind in self._kinds[1:]:
        if alone := sorted(names[REGIONS] ^ names[kind]):
          raise bad_file.BadFile(
            f'{path}: {len(alone)} videos are in only one of {REGIONS!r} and '
            f'{kind!r}, the first is {alone[0]!r}. Extract both of all videos, '
            'or set labels=False.'
          )
      listed = sorted(names[REGIONS])
      self.ids = tuple(listed[: int(len(listed) * percentage)])
      if not self.ids:
        raise bad_file.BadFile(
          f'{path}: {len(listed)} videos, of which percentage={percentage:g} '
          'leaves none. Raise it, or extract features.'
        )
      first = {
        kind: _item(groups[kind], self.ids[0], kind, path)
        for kind in self._kinds
      }
      # Half precision stays as it is; all else becomes float32.
      self._dtype = np.dtype(
        np.float16
        if all(item.dtype == np.float16 for item in first.values())
        else np.float32
      )
      self._shapes = {k: tuple(item.shape[1:]) for k, item in first.items()}
    self.spec = {'_mask': ((), np.dtype(bool))}
    for view in ('weak', 'strong'):
      for kind, shape in self._shapes.items():
        self.spec[_key(view, kind)] = ((window, *shape), self._dtype)

  def __len__(self) -> int:
    return len(self.ids)

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    """See `data.source.Source`.

    Returns:
      weak, strong: float16 or float32 [b, W, R, D].
      weak_labels, strong_labels: the same [b, W, L], unless labels=False.
      _mask: bool [b].

    Raises:
      ValueError: a video that differs from the others or is damaged; names it.
    """
    index, seeds = np.asarray(index), np.asarray(seeds)
    out = {
      key: np.zeros((len(index), *shape), dtype)
      for key, (shape, dtype) in self.spec.items()
    }
    for row in np.flatnonzero(index >= 0).tolist():
      made = self._example(self.ids[index[row]], int(seeds[row]))
      for key, value in made.items():
        out[key][row] = value
      out['_mask'][row] = True
    return out

  def _example(self, name, seed):
    items = {k: self._item(k, name) for k in self._kinds}
    counts = {k: len(item) for k, item in items.items()}
    if len(set(counts.values())) > 1:
      raise bad_file.BadFile(
        f'{self._path}: video {name!r} has {counts} frames, expected as many '
        'of each. Extract it again.'
      )
    count = counts[REGIONS]
    views = temporal.two_views(count, self._window, self._times, seed)
    needed = np.concatenate(views)
    start, end = needed[needed >= 0].min(), needed.max() + 1
    made = {}
    for kind, item in items.items():
      with hdf5_files.readable(self._path):
        rows = item[start:end].astype(self._dtype)
      if not np.isfinite(rows).all():
        raise bad_file.BadFile(
          f'{self._path}: {kind}/{name}: NaN or Inf in frames {start} to '
          f'{end - 1}, expected finite numbers. Extract it again.'
        )
      for view, times in zip(('weak', 'strong'), views):
        made[_key(view, kind)] = _shown(rows, times, start, kind, seed)
    return made

  def _item(self, kind, name):
    item = _item(self._groups()[kind], name, kind, self._path)
    if tuple(item.shape[1:]) != self._shapes[kind]:
      raise bad_file.BadFile(
        f'{self._path}: {kind}/{name}: shape {list(item.shape)}, expected '
        f'frames x {list(self._shapes[kind])} as video {self.ids[0]!r} has. '
        'Extract it again with the same network.'
      )
    return item

  def _groups(self):
    """Open groups; every thread of every process opens the file for itself."""
    local = self._local
    if getattr(local, 'process', None) != os.getpid():
      local.file = hdf5_files.opened(self._path)
      local.groups = {k: _group(local.file, k, self._path) for k in self._kinds}
      local.process = os.getpid()
    return local.groups


def _key(view: str, kind: str) -> str:
  return view if kind == REGIONS else f'{view}_{kind}'


def _shown(rows, times, start, kind, seed):
  """[W, ...], the rows of a view; `rows` begin with frame `start`."""
  out = rows[np.maximum(times - start, 0)]
  for slot in np.flatnonzero(times < 0).tolist():
    number = temporal.NOISE - int(times[slot])
    if number < 0:
      out[slot] = 0
      continue
    rng = draws.generator(seed, draws.NOISE + number)
    drawn = rng.standard_normal(out[slot].shape)
    drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
    if kind == LABELS:
      drawn *= np.linalg.norm(rows[0].astype(np.float64))
    out[slot] = drawn
  return out


def _group(file: Any, kind: str, path: pathlib.Path) -> Any:
  """A group whose contents lie in this very file."""
  import h5py

  with hdf5_files.readable(path):
    link = file.get(kind, getlink=True) if kind in file else None
    found = file[kind] if isinstance(link, h5py.HardLink) else None
  if not isinstance(found, h5py.Group):
    raise bad_file.BadFile(
      f'{path}: no group {kind!r}, expected {REGIONS}/<video> and '
      f'{LABELS}/<video>; the file has {hdf5_files.names(file, path)[:8]}. '
      'tools.extract makes such files.'
    )
  return found


def _item(group: Any, name: str, kind: str, path: pathlib.Path) -> Any:
  item = hdf5_files.dataset(group, name, path)
  axes = 3 if kind == REGIONS else 2
  if item.dtype.kind != 'f' or len(item.shape) != axes or not all(item.shape):
    raise bad_file.BadFile(
      f'{path}: {kind}/{name}: {item.dtype} {list(item.shape)}, expected '
      f'floats with {axes} axes, none of them empty. Extract it again.'
    )
  return item
