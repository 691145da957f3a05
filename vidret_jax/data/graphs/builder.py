# SPDX-License-Identifier: Apache-2.0
"""Writes records of clips with captions and role graphs with TFDS.

Imports TensorFlow: load it lazily.
"""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from vidret_jax.data import row_builder
from vidret_jax.data.graphs import contents as contents_lib
from vidret_jax.data.graphs import features, records

_ROWS = 256  # Clips of the relevance matrix that are in memory at once.
_SLACK = 1e-6


class Graphs(row_builder.Rows, skip_registration=True):
  """Features of the clips of one split, in the table's order."""

  name = 'graphs'
  VERSION = tfds.core.Version(records.VERSION)


def _rows(
  ask: records.Request, contents: contents_lib.Contents, clip: str
) -> np.ndarray:
  """[n <= max_frames, d] of a clip.

  Raises:
    ValueError: features of another width, or numbers that are not finite.
  """
  where = f'{ask.dataset}, clip {clip!r}'
  try:
    chosen, mask = features.select(contents.read(clip), ask.max_frames)
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error
  return row_builder.as_stored(
    chosen[mask], contents.width, ask.precision, where
  )


def _write_relevance(path: pathlib.Path, relevance: np.ndarray) -> None:
  """[v, q] -> a file [q, v] in float32, block by block."""
  v, q = relevance.shape
  out = np.lib.format.open_memmap(path, 'w+', np.float32, (q, v))
  for start in range(0, v, _ROWS):
    block = np.asarray(relevance[start : start + _ROWS], np.float32)
    out[:, start : start + len(block)] = block.T
  out.flush()


def _check_relevance(
  ask: records.Request, contents: contents_lib.Contents
) -> None:
  for start in range(0, len(contents.table.ids), _ROWS):
    block = np.asarray(contents.relevance[start : start + _ROWS])
    # A little more than 1 is rounding; written so that NaN is bad, too.
    bad = ~((block >= -_SLACK) & (block <= 1 + _SLACK))
    if bad.any():
      row, column = np.argwhere(bad)[0].tolist()
      raise ValueError(
        f'{ask.dataset}, split {ask.split!r}: the relevance of clip '
        f'{contents.table.ids[start + row]!r} for caption {column} is '
        f'{block[row, column]}, expected a number from 0 to 1. Make the matrix '
        'anew.'
      )


def _plan(
  ask: records.Request, contents: contents_lib.Contents
) -> row_builder.Plan:
  if contents.relevance is not None:
    _check_relevance(ask, contents)

  def beside(folder):
    text = contents.table.to_json()
    (folder / records.CAPTIONS).write_text(text, 'utf-8')
    if contents.relevance is not None:
      _write_relevance(folder / records.RELEVANCE, contents.relevance)

  return row_builder.Plan(
    parts={
      records.SPLIT: row_builder.Part(
        contents.table.ids,
        lambda clip: {'features': _rows(ask, contents, clip)},
      )
    },
    widths={'features': contents.width},
    precision=ask.precision,
    label=f'{ask.dataset} {ask.split}',
    metadata={
      'request': dataclasses.asdict(ask),
      'files': dict(contents.files),
    },
    beside=beside,
    progress=contents.progress,
  )


def write(
  ask: records.Request,
  contents: Callable[[], contents_lib.Contents],
  *,
  overwrite: bool = False,
  keep: Sequence[pathlib.Path] = (),
) -> pathlib.Path:
  """Writes records unless they are there; see `row_builder.write`.

  Features are read twice, to check and to write them: two passes over the
  published files (20 GB each for EPIC-Kitchens-100 with TBN), bound by the
  disk. The records take max_frames * d * 4 bytes per clip (245 kB for
  20 x 3072), half of it with precision='float16'.

  Args:
    ask: what.
    contents: opens the published files; not called for records that are there.
    overwrite: makes records anew.
    keep: folders that `overwrite` must leave.

  Returns:
    The folder of the records.

  Raises:
    FileNotFoundError, ValueError: whatever is wrong with the files, before
      anything is written; or records of other files are there.
  """
  return row_builder.write(
    Graphs,
    ask.folder,
    lambda: _plan(ask, contents()),
    overwrite=overwrite,
    keep=keep,
  )
