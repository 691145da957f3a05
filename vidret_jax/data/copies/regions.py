# SPDX-License-Identifier: Apache-2.0
"""Region vectors of videos in one HDF5 file, as the MeVer group publishes them.

One dataset per video at the root, key = video id, float [T, 9, 512]: frames,
regions, features. A dataset of two axes has one region.
"""

import collections
from collections.abc import Collection, Mapping
import dataclasses
import os
import pathlib
import threading
from typing import Any

from absl import logging
import numpy as np

from vidret_jax.data import bad_file, hdf5_files
from vidret_jax.data.frames import store as frames_store

EMPTY = ('error', 'missing')
_MAX_SIZE = 1 << 30  # Numbers of one video; a day of 9 x 512 has 4e8.
_MANY = 5000  # Videos from which a progress bar is worth its lines.


@dataclasses.dataclass(frozen=True)
class Shapes:
  """What is known of a file without reading its numbers.

  Attributes:
    lengths: video -> frames; those that are missing are no keys.
    regions: of every video; one with a single region counts as having it in
      every place.
    dim: width.
  """

  lengths: Mapping[str, int]
  regions: int
  dim: int


def scan(
  path: pathlib.Path,
  names: Collection[str],
  *,
  empty: str = 'error',
  progress: bool = False,
) -> Shapes:
  """Looks at the datasets of some videos; about 0.2 ms each.

  Args:
    path: of the file.
    names: videos; the file need not have all of them.
    empty: a video without frames is an 'error', or 'missing'.
    progress: shows a bar.

  Raises:
    ValueError: no HDF5, none of the videos, or a dataset of another kind, width
      or number of regions than the others.
  """
  if empty not in EMPTY:
    raise ValueError(f'Unknown empty={empty!r}; choose from {EMPTY}.')
  found, kinds = {}, collections.Counter()
  label = f'{path.name}: lengths'
  with (
    hdf5_files.open_file(path) as file,
    frames_store.bar(
      len(names), label, progress and len(names) > _MANY
    ) as advance,
  ):
    for name in names:
      with hdf5_files.readable(path):
        there = name in file
      if there:
        item = hdf5_files.dataset(file, name, path)
        found[name] = _shape(item, name, path)
        kinds[f'{item.dtype}, {_storage(item)}'] += 1
      advance(1)
  if not found:
    raise bad_file.BadFile(
      f'{path}: has none of the {len(names)} videos of the annotations, such '
      f'as {next(iter(names), None)!r}. Is it the file of another collection?'
    )
  shapes = _agreed(found, path, empty)
  times = list(shapes.lengths.values())
  logging.info(
    '%s: %d of %d videos, %d regions x %d, %d to %d frames (mean %.1f); %s',
    path, len(times), len(names), shapes.regions, shapes.dim,
    min(times), max(times), sum(times) / len(times),
    '; '.join(f'{n} {kind}' for kind, n in kinds.most_common()),
  )  # fmt: skip
  return shapes


class File:
  """Reads videos of one file, in several threads and after a fork.

  Every thread of every process opens the file for itself, at its first read.
  """

  def __init__(self, path: pathlib.Path, shapes: Shapes):
    """Takes what `scan` found in the file."""
    self.path, self.shapes = path, shapes
    self._local = threading.local()

  def __getstate__(self):
    return {'path': self.path, 'shapes': self.shapes}

  def __setstate__(self, state):
    self.__init__(**state)

  def read(self, name: str) -> np.ndarray:
    """Float32 [T, r, d] of a video; a single region is in every place.

    With one region of the database repeated, its best of r, its mean of the
    best k and the mean over r of the query are what they were.

    Raises:
      ValueError: the file has changed or is damaged, or NaN or Inf in it.
    """
    try:
      item = hdf5_files.dataset(self._opened(), name, self.path)
      t, r, d = _shape(item, name, self.path)
      found = _numbers(item, self.path).reshape(t, r, d)
      with np.errstate(over='ignore'):  # Such numbers are found below.
        found = found.astype(np.float32, copy=False)
    except (OSError, RuntimeError) as error:
      raise bad_file.BadFile(
        f'{self.path}: video {name!r} cannot be read ({str(error)[:200]}). '
        'The file is damaged: fetch it again and compare its size.'
      ) from None
    if t != self.shapes.lengths[name]:
      raise bad_file.BadFile(
        f'{self.path}: video {name!r} has {t} frames, expected '
        f'{self.shapes.lengths[name]} as when the file was opened. Do not '
        'change it in the meantime.'
      )
    if not np.isfinite(found).all():
      frame = int(np.flatnonzero(~np.isfinite(found).all((1, 2)))[0])
      raise bad_file.BadFile(
        f'{self.path}: NaN or Inf in frame {frame} of video {name!r}, expected '
        'finite numbers. Extract it again, or take it out of the file: then it '
        'counts as missing.'
      )
    wanted = (t, self.shapes.regions, d)
    return np.ascontiguousarray(np.broadcast_to(found, wanted))

  def _opened(self):
    local = self._local
    if getattr(local, 'process', None) != os.getpid():
      if hasattr(local, 'file'):
        local.file.close()  # A fork must not read through its parent's handle.
      local.file, local.process = hdf5_files.opened(self.path), os.getpid()
    return local.file


def _numbers(item: Any, path: pathlib.Path) -> np.ndarray:
  """All numbers of a dataset, in its own type."""
  import h5py

  start = item.id.get_offset()
  native = item.id.get_type() == h5py.h5t.py_create(item.dtype)
  if start is None or item.chunks or item.file.userblock_size or not native:
    return item[()]
  # They lie in one piece: read past HDF5, which lets one thread in at a time.
  out = np.empty(item.shape, item.dtype)
  flat, done = out.reshape(-1).view(np.uint8), 0
  with open(path, 'rb', buffering=0) as stream:
    while done < len(flat):
      got = os.preadv(stream.fileno(), [flat[done:]], start + done)
      if not got:
        raise OSError(f'it ends after {done} of {len(flat)} bytes')
      done += got
  return out


def _storage(item) -> str:
  if not item.chunks:
    return 'in one piece'
  return f'in chunks, compression {item.compression}'


def _shape(item, name, path) -> tuple[int, int, int]:
  """(T, r, d) of a dataset."""
  shape = item.shape or ()
  if (
    item.dtype.kind != 'f'
    or item.dtype.itemsize not in (2, 4, 8)
    or len(shape) not in (2, 3)
    or not all(shape[1:])
    or item.size > _MAX_SIZE
  ):
    raise bad_file.BadFile(
      f'{path}: video {name!r} is {item.dtype} {list(shape)}, expected floats '
      '[frames, regions, width] or [frames, width]. Extract it again.'
    )
  return (shape[0], 1, shape[1]) if len(shape) == 2 else tuple(shape)


def _agreed(found, path, empty) -> Shapes:
  """Refuses videos that differ from the others."""
  none = [name for name, (t, _, _) in found.items() if not t]
  if none and empty == 'error':
    raise bad_file.BadFile(
      f'{path}: video {none[0]!r} has no frames ({len(none)} such), expected '
      "one or more. Extract it again, or set empty='missing' in the data of "
      'the config: then they count as missing.'
    )
  rest = {name: shape for name, shape in found.items() if shape[0]}
  if not rest:
    raise bad_file.BadFile(f'{path}: none of its videos has frames.')
  dims = collections.Counter(d for _, _, d in rest.values())
  counts = collections.Counter(r for _, r, _ in rest.values() if r > 1)
  dim = dims.most_common(1)[0][0]
  regions = counts.most_common(1)[0][0] if counts else 1
  for name, (t, r, d) in rest.items():
    if d != dim or r not in (1, regions):
      raise bad_file.BadFile(
        f'{path}: video {name!r} is {[t, r, d]}, expected [frames, {regions}, '
        f'{dim}] (frames, regions, width) as most others are. Extract it again '
        'with the same network.'
      )
  if none:
    logging.warning(
      '%s: %d videos have no frames, such as %r; they count as missing.',
      path, len(none), none[0],
    )  # fmt: skip
  return Shapes({name: t for name, (t, _, _) in rest.items()}, regions, dim)
