# SPDX-License-Identifier: Apache-2.0
"""What goes into the records of a split, from its published files."""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import pathlib

from absl import logging
import numpy as np

from vidret_jax.data.graphs import files, published, records
from vidret_jax.data.graphs import layout as layout_lib


@dataclasses.dataclass(frozen=True)
class Contents:
  """What goes into the records of a split.

  Attributes:
    table: clips and captions.
    width: d, of a feature row.
    read: clip id -> float [t, d], the aligned streams of a clip; raises
      ValueError for features that are not what they should be.
    relevance: [v, q], anything that is sliced by rows, or None.
    files: what it is made of -> its size in bytes.
    progress: shows a bar.
  """

  table: records.Table
  width: int
  read: Callable[[str], np.ndarray]
  relevance: np.ndarray | None
  files: Mapping[str, int]
  progress: bool = True


def read(
  layout: layout_lib.Layout,
  asked: records.Request,
  home: pathlib.Path,
  paths: Mapping[str, str] | Iterable[tuple[str, str]],
  graphs: bool,
  progress: bool,
) -> Contents:
  """Opens the published files of a split.

  Args:
    layout: where they are.
    asked: split and streams that are wanted.
    home: their root folder.
    paths: key -> file; see `layout.Layout.files`.
    graphs: role graphs are required; otherwise they are taken along if their
      file is there and complete.
    progress: shows bars.

  Raises:
    ValueError, FileNotFoundError: see `published.Published`.
  """

  def opened(graphs):
    return published.Published(
      layout, home, streams=asked.streams, splits=(asked.split,), paths=paths,
      graphs=graphs,
    )  # fmt: skip

  split, have = asked.split, graphs or layout.graphs
  try:
    found = opened(have)
  except (files.BadFile, published.MissingFiles) as error:
    if graphs or not have:
      raise
    # Without graphs if it is they that are missing; otherwise it fails again.
    found, have = opened(False), False
    logging.info('%s %s: without role graphs: %s', layout.name, split, error)
  names = found.names[split]
  said = {name: found.captions(name, split=split) for name in names}
  asks = found.evaluation(split)
  own = [text for one in said.values() for text in one]
  every = dict.fromkeys((*own, *asks.texts))
  table = records.table(
    said,
    queries=asks.texts if asks.owners or list(asks.texts) != own else None,
    owners=None if asks.owners is None else list(asks.owners),
    vocabulary=dict(found.word2int),
    num_words=len(found.words),
    graphs={text: found.graph(text) for text in every} if have else None,
    classes=[found.classes(n) for n in names] if split == 'train' else None,
  )
  return Contents(
    table=table,
    width=found.width,
    read=lambda name: found.features(split=split, name=name),
    relevance=found.relevance(split),
    files={str(p): p.stat().st_size for p in found.files.values()},
    progress=progress,
  )
