# SPDX-License-Identifier: Apache-2.0
"""Queries or database of a collection, with the features of every video.

A video that the features do not have keeps its place, with length 0: nothing
is dropped from an evaluation, and what is missing can be counted.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools

import numpy as np

from vidret_jax.data import playable
from vidret_jax.data.copies import annotations as annotations_lib

VIEWS = ('queries', 'items')


@dataclasses.dataclass(frozen=True)
class Collection:
  """What both views of a split share.

  Attributes:
    annotations: of the split.
    lengths: video -> frames as stored; those that are missing are no keys.
    regions: r of every video.
    dim: d.
    dtype: of the features that `read` returns.
    read: video -> [lengths[video], r, d]; raises ValueError naming file and
      video for what cannot be read or is not finite. Safe in several threads.
    where: the file or folder that is read, for messages.
  """

  annotations: annotations_lib.Annotations
  lengths: dict[str, int]
  regions: int
  dim: int
  dtype: np.dtype
  read: Callable[[str], np.ndarray]
  where: str


class View:
  """Queries or database; equal arguments give equal arrays.

  Attributes:
    annotations: of the split; one object for both views.
    ids: sorted, missing videos included.
    lengths: int64 [v], frames after `repeated`; 0 where the video is missing.
    found: bool [v], whether the video is there.
    regions: r.
    dim: d.
    dtype: of what `read` returns, float32 or float16.
    where: the file or folder that is read, for messages.
  """

  def __init__(
    self,
    collection: Collection,
    kind: str,
    *,
    min_frames: int = 8,
    videos: str | None = None,
  ):
    """Wraps a collection.

    Args:
      collection: of the split.
      kind: one of `VIEWS`.
      min_frames: shorter videos are repeated, see `repeated`.
      videos: folder of files that can be played, for reports.
    """
    self.annotations = collection.annotations
    self.ids = {
      'queries': self.annotations.queries,
      'items': self.annotations.database,
    }[kind]
    self.regions, self.dim = collection.regions, collection.dim
    self.dtype, self.where = collection.dtype, collection.where
    self._collection, self._folder = collection, videos
    self._least = min_frames
    self.lengths = np.asarray(
      [
        repeated(collection.lengths.get(name, 0), min_frames)
        for name in self.ids
      ],
      np.int64,
    )
    self.found = self.lengths > 0

  def __len__(self) -> int:
    return len(self.ids)

  def read(self, i: int) -> np.ndarray:
    """Region vectors of one video; several threads may read.

    Args:
      i: place in `ids`.

    Returns:
      `dtype` [lengths[i], r, d]; of a missing video [0, r, d].

    Raises:
      ValueError: naming file and video: damaged, or NaN or Inf in it.
    """
    if not self.found[i]:
      return np.zeros((0, self.regions, self.dim), self.dtype)
    found = self._collection.read(self.ids[i])
    times = int(self.lengths[i]) // len(found)
    return np.concatenate([found] * times) if times > 1 else found

  @functools.cached_property
  def videos(self) -> Sequence[str | None]:
    """Per video, the path of a playable file, or None."""
    return [playable.find(self._folder, name) for name in self.ids]


def repeated(frames: int, minimum: int) -> int:
  """Frames of a video that is doubled until it has enough.

  `HDF5DatasetGenerator` of HAP-VR joins a video with itself along time while it
  is shorter than 8 frames, that of S2VS and DnS than 4: with 8, 1 becomes 8, 3
  becomes 12, 5 becomes 10.

  Args:
    frames: 0 stays 0.
    minimum: frames wanted.
  """
  while 0 < frames < minimum:
    frames *= 2
  return frames
