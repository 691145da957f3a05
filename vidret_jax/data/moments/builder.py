# SPDX-License-Identifier: Apache-2.0
"""Writes records of videos and queries with TFDS.

Imports TensorFlow: load it lazily.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import pathlib

import tensorflow_datasets as tfds

from vidret_jax.data import row_builder
from vidret_jax.data.moments import layout as layout_lib
from vidret_jax.data.moments import published, records


class Moments(row_builder.Rows, skip_registration=True):
  """Videos and queries of one split, in the table's order."""

  name = 'moments'
  VERSION = tfds.core.Version(records.VERSION)


def write(
  layout: layout_lib.Layout,
  ask: records.Request,
  root: pathlib.Path,
  *,
  paths: Mapping[str, str],
  checks: published.Checks,
  overwrite: bool = False,
  keep: Sequence[pathlib.Path] = (),
  progress: bool = True,
) -> pathlib.Path:
  """Writes records unless they are there; see `row_builder.write`.

  Features are read twice, to check and to write them, one video at a time.

  Args:
    layout: where the published files are.
    ask: what.
    root: folder of the published files.
    paths: see `places.find`.
    checks: how strict to be.
    overwrite: makes records anew.
    keep: folders that `overwrite` must leave.
    progress: shows bars.

  Returns:
    The folder of the records.

  Raises:
    FileNotFoundError, ValueError: whatever is wrong with the files, before
      anything is written; or records of other files are there.
  """
  with contextlib.ExitStack() as opened:

    def plan():
      found = published.Published(layout, ask, root, paths, checks)
      opened.callback(found.close)
      return _plan(ask, found, progress)

    return row_builder.write(
      Moments, ask.folder, plan, overwrite=overwrite, keep=keep
    )


def _plan(ask, found, progress) -> row_builder.Plan:
  def stored(rows, stream, where):
    where = f'{ask.dataset}, {where}, {stream}'
    width = found.widths[stream]
    return row_builder.as_stored(rows, width, ask.precision, where)

  def video(name):
    rows = found.video(name)
    return {s: stored(x, s, f'video {name!r}') for s, x in rows.items()}

  def query(name):
    return {'query': stored(found.query(name), 'query', f'query {name}')}

  def beside(folder):
    (folder / records.TABLE).write_text(found.table.to_json(), 'utf-8')

  ids = [str(row['desc_id']) for row in found.table.rows]
  return row_builder.Plan(
    parts={
      records.VIDEOS: row_builder.Part(found.table.videos, video),
      records.QUERIES: row_builder.Part(ids, query),
    },
    widths=found.widths,
    precision=ask.precision,
    label=f'{ask.dataset} {ask.split}',
    metadata={
      'request': dataclasses.asdict(ask),
      'files': {str(p): p.stat().st_size for p in found.files.values()},
    },
    beside=beside,
    progress=progress,
  )
