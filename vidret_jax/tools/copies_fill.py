# SPDX-License-Identifier: Apache-2.0
"""Puts the videos of a folder into an index, and those that changed again."""

from collections.abc import Sequence
import os
import time

import numpy as np
from rich.console import Console

from vidret_jax.search import index as index_lib
from vidret_jax.tools import copies_eyes, copies_index, copies_model
from vidret_jax.tools import index as index_tool

_ROWS = 128  # That wait to be written, and ...
_SECONDS = 20.0  # ... how long they wait at most.


def open_index(
  out: str | os.PathLike,
  trained: copies_model.Trained,
  videos: str,
  dtype: str,
) -> index_lib.Index:
  """The index in `out`, or a new one.

  Raises:
    BadIndex: it is damaged, or of another frozen network or folder.
    FileExistsError: `out` holds something else.
  """
  return index_tool.reopen_or_create(
    out, trained, videos, dtype, parts=trained.parts
  )


def folder_bytes(index: index_lib.Index) -> int:
  """Size of an index."""
  return sum(p.stat().st_size for p in index.folder.iterdir())


def fill(
  index: index_lib.Index,
  trained: copies_model.Trained,
  root: str,
  names: Sequence[str],
  *,
  batch_size: int,
  threads: int | None,
  console: Console,
) -> tuple[int, dict[str, str], list[str]]:
  """Adds the videos that an index lacks, and those that changed, below a bar.

  Returns:
    (exit status: 130 if it was stopped, {video: why it cannot be read},
    those that were added).
  """
  known = copies_index.contents(index)
  files = {name: os.path.join(root, name) for name in names}
  # Before they are read: what changes meanwhile is looked at the next time.
  stamps = {name: copies_index.stamp(file) for name, file in files.items()}
  files = {
    name: file
    for name, file in files.items()
    if stamps[name] not in known.get(name, ())
  }
  pieces = copies_eyes.Pieces(
    files, trained.frames, piece=trained.recipe['piece'], num_threads=threads
  )
  waiting = _Waiting(index, stamps)
  status = 0
  with index_tool.progress(console) as bar:
    task = bar.add_task('looking at videos', total=len(files), bad='')

    def look(_):
      bad = len(pieces.unreadable)
      bar.update(task, advance=1, bad=f'{bad} unreadable' * bool(bad))

    try:
      for name, emb in copies_eyes.encode(
        trained.eyes, trained.mesh, trained.variables, pieces, batch_size, look
      ):
        waiting.add(name, emb)
      waiting.write()
    except KeyboardInterrupt:
      status = 130
  return status, dict(pieces.unreadable), waiting.written


class _Waiting:
  """Rows of whole videos, written some at a time."""

  def __init__(self, index, stamps):
    self.written = []
    self._index, self._since = index, time.monotonic()
    self._stamps = stamps
    self._ids, self._rows, self._videos = [], [], []

  def add(self, name, emb):
    self._ids += copies_index.row_names(
      name, emb['length'].tolist(), self._stamps[name]
    )
    self._rows.append(emb)
    self._videos.append(name)
    late = time.monotonic() - self._since > _SECONDS
    if len(self._ids) >= _ROWS or late:
      self.write()

  def write(self):
    if self._ids:
      emb = {
        key: np.concatenate([rows[key] for rows in self._rows])
        for key in self._rows[0]
      }
      self._index.add(self._ids, emb)
      self.written += self._videos
    self._since = time.monotonic()
    self._ids, self._rows, self._videos = [], [], []
