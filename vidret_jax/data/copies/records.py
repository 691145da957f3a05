# SPDX-License-Identifier: Apache-2.0
"""What was prepared of a collection, and how it is opened.

`<data>/records/copies/<collection>-<split>-...-<hash>/1.0.0` has two JSON files
that open without a look at the features: `annotations.json`, the only form of
the annotations that is read after the first time, and `contents.json`, which
videos there are and how long. With storage='records' the features are there,
too, in 16 bits, in shards that are written one by one.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from absl import logging
import numpy as np

from vidret_jax.data import record_folder, whole_files
from vidret_jax.data import store as records_store
from vidret_jax.data.copies import annotations as annotations_lib
from vidret_jax.data.copies import layout as layout_lib
from vidret_jax.data.copies import published, regions, views
from vidret_jax.data.shapes import corpus

NAME, VERSION = 'copies', '1.0.0'
SPLIT = 'videos'  # Of TFDS: queries and database, each video once.
ANNOTATIONS, CONTENTS = 'annotations.json', 'contents.json'
STORAGES = ('files', 'records')
PRECISIONS = ('float16', 'float32')


@dataclasses.dataclass(frozen=True)
class Request:
  """What decides what is prepared.

  Attributes:
    collection: its name in configs.
    split: which part of it.
    storage: where features are read: the published 'files', or 'records'.
    precision: of records.
    empty: see `regions.scan`.
    files: (key, value) of whatever is not where it usually is.
  """

  collection: str
  split: str
  storage: str = 'files'
  precision: str = 'float16'
  empty: str = 'error'
  files: tuple[tuple[str, str], ...] = ()

  def __post_init__(self):
    for name, known in (
      ('storage', STORAGES),
      ('precision', PRECISIONS),
      ('empty', regions.EMPTY),
    ):
      if getattr(self, name) not in known:
        raise ValueError(
          f'Unknown {name}={getattr(self, name)!r}; choose from {known}.'
        )

  @property
  def folder(self) -> pathlib.Path:
    """Of what is prepared; equal requests have equal folders."""
    digest = hashlib.sha1(
      json.dumps(dataclasses.asdict(self), sort_keys=True).encode()
    ).hexdigest()[:8]
    kind = self.precision if self.storage == 'records' else self.storage
    name = f'{self.collection}-{self.split}-{kind}-{digest}'
    return corpus.data_root() / 'records' / NAME / name / VERSION


@dataclasses.dataclass(frozen=True)
class Contents:
  """A split without the numbers of its features.

  Attributes:
    annotations: of the split.
    shapes: of the videos that are there, sorted by id.
    sources: path of a published file -> [bytes, modification time in ns].
  """

  annotations: annotations_lib.Annotations
  shapes: regions.Shapes
  sources: Mapping[str, list[int]]

  @property
  def features(self) -> pathlib.Path:
    """The published file of features."""
    return pathlib.Path(next(iter(self.sources)))

  @property
  def missing(self) -> list[str]:
    """Queries and videos that the features do not have."""
    there = self.shapes.lengths
    return [name for name in self.annotations.videos if name not in there]

  def save(self, folder: pathlib.Path, **more: Any) -> None:
    """Writes both JSON files; `more` are notes that nothing reads back."""
    with whole_files.partial(folder / ANNOTATIONS, overwrite=True) as path:
      path.write_text(self.annotations.to_json(), 'utf-8')
    shapes = dataclasses.asdict(self.shapes)
    value = {
      **{'sources': dict(self.sources), **shapes, 'missing': self.missing},
      **more,
    }
    whole_files.write_json(folder / CONTENTS, value, overwrite=True)

  @classmethod
  def load(cls, folder: pathlib.Path) -> 'Contents':
    """Reads what `save` wrote.

    Raises:
      ValueError, KeyError, OSError: it is not there or damaged.
    """
    found = whole_files.read_json(folder / CONTENTS, dict)
    return cls(
      annotations_lib.read(folder / ANNOTATIONS),
      regions.Shapes(found['lengths'], found['regions'], found['dim']),
      found['sources'],
    )


def look(
  layout: layout_lib.Layout,
  ask: Request,
  root: pathlib.Path,
  paths: Mapping[str, str],
  *,
  progress: bool = False,
) -> Contents:
  """Reads annotations and lengths of a split, or finds them prepared.

  What was read is saved where that is possible, so that pickles are read once
  and 225,960 videos are not opened again to see how long they are.

  Args:
    layout: of the collection.
    ask: what is wanted.
    root: folder of the published files.
    paths: see `Layout.find`.
    progress: shows a bar.

  Raises:
    MissingFiles, ValueError: whatever is wrong with the files.
  """
  files = layout.find(ask.split, root, paths)
  stats = {str(path): path.stat() for path in files.values()}
  sources = {name: [s.st_size, s.st_mtime_ns] for name, s in stats.items()}
  try:
    known = Contents.load(ask.folder)
    if known.sources == sources:
      return known
  except (ValueError, KeyError, TypeError, OSError):
    pass  # Not there yet, or of other files.
  found = published.read(layout, ask.split, files)
  shapes = regions.scan(
    files[layout_lib.FEATURES], found.videos, empty=ask.empty, progress=progress
  )
  _tell(layout, ask, found, shapes)
  contents = Contents(found, shapes, sources)
  if ask.storage == 'files':
    try:
      contents.save(ask.folder)
    except OSError as error:
      logging.warning(
        '%s: cannot be written (%s); annotations and lengths are read again '
        'each time.', ask.folder, error,
      )  # fmt: skip
  return contents


def collection(contents: Contents, ask: Request) -> views.Collection:
  """What views read: the published file, or finished records.

  Raises:
    MissingRecords: damaged records.
  """
  if ask.storage == 'files':
    file = regions.File(contents.features, contents.shapes)
    read, dtype, where = file.read, np.float32, str(file.path)
  else:
    records = Records(ask.folder, contents.shapes)
    read, dtype, where = records.read, ask.precision, str(ask.folder)
  return views.Collection(
    contents.annotations,
    contents.shapes.lengths,
    contents.shapes.regions,
    contents.shapes.dim,
    np.dtype(dtype),
    read,
    where,
  )


class Records:
  """Reads videos of finished records, in several threads."""

  def __init__(self, folder: pathlib.Path, shapes: regions.Shapes):
    """Opens records.

    Args:
      folder: of the records.
      shapes: of their videos, in the order of the records.

    Raises:
      MissingRecords: there are more or fewer records.
    """
    import tensorflow_datasets as tfds

    self._folder, self._shapes = folder, shapes
    self._place = {name: i for i, name in enumerate(shapes.lengths)}
    builder = tfds.builder_from_directory(str(folder))
    self._data = builder.as_data_source(split=SPLIT)
    if len(self._data) != len(self._place):
      raise records_store.MissingRecords(
        f'{folder} is damaged: {len(self._data)} records for '
        f'{len(self._place)} videos. Delete the folder and run prepare again.'
      )

  def read(self, name: str) -> np.ndarray:
    """[T, r, d] of a video, as stored.

    Raises:
      ValueError: damaged records.
    """
    i = self._place[name]
    try:
      record = self._data[i]
    except Exception as error:
      raise ValueError(
        f'{self._folder}: record {i}, video {name!r}, cannot be read '
        f'({str(error)[:200]}). The folder is damaged: delete it and rebuild '
        'it with python -m vidret_jax.tools.prepare'
      ) from error
    found, shapes = record['regions'], self._shapes
    wanted = (shapes.lengths[name], shapes.regions, shapes.dim)
    if record['id'].decode('utf-8') != name or found.shape != wanted:
      raise ValueError(
        f'{self._folder}: record {i} is of {record["id"]!r} with shape '
        f'{list(found.shape)}, expected {name!r} with {list(wanted)}. Delete '
        'the folder and run prepare again.'
      )
    return found


def open_records(ask: Request, root: pathlib.Path, source: str) -> Contents:
  """What is known of finished records; `collection` opens the rest.

  Args:
    ask: which.
    root: folder that they are made from, for errors.
    source: where that is published, for errors.

  Raises:
    MissingRecords: they were not written, or not to the end.
  """
  record_folder.require(
    ask.folder,
    (ANNOTATIONS, CONTENTS),
    dataset=ask.collection,
    root=root,
    source=source,
  )
  return Contents.load(ask.folder)


def _tell(layout, ask, found, shapes) -> None:
  """Says what is missing; refuses a split of which a whole side is."""
  for kind, names in (
    ('queries', found.queries),
    ('videos of the database', found.database),
  ):
    there = sum(name in shapes.lengths for name in names)
    if not there:
      raise ValueError(
        f'{layout.name}, split {ask.split!r}: the features have none of the '
        f'{len(names)} {kind}, such as {names[0]!r}. Is it the file of another '
        'collection or split?'
      )
    if there < len(names):
      logging.warning(
        '%s, split %r: %d of %d %s have features; the others stay in the lists '
        'as missing.', layout.name, ask.split, there, len(names), kind,
      )  # fmt: skip
