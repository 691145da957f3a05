# SPDX-License-Identifier: Apache-2.0
"""Records of clips with captions and role graphs: what decides them, reading.

`<data>/records/graphs/<dataset>-<split>-...-<hash>/1.0.0` holds all that
training and evaluation read, so the published files are not needed once it is
written; see `builder`. Features are in the record files, a record per clip.
Captions, graphs and classes are one JSON file beside them (`captions.json`),
which opens without a look at the features, and the relevance matrix is an
array that is mapped into memory (`relevance.npy`).
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import record_folder
from vidret_jax.data import store as records_store
from vidret_jax.data.shapes import corpus

VERSION = '1.0.0'
SPLIT = 'clips'  # A folder holds one split of its dataset.
CAPTIONS, RELEVANCE = 'captions.json', 'relevance.npy'
PRECISIONS = ('float32', 'float16')


@dataclasses.dataclass(frozen=True)
class Table:
  """Clips and captions of a split. A text is a distinct caption.

  Attributes:
    ids: of the clips, in the order of matrix rows.
    texts: distinct captions.
    captions: per clip, the text numbers of its captions, in their order.
    vocabulary: word -> id.
    num_words: ids there are.
    queries: text numbers of the evaluated captions; None: those of all clips,
      clip by clip.
    owners: per query its clip; None: every clip that has the text.
    graphs: per text its role graph, see `tensors.graph`, as JSON (objects would
      take ten times the memory and the time to open); None: there are none.
    classes: per clip, per caption, (verb classes, noun classes); None: there
      are none.
  """

  ids: Sequence[str]
  texts: Sequence[str]
  captions: Sequence[Sequence[int]]
  vocabulary: Mapping[str, int]
  num_words: int
  queries: Sequence[int] | None = None
  owners: Sequence[int] | None = None
  graphs: Sequence[str] | None = None
  classes: Sequence[Sequence[Sequence[Sequence[int]]]] | None = None

  def __post_init__(self):
    for what, found in (('clip', self.ids), ('text', self.texts)):
      if len(set(found)) < len(found):
        seen = set()
        twice = next(x for x in found if x in seen or seen.add(x))
        raise ValueError(f'{what} {twice!r} is there twice; keep one.')
    for i, said in enumerate(self.captions):
      if not said:
        raise ValueError(f'clip {self.ids[i]!r} has no caption; add one.')

  def evaluated(self) -> np.ndarray:
    """int64 [q], the text number of every query."""
    if self.queries is not None:
      return np.asarray(self.queries, np.int64)
    return np.concatenate([np.asarray(s, np.int64) for s in self.captions])

  def to_json(self) -> str:
    return json.dumps(vars(self), separators=(',', ':'))

  @classmethod
  def from_json(cls, text: str) -> 'Table':
    return cls(**json.loads(text))


def table(
  captions: Mapping[str, Sequence[str]],
  *,
  queries: Sequence[str] | None = None,
  graphs: Mapping[str, Any] | None = None,
  **more,
) -> Table:
  """A table of named clips and their captions.

  Args:
    captions: clip -> captions.
    queries: evaluated captions, if not those of all clips in order.
    graphs: caption -> role graph, of every caption and query.
    **more: other attributes of `Table`.

  Raises:
    ValueError: a clip without a caption.
  """
  number = {}
  slots = [
    [number.setdefault(text, len(number)) for text in said]
    for said in captions.values()
  ]
  asked = queries
  if queries is not None:
    asked = [number.setdefault(text, len(number)) for text in queries]
  return Table(
    ids=list(captions),
    texts=list(number),
    captions=slots,
    queries=asked,
    graphs=None if graphs is None else [_lean(graphs[t]) for t in number],
    **more,
  )


def _lean(graph) -> str:
  """A role graph without what no reader looks at: words, and all of ROOT."""
  nodes, edges = graph
  kept = {
    key: {'role': node['role'], 'spans': list(node['spans'])}
    for key, node in nodes.items()
    if node['role'] != 'ROOT'
  }
  inner = [list(e) for e in edges if e[0] in kept and e[1] in kept]
  return json.dumps([kept, inner], separators=(',', ':'))


@dataclasses.dataclass(frozen=True)
class Request:
  """What decides the contents of records.

  Attributes:
    dataset: its name in configs.
    split: which part of it.
    streams: features laid side by side.
    max_frames: rows of a clip at most.
    precision: of the features on disk.
    files: (key, value) of whatever is not where it usually is.
  """

  dataset: str
  split: str
  streams: tuple[str, ...]
  max_frames: int
  precision: str
  files: tuple[tuple[str, str], ...] = ()

  def __post_init__(self):
    if self.precision not in PRECISIONS:
      raise ValueError(
        f'Unknown precision={self.precision!r}; choose from {PRECISIONS}.'
      )
    if self.max_frames < 1:
      raise ValueError(f'max_frames={self.max_frames}: expected 1 or more.')

  @property
  def name(self) -> str:
    """Of the builder config; equal requests have equal names."""
    digest = hashlib.sha1(
      json.dumps(dataclasses.asdict(self), sort_keys=True).encode()
    ).hexdigest()[:8]
    return (
      f'{self.dataset}-{self.split}-{len(self.streams)}streams-'
      f'{self.max_frames}frames-{self.precision}-{digest}'
    )

  @property
  def folder(self) -> pathlib.Path:
    return corpus.data_root() / 'records' / 'graphs' / self.name / VERSION


def read_table(folder: pathlib.Path) -> Table:
  """The table of finished records."""
  return Table.from_json((folder / CAPTIONS).read_text('utf-8'))


class Opened:
  """Records of one split.

  Attributes:
    folder: of the records.
    table: clips and captions.
    max_frames: f.
    width: d, of a feature row.
    data: random access to the decoded records {'id', 'features' [n <= f, d]}.
    relevance: float32 [q, v], mapped into memory, or None.
  """

  def __init__(self, folder: pathlib.Path):
    import tensorflow_datasets as tfds

    self.folder = folder
    found = json.loads((folder / 'metadata.json').read_text())
    self.max_frames = found['request']['max_frames']
    self.table = read_table(folder)
    path = folder / RELEVANCE
    self.relevance = np.load(path, mmap_mode='r') if path.exists() else None
    builder = tfds.builder_from_directory(str(folder))
    self.width = builder.info.features['features'].shape[-1]
    self.data = builder.as_data_source(split=SPLIT)
    if len(self.data) != len(self.table.ids):
      raise records_store.MissingRecords(
        f'{folder} is damaged: {len(self.data)} records for '
        f'{len(self.table.ids)} clips. Delete the folder and run prepare again.'
      )


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
    ask.folder, (CAPTIONS,), dataset=ask.dataset, root=root, source=source
  )
  return Opened(ask.folder)
