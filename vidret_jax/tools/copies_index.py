# SPDX-License-Identifier: Apache-2.0
"""A folder of videos in an index that copies are looked up in.

Rows of an index have one shape and videos any length, so a video is cut into
pieces: a row is a piece, with one vector for the first stage and the regions of
its frames for the second, where the pieces of a video are put together again.
A row is named `film.mp4#32:50/50`: frames 32 to 49 of 50.

The regions are kept as the frozen network makes them. So an index belongs to
that network only, and any network on top of it can search it.
"""

from collections.abc import Iterable, Mapping, Sequence
import re
from typing import Any

import numpy as np

from vidret_jax import sharding
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import index as index_lib

_NAME = re.compile(r'(.*)#([0-9]+):([0-9]+)/([0-9]+)', re.DOTALL)


def row_names(name: str, lengths: Iterable[int]) -> list[str]:
  """Ids of the pieces of a video."""
  ends = np.cumsum(list(lengths)).tolist()
  return [
    f'{name}#{start}:{end}/{ends[-1]}' for start, end in zip([0, *ends], ends)
  ]


def video_of(row: str) -> str:
  """The video that a row is a piece of.

  Raises:
    BadIndex: this is no such row.
  """
  match = _NAME.fullmatch(row)
  if match is None:
    raise index_lib.BadIndex(
      f'{row!r} is no piece of a video: was this index made with '
      'tools.copies index?'
    )
  return match[1]


class Videos:
  """Videos of an index, whole again; a view for `search.copies.find`.

  Attributes:
    ids: names of the videos.
    lengths: int64 [v], frames.
    found: bool [v], all True.
    regions: of a frame.
    dim: of a region.
    dtype: of what `read` returns.
    where: the index, for messages.
  """

  def __init__(
    self, index: index_lib.Index, names: Sequence[str] | None = None
  ):
    """Wraps all videos of an index, or some.

    Raises:
      BadIndex: it holds something else, or not all pieces of a video.
      KeyError: a name that is not there.
    """
    rows: dict[str, list[tuple[int, int, int]]] = {}
    total = {}
    for number, row in enumerate(index.ids):
      name = video_of(row)
      _, start, stop, total[name] = _NAME.fullmatch(row).groups()
      rows.setdefault(name, []).append((int(start), int(stop), number))
    self.ids = tuple(rows if names is None else names)
    self._index = index
    self._rows = [
      np.array([n for *_, n in rows[x]], np.int64) for x in self.ids
    ]
    self._parts = [[b - a for a, b, _ in rows[x]] for x in self.ids]
    for name, parts in zip(self.ids, self._parts):
      if sum(parts) != int(total[name]):
        raise index_lib.BadIndex(
          f'{index.folder}: {name!r} has {sum(parts)} of {total[name]} frames. '
          'Make the index anew.'
        )
    self.lengths = np.array([sum(p) for p in self._parts], np.int64)
    self.found = self.lengths > 0
    self.where = str(index.folder)
    self.regions = self.dim = 0
    self.dtype = np.dtype(np.float32)
    if self.ids:
      first = index.take(self._rows[0][:1])['regions']
      self.regions, self.dim = first.shape[2:]
      self.dtype = first.dtype

  def __len__(self) -> int:
    return len(self.ids)

  def read(self, i: int) -> np.ndarray:
    """Regions of all frames of video i: [lengths[i], r, d]."""
    found = self._index.take(self._rows[i])['regions']
    return np.concatenate([x[:n] for x, n in zip(found, self._parts[i])])


class Clips:
  """Encoded videos in memory; a view for `search.copies.find`."""

  def __init__(self, encoded: Sequence[tuple[str, Mapping[str, np.ndarray]]]):
    """Wraps what `encode` yields; see `Videos` for the attributes."""
    self.ids = tuple(name for name, _ in encoded)
    self.lengths = np.array([x['length'].sum() for _, x in encoded], np.int64)
    self.found = self.lengths > 0
    self.where = 'the queries'
    self.vectors = [x['vector'] for _, x in encoded]
    self._regions = [
      np.concatenate([r[:n] for r, n in zip(x['regions'], x['length'])])
      for _, x in encoded
    ]
    self.regions, self.dim = self._regions[0].shape[1:]
    self.dtype = self._regions[0].dtype

  def read(self, i: int) -> np.ndarray:
    """Regions of all frames of video i: [lengths[i], r, d]."""
    return self._regions[i]


def shortlist(
  index: index_lib.Index,
  model: Any,
  mesh: Any,
  variables: Any,
  vectors: np.ndarray,
  count: int,
) -> list[str]:
  """Videos with the pieces nearest to any piece of a query, best first.

  Args:
    index: with the coarse part.
    model: scores vectors.
    mesh: the devices.
    variables: of the model.
    vectors: [n, d], of the pieces of the query.
    count: of videos, if there are so many.
  """
  rows = bank_lib.round_up(len(vectors), mesh)
  padded = np.resize(vectors, (rows, vectors.shape[1]))
  queries = sharding.put_batch({'vector': padded}, mesh)
  wanted = min(4 * count, len(index))
  while True:
    answers = index.query(
      model, mesh, variables, queries, wanted, coarse_only=True
    )
    order = np.argsort(-answers.coarse, axis=None, kind='stable')
    numbers = answers.numbers.reshape(-1)[order].tolist()
    names = list(dict.fromkeys(video_of(index.ids[i]) for i in numbers))
    if len(names) >= count or wanted == len(index):
      return names[:count]
    wanted = min(4 * wanted, len(index))
