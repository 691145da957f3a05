# SPDX-License-Identifier: Apache-2.0
"""Records of moments: what decides their contents, and how they are opened.

`<data>/records/moments/<dataset>-<split>-...-<hash>/1.0.0` holds all that
training and evaluation read. Features are in the record files, a record per
video and one per query; annotations and durations are one JSON file beside
them (`moments.json`), which opens without a look at the features.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import record_folder, row_store
from vidret_jax.data import store as records_store
from vidret_jax.data.moments import annotations
from vidret_jax.data.moments import features as features_lib
from vidret_jax.data.shapes import corpus

VERSION = '1.0.0'
TABLE = 'moments.json'
VIDEOS, QUERIES = 'videos', 'queries'  # The splits of TFDS.
PRECISIONS = ('float32', 'float16')


@dataclasses.dataclass(frozen=True)
class Table:
  """Videos and described moments of a split.

  Attributes:
    videos: v names, in the order in which they are encoded.
    numbers: per video, its id in prediction files (`video_idx`).
    seconds: per video, how long it lasts.
    clips: per video, the rows of its features, T.
    rows: q annotations, see `annotations.read`.
    clip_seconds: length of a clip.
  """

  videos: Sequence[str]
  numbers: Sequence[int]
  seconds: Sequence[float]
  clips: Sequence[int]
  rows: Sequence[Mapping[str, Any]]
  clip_seconds: float

  @property
  def answered(self) -> bool:
    """Whether the rows tell videos and moments; those of a hidden set don't."""
    return 'vid_name' in self.rows[0]

  @functools.cached_property
  def video_of_row(self) -> np.ndarray:
    """int64 [q], the video of every query."""
    place = {name: i for i, name in enumerate(self.videos)}
    return np.asarray([place[row['vid_name']] for row in self.rows], np.int64)

  @functools.cached_property
  def spans(self) -> np.ndarray:
    """float64 [q, 2], seconds; of several annotators the first one's."""
    found = [annotations.spans(row)[0] for row in self.rows]
    return np.asarray(found, np.float64).reshape(-1, 2)

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """int32 [q, 2], see `features.labels`."""
    clips = np.asarray(self.clips, np.int64)[self.video_of_row]
    return features_lib.labels(self.spans, clips, self.clip_seconds)

  def to_json(self) -> str:
    fields = (f.name for f in dataclasses.fields(self))
    found = {name: getattr(self, name) for name in fields}
    return json.dumps(found, separators=(',', ':'))

  @classmethod
  def from_json(cls, text: str) -> 'Table':
    return cls(**json.loads(text))


@dataclasses.dataclass(frozen=True)
class Request:
  """What decides the contents of records.

  Attributes:
    dataset: its name in configs.
    split: which part of it.
    streams: 'video', 'subtitle' or both.
    features: family of the video features; '' without them.
    text: encoder of the queries, 'sub_query' or 'query_only'.
    max_clips: rows of a video at most.
    max_words: tokens of a query at most.
    sampling: of longer videos, see `features.sample`.
    norm_video: whether video rows are made unit vectors.
    norm_text: whether subtitle and query rows are.
    clip_seconds: length of a clip.
    precision: of the features on disk.
    files: (key, value) of whatever is not where it usually is.
    home: folder above that of records; '': `<data folder>/records`.
  """

  dataset: str
  split: str
  streams: tuple[str, ...]
  features: str
  text: str
  max_clips: int
  max_words: int
  sampling: str
  norm_video: bool
  norm_text: bool
  clip_seconds: float
  precision: str
  files: tuple[tuple[str, str], ...] = ()
  home: str = ''

  def __post_init__(self):
    for name, known in (
      ('precision', PRECISIONS),
      ('sampling', features_lib.SAMPLING),
    ):
      if getattr(self, name) not in known:
        raise ValueError(
          f'Unknown {name}={getattr(self, name)!r}; choose from {known}.'
        )
    for name in ('max_clips', 'max_words'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)}: expected 1 or more.')
    if not self.clip_seconds > 0:
      raise ValueError(
        f'clip_seconds={self.clip_seconds}: expected a number above 0.'
      )

  @property
  def name(self) -> str:
    """Of the builder config; equal requests have equal names."""
    fields = dataclasses.asdict(self)
    del fields['home']
    digest = hashlib.sha1(
      json.dumps(fields, sort_keys=True).encode()
    ).hexdigest()[:8]
    streams = '_'.join(self.streams)
    return (
      f'{self.dataset}-{self.split}-{streams}-{self.max_clips}clips-'
      f'{self.precision}-{digest}'
    )

  @property
  def folder(self) -> pathlib.Path:
    home = pathlib.Path(self.home or corpus.data_root() / 'records')
    return home / 'moments' / self.name / VERSION


class Opened:
  """Records of one split.

  Attributes:
    folder: of the records.
    table: videos and queries.
    videos: rows of the streams of videos, on disk.
    queries: rows of the stream 'query', on disk.
  """

  def __init__(self, ask: Request):
    import tensorflow_datasets as tfds

    self.folder = ask.folder
    text = (self.folder / TABLE).read_text('utf-8')
    self.table = Table.from_json(text)
    builder = tfds.builder_from_directory(str(self.folder))
    found = builder.info.features
    shapes = {s: (ask.max_clips, found[s].shape[-1]) for s in ask.streams}
    words = {'query': (ask.max_words, found['query'].shape[-1])}
    ids = [str(row['desc_id']) for row in self.table.rows]
    self.videos = self._rows(builder, VIDEOS, self.table.videos, shapes)
    self.queries = self._rows(builder, QUERIES, ids, words)

  def _rows(self, builder, split, ids, shapes):
    data = builder.as_data_source(split=split)
    if len(data) != len(ids):
      raise records_store.MissingRecords(
        f'{self.folder} is damaged: {len(data)} records for {len(ids)} '
        f'{split}. Delete the folder and run prepare again.'
      )
    return row_store.OnDisk(data, ids, shapes, self.folder)


def open_records(ask: Request, root: pathlib.Path, source: str) -> Opened:
  """Opens records.

  Args:
    ask: which.
    root: folder that they are made from, for errors.
    source: where that is published, for errors.

  Raises:
    MissingRecords: they were not written, or not to the end.
  """
  record_folder.require(
    ask.folder, (TABLE,), dataset=ask.dataset, root=root, source=source
  )
  return Opened(ask)
