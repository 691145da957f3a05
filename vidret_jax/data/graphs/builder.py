# SPDX-License-Identifier: Apache-2.0
"""Writes records of clips with captions and role graphs with TFDS.

Imports TensorFlow: load it lazily.
"""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from vidret_jax.data import record_folder
from vidret_jax.data.frames import store as frames_store
from vidret_jax.data.graphs import contents as contents_lib
from vidret_jax.data.graphs import features, records
from vidret_jax.data.shapes import corpus

_ROWS = 256  # Clips of the relevance matrix that are in memory at once.
_SLACK = 1e-6


@dataclasses.dataclass(eq=False)
class GraphsConfig(tfds.core.BuilderConfig):
  """A builder config made from what was found.

  Attributes:
    request: what is asked.
    contents: what is written.
  """

  request: records.Request | None = None
  # Too long for TFDS' log.
  contents: contents_lib.Contents | None = dataclasses.field(
    default=None, repr=False
  )


class Graphs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Features of the clips of one split, in the table's order."""

  name = 'graphs'
  VERSION = tfds.core.Version(records.VERSION)

  def _info(self) -> tfds.core.DatasetInfo:
    config = self.builder_config
    rows = tfds.features.Tensor(
      shape=(None, config.contents.width),
      dtype=np.dtype(config.request.precision),
      encoding=tfds.features.Encoding.BYTES,
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description='Feature rows of clips with captions as role graphs.',
      features=tfds.features.FeaturesDict(
        {'id': tfds.features.Text(), 'features': rows}
      ),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    ask, contents = self.builder_config.request, self.builder_config.contents
    self.info.metadata['request'] = dataclasses.asdict(ask)
    self.info.metadata['files'] = dict(contents.files)
    # For now this is the unfinished folder, which gets its name at the end.
    folder = pathlib.Path(self.data_dir)
    text = contents.table.to_json()
    (folder / records.CAPTIONS).write_text(text, 'utf-8')
    if contents.relevance is not None:
      _write_relevance(folder / records.RELEVANCE, contents.relevance)
    return {records.SPLIT: self._generate_examples()}

  def _generate_examples(self):
    ask, contents = self.builder_config.request, self.builder_config.contents
    ids = contents.table.ids
    label = f'{ask.dataset} {ask.split}: writing'
    with frames_store.bar(len(ids), label, contents.progress) as advance:
      for i, clip in enumerate(ids):
        key = record_folder.key(i, len(ids))
        yield key, {'id': clip, 'features': _rows(ask, contents, clip)}
        advance(1)


def _rows(
  ask: records.Request, contents: contents_lib.Contents, clip: str
) -> np.ndarray:
  """[n <= max_frames, d] of a clip.

  Raises:
    ValueError: features of another width, or numbers that are not finite.
  """
  try:
    chosen, mask = features.select(contents.read(clip), ask.max_frames)
  except ValueError as error:
    raise ValueError(f'{ask.dataset}, clip {clip!r}: {error}') from error
  if chosen.shape[1] != contents.width:
    raise ValueError(
      f'{ask.dataset}, clip {clip!r}: features of width {chosen.shape[1]}, '
      f'expected {contents.width} as for the first clip. Make them anew.'
    )
  with np.errstate(over='ignore'):
    rows = chosen[mask].astype(ask.precision)
  if not np.isfinite(rows).all():
    row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
    raise ValueError(
      f'{ask.dataset}, clip {clip!r}, row {row}: expected finite features, '
      f'found NaN, Inf or more than {ask.precision} holds. Make its features '
      "anew (or use precision='float32')."
    )
  return rows


def _write_relevance(path: pathlib.Path, relevance: np.ndarray) -> None:
  """[v, q] -> a file [q, v] in float32, block by block."""
  v, q = relevance.shape
  out = np.lib.format.open_memmap(path, 'w+', np.float32, (q, v))
  for start in range(0, v, _ROWS):
    block = np.asarray(relevance[start : start + _ROWS], np.float32)
    out[:, start : start + len(block)] = block.T
  out.flush()


def check(ask: records.Request, contents: contents_lib.Contents) -> None:
  """Reads everything once, so that no error comes after the first record.

  Raises:
    ValueError: relevance outside [0, 1], and see `_rows`.
  """
  for start in range(0, len(contents.table.ids), _ROWS):
    if contents.relevance is None:
      break
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
  ids = contents.table.ids
  label = f'{ask.dataset} {ask.split}: checking'
  with frames_store.bar(len(ids), label, contents.progress) as advance:
    for clip in ids:
      _rows(ask, contents, clip)
      advance(1)


def write(
  ask: records.Request,
  contents: Callable[[], contents_lib.Contents],
  *,
  overwrite: bool = False,
  keep: Sequence[pathlib.Path] = (),
) -> pathlib.Path:
  """Writes records unless they are there.

  Features are read twice, to check and to write them: two passes over the
  published files (20 GB each for EPIC-Kitchens-100 with TBN), bound by the
  disk. The records take max_frames * d * 4 bytes per clip (245 kB for
  20 x 3072), half of it with precision='float16', and while they are written
  above 1 GB twice that.

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
  folder = ask.folder
  if record_folder.is_written(folder, overwrite=overwrite, keep=keep):
    return folder
  found = contents()
  check(ask, found)
  builder = Graphs(
    data_dir=str(corpus.data_root() / 'records'),
    config=GraphsConfig(
      name=ask.name,
      description=f'{ask.dataset}, split {ask.split}',
      request=ask,
      contents=found,
    ),
    file_format='array_record',
  )
  record_folder.write(builder)
  return folder
