# SPDX-License-Identifier: Apache-2.0
"""A folder of videos in an index that copies are looked up in.

Rows of an index have one shape and videos any length, so a video is cut into
pieces: a row is a piece, with one vector for the first stage and the regions of
its frames for the second, where the pieces of a video are put together again.
A row is named `film.mp4#32:50/50@7340032.1700000000`: frames 32 to 49 of 50, of
a file of so many bytes that was changed last at that second.

An index only grows, and folders change: files go, and others take their names.
What is searched is what the folder holds now (`present`).

The regions are kept as the frozen network makes them. So an index belongs to
that network only, and any network on top of it can search it.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import os
import re
from typing import Any

import numpy as np

from vidret_jax import sharding
from vidret_jax.data import folder as folder_lib
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import index as index_lib

_NAME = re.compile(r'(.*)#([0-9]+):([0-9]+)/([0-9]+)@([0-9.-]*)', re.DOTALL)
# Of a video: (first frame, end, frames of the video, row of the index).
Pieces = list[tuple[int, int, int, int]]


def stamp(file: str | os.PathLike) -> str:
  """Tells a file from another one of the same name; '' if it is not there."""
  try:
    about = os.stat(file)
  except OSError:
    return ''
  return f'{about.st_size}.{int(about.st_mtime)}'


def row_names(name: str, lengths: Iterable[int], made_of: str) -> list[str]:
  """Ids of the pieces of a video; `made_of` is the stamp of its file."""
  ends = np.cumsum(list(lengths)).tolist()
  return [
    f'{name}#{start}:{end}/{ends[-1]}@{made_of}'
    for start, end in zip([0, *ends], ends)
  ]


def contents(index: index_lib.Index) -> dict[str, dict[str, Pieces]]:
  """{video: {stamp: its pieces}}, the newest stamp last.

  Raises:
    BadIndex: a row that is no piece of a video.
  """
  out: dict[str, dict[str, Pieces]] = {}
  for number, row in enumerate(index.ids):
    match = _NAME.fullmatch(row)
    if match is None:
      raise index_lib.BadIndex(
        f'{row!r} is no piece of a video: was this index made with '
        'tools.copies index?'
      )
    name, *place, made_of = match.groups()
    pieces = out.setdefault(name, {}).setdefault(made_of, [])
    pieces.append((*map(int, place), number))
  return out


@dataclasses.dataclass(frozen=True)
class Present:
  """What of an index is searched.

  Attributes:
    pieces: video -> its pieces.
    gone: videos that are no longer in the folder.
    changed: videos of whose files others have taken the place since.
    links: names of files that are searched by another name already; they look
      like copies, and who deletes one of them may have none.
  """

  pieces: dict[str, Pieces]
  gone: list[str]
  changed: list[str]
  links: list[str]


def present(
  index: index_lib.Index, folder: str | None, keep: bool = False
) -> Present:
  """Videos of an index that are in a folder as they were looked at.

  Args:
    index: of videos.
    folder: of the videos; where there is none, all count as present.
    keep: also those that are gone.

  Raises:
    BadIndex: it holds something else.
  """
  found, files, gone, changed = {}, {}, [], []
  there = bool(folder) and os.path.isdir(folder)
  for name, versions in contents(index).items():
    newest = list(versions.values())[-1]
    file = folder_lib.path(folder, name) if there else None
    if file is not None:
      made_of = stamp(file)
      if made_of in versions:
        found[name], files[name] = versions[made_of], file
      else:
        changed.append(name)
    else:
      if there:
        gone.append(name)
      if keep or not there:
        found[name] = newest
  links = _links(files)
  for name in links:
    del found[name]
  return Present(found, gone, changed, links)


def _links(files: Mapping[str, str]) -> list[str]:
  """Names of files that have another name, too; of each all but one."""
  first: dict[Any, str] = {}
  out = []
  # The name of the file itself stays, of several the oldest in the index.
  for name in sorted(files, key=lambda name: os.path.islink(files[name])):
    try:
      about = os.stat(files[name])
    except OSError:
      continue  # It went this moment.
    key = os.path.realpath(files[name])
    if about.st_nlink > 1:
      key = about.st_dev, about.st_ino
    if first.setdefault(key, name) != name:
      out.append(name)
  return out


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
    versions: like `ids`, but also saying of which file.
  """

  def __init__(self, index: index_lib.Index, pieces: Mapping[str, Pieces]):
    """Wraps videos; see `Present.pieces`.

    Raises:
      BadIndex: it lacks pieces of a video.
    """
    self.ids = tuple(pieces)
    self.versions = tuple(index.ids[p[0][3]] for p in pieces.values())
    self._index = index
    self._rows = [
      np.array([x[3] for x in p], np.int64) for p in pieces.values()
    ]
    self._parts = [[b - a for a, b, *_ in p] for p in pieces.values()]
    for name, parts in zip(self.ids, self._parts):
      total = pieces[name][0][2]
      if sum(parts) != total:
        raise index_lib.BadIndex(
          f'{index.folder}: {name!r} has {sum(parts)} of {total} frames. '
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
  pieces: Mapping[str, Pieces],
) -> list[str]:
  """Videos with the pieces nearest to any piece of a query, best first.

  Args:
    index: with the coarse part.
    model: scores vectors.
    mesh: the devices.
    variables: of the model.
    vectors: [n, d], of the pieces of the query.
    count: of videos, if there are so many.
    pieces: of the videos that may be answers.
  """
  owner = {row: name for name, p in pieces.items() for *_, row in p}
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
    names = list(dict.fromkeys(owner[i] for i in numbers if i in owner))
    if len(names) >= count or wanted == len(index):
      return names[:count]
    wanted = min(4 * wanted, len(index))
