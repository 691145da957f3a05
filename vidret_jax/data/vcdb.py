# SPDX-License-Identifier: Apache-2.0
"""Unlabelled videos as folders of frames, one per second, to train on.

HAP-VR and S2VS train on the 100,000 background videos ("distractors") of VCDB
(Jiang et al., ECCV 2014). Any videos do; nothing is held out.

  <root>/<video>/00000.jpg, 00001.jpg, ...

`tools.extract --what frames` writes such folders, as does ffmpeg:
`ffmpeg -i VIDEO -vf fps=1 -start_number 0 FOLDER/%05d.jpg`.
"""

from collections.abc import Mapping, Sequence
import functools
import os
import pathlib
import re
from typing import Any

from absl import logging
import numpy as np
from PIL import Image

from vidret_jax.data.copies import clips, feature_cache
from vidret_jax.data.frames import files
from vidret_jax.data.frames import transform as transform_lib
from vidret_jax.data.shapes import corpus

FOLDER = 'VCDB/frames'
_NUMBER = re.compile(r'(?:.*_)?(\d+)\.jpe?g', re.IGNORECASE)
_MAX_FILE = 64 << 20  # Bytes of one frame's file.
_MAX_RATIO = 16  # Of the sides; what a whole clip may need is bounded by it.
_LISTED = 512  # Folders whose file names are remembered.


def make(
  *,
  view: str = 'pairs',
  split: str = 'train',
  root: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
  percentage: float = 1.0,
  window: int = 28,
  size: int = 224,
  resize: int = 256,
  transform: str = 'exact',
  augment: Mapping[str, Any] | None = None,
  unreadable: str = 'mask',
  num_threads: int | None = None,
  features: str | os.PathLike | None = None,
  labels: bool = True,
) -> clips.Pairs | feature_cache.Pairs:
  """Opens the videos.

  Args:
    view: 'pairs'.
    split: 'train'; nothing is held out.
    root: folders of folders of frames, a list or joined by commas; None takes
      `VCDB/frames` below the data folder.
    percentage: this part of the list of videos, from its start; above 0, at
      most 1.
    window: W, frames of a view.
    size: R, side of its frames in pixels.
    resize: shorter side of a frame before it is cropped.
    transform: 'exact', or 'fast', which lets libjpeg shrink large frames.
    augment: see `augment.recipe.Recipe`.
    unreadable: see `clips.Pairs`.
    num_threads: see `clips.Pairs`.
    features: file of features to train from instead of frames; see
      `copies.feature_cache`. No option of frames matters then.
    labels: with `features`, whether batches have label features.

  Raises:
    ValueError: an option with a value it cannot have, no such folder, or no
      folder with frames in it.
  """
  if view != 'pairs':
    raise ValueError(
      f'vcdb has no view {view!r}, only pairs to train on. Evaluate on a '
      'collection with annotations.'
    )
  if split != 'train':
    raise ValueError(f"vcdb has no split {split!r}, only 'train'.")
  if features is not None:
    return feature_cache.make(
      path=features,
      percentage=percentage,
      window=window,
      labels=labels,
      augment=augment,
    )
  return clips.Pairs(
    Folders(_roots(root), percentage, resize=resize, transform=transform),
    window=window,
    size=size,
    augment=augment,
    unreadable=unreadable,
    num_threads=num_threads,
  )


def _roots(root) -> list[pathlib.Path]:
  if root is None:
    return [corpus.data_root() / FOLDER]
  if isinstance(root, (str, os.PathLike)):
    root = [name.strip() for name in os.fspath(root).split(',')]
  return [pathlib.Path(name) for name in root if os.fspath(name)]


class Folders:
  """Videos that are folders of numbered JPEGs; a `clips.Store`.

  A folder counts as a video if it has a frame; there may be gaps between the
  numbers.

  Attributes:
    ids: names of the folders in their order, below their root where there are
      several.
  """

  def __init__(
    self,
    roots: Sequence[pathlib.Path],
    percentage: float = 1.0,
    *,
    resize: int = 256,
    transform: str = 'exact',
  ):
    """Lists the folders; files are opened when they are needed.

    Args:
      roots: see `make`, as are the others.
      percentage: see `make`.
      resize: see `make`.
      transform: see `make`.

    Raises:
      ValueError: see `make`.
    """
    if not 0 < percentage <= 1:
      raise ValueError(
        f'percentage={percentage}: expected a part of the videos, above 0 and '
        'at most 1.'
      )
    if resize < 1:
      raise ValueError(f'resize={resize}: expected 1 or more pixels.')
    transform_lib.check(transform)
    found = [path for root in roots for path in _videos(root)]
    if not found:
      raise ValueError(
        f'{", ".join(map(str, roots)) or "no folder"}: no folder with frames '
        'below. Expected <root>/<video>/00000.jpg and so on; tools.extract '
        '--what frames makes them.'
      )
    # The order is that of whole paths, as upstream's.
    found = sorted(found)[: int(len(found) * percentage)]
    if not found:
      raise ValueError(f'percentage={percentage}: leaves no video. Raise it.')
    several = len(set(roots)) > 1
    self.ids = tuple(str(path) if several else path.name for path in found)
    self._paths, self._size, self._transform = found, resize, transform
    # Listed when asked for twice, by count and by read.
    self._names = functools.lru_cache(_LISTED)(self._list)

  def _list(self, video: int) -> tuple[str, ...]:
    path = self._paths[video]
    names = [name for name in os.listdir(path) if _is_frame(name)]
    if not names:
      raise files.UnreadableClip(f'{path}: holds no frames any more')
    return tuple(sorted(names, key=_place))

  def count(self, video: int) -> int:
    """See `clips.Store`."""
    return len(self._names(video))

  def read(self, video: int, frames: np.ndarray) -> np.ndarray:
    """See `clips.Store`."""
    names = self._names(video)
    out = []
    for i in frames.tolist():
      path = self._paths[video] / names[i]
      pixels = self._decoded(path)
      if out and pixels.shape != out[0].shape:
        raise files.UnreadableClip(
          f'{path}: {pixels.shape[1]} x {pixels.shape[0]} pixels, other frames '
          f'of the video {out[0].shape[1]} x {out[0].shape[0]}'
        )
      out.append(pixels)
    return np.stack(out)

  def _decoded(self, path):
    """uint8 [h, w, 3], the shorter side resized."""
    try:
      if (size := path.stat().st_size) > _MAX_FILE:
        raise files.UnreadableClip(
          f'{path}: has {size} bytes, expected at most {_MAX_FILE}'
        )
      image = transform_lib.decoded(
        path.read_bytes(), self._size, self._transform
      )
    except (transform_lib.UnreadableImage, OSError) as error:
      raise files.UnreadableClip(f'{path}: {error}') from None
    short = min(image.size)
    if max(image.size) > _MAX_RATIO * short:
      raise files.UnreadableClip(
        f'{path}: {image.width} x {image.height} pixels, expected at most '
        f'{_MAX_RATIO} times as long as wide'
      )
    if short != self._size:
      shape = [max(side * self._size // short, 1) for side in image.size]
      image = image.resize(shape, Image.Resampling.BICUBIC)
    return np.asarray(image)


def _videos(root) -> list[pathlib.Path]:
  """Folders with frames, directly in a folder."""
  if not root.is_dir():
    raise ValueError(
      f'{root}: no such folder. Expected <root>/<video>/00000.jpg and so on; '
      'tools.extract --what frames makes them.'
    )
  found, bare = [], []
  with os.scandir(root) as entries:
    for entry in entries:
      if entry.is_dir() and not entry.name.startswith('.'):
        (found if _has_frames(entry.path) else bare).append(entry.path)
  if bare:
    logging.warning(
      '%d folders without frames are left out, the first is %s',
      *(len(bare), min(bare)),
    )
  return [pathlib.Path(path) for path in found]


def _has_frames(path) -> bool:
  # Nearly always the first guess is right, and a look is cheaper than a list.
  if os.path.exists(os.path.join(path, '00000.jpg')):
    return True
  with os.scandir(path) as entries:
    return any(_is_frame(entry.name) for entry in entries)


def _is_frame(name) -> bool:
  return name[0] != '.' and _NUMBER.fullmatch(name) is not None


def _place(name):
  return int(_NUMBER.fullmatch(name)[1]), name
