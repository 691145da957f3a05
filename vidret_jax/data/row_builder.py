# SPDX-License-Identifier: Apache-2.0
"""Writes records of rows of features by owner with TFDS; see `row_store`.

Imports TensorFlow: load it lazily.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vidret_jax.data import record_folder
from vidret_jax.data.frames import store as frames_store


@dataclasses.dataclass(frozen=True)
class Part:
  """One TFDS split of a folder of records: owners of one kind.

  Attributes:
    ids: of the owners, in order.
    read: id -> stream -> [n, d], as it is stored (see `as_stored`); raises
      ValueError for features that are not what they should be.
  """

  ids: Sequence[str]
  read: Callable[[str], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Plan:
  """What goes into a folder of records.

  Attributes:
    parts: TFDS split -> owners. A record has all streams; those that a part
      does not read are empty.
    widths: stream -> d.
    precision: of the rows.
    label: for the progress bars.
    metadata: key -> value, saved as `metadata.json`.
    beside: writes what lies beside the records into their folder.
    progress: shows bars.
  """

  parts: Mapping[str, Part]
  widths: Mapping[str, int]
  precision: str
  label: str
  metadata: Mapping[str, Any]
  beside: Callable[[pathlib.Path], None]
  progress: bool = True


@dataclasses.dataclass(eq=False)
class RowsConfig(tfds.core.BuilderConfig):
  """A builder config made from what was found.

  Attributes:
    plan: what is written.
  """

  # Too long for TFDS' log.
  plan: Plan | None = dataclasses.field(default=None, repr=False)


class Rows(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Rows of owners in order; a subclass has the name of the folder."""

  def _info(self) -> tfds.core.DatasetInfo:
    plan = self.builder_config.plan
    streams = {
      stream: tfds.features.Tensor(
        shape=(None, width),
        dtype=np.dtype(plan.precision),
        encoding=tfds.features.Encoding.BYTES,
      )
      for stream, width in plan.widths.items()
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description='Rows of features.',
      features=tfds.features.FeaturesDict(
        {'id': tfds.features.Text(), **streams}
      ),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    plan = self.builder_config.plan
    for key, value in plan.metadata.items():
      self.info.metadata[key] = value
    # For now this is the unfinished folder, which gets its name at the end.
    plan.beside(pathlib.Path(self.data_dir))
    return {
      split: self._generate_examples(split, part)
      for split, part in plan.parts.items()
    }

  def _generate_examples(self, split, part):
    plan = self.builder_config.plan
    none = {
      stream: np.zeros((0, width), plan.precision)
      for stream, width in plan.widths.items()
    }
    label = f'{plan.label}: writing {split}'
    with frames_store.bar(len(part.ids), label, plan.progress) as advance:
      for i, owner in enumerate(part.ids):
        key = record_folder.key(i, len(part.ids))
        yield key, {'id': owner, **none, **part.read(owner)}
        advance(1)


def as_stored(
  rows: np.ndarray, width: int, precision: str, where: str
) -> np.ndarray:
  """Rows of one owner in the numbers of the records.

  Args:
    rows: float [n, d].
    width: expected d.
    precision: of the records.
    where: whose rows, for errors.

  Raises:
    ValueError: another width, or numbers that are not finite.
  """
  if rows.shape[1] != width:
    raise ValueError(
      f'{where}: features of width {rows.shape[1]}, expected {width} as for '
      'the first one. Make them anew.'
    )
  with np.errstate(over='ignore'):
    rows = rows.astype(precision)
  if not np.isfinite(rows).all():
    row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
    raise ValueError(
      f'{where}, row {row}: expected finite features, found NaN, Inf or more '
      f'than {precision} holds. Make its features anew (or use '
      "precision='float32')."
    )
  return rows


def write(
  builder: type[Rows],
  folder: pathlib.Path,
  plan: Callable[[], Plan],
  *,
  overwrite: bool = False,
  keep: Sequence[pathlib.Path] = (),
) -> pathlib.Path:
  """Writes records unless they are there.

  All rows are read once before the first is written, so that no error comes
  later. Above 1 GB, records take twice their space while they are written.

  Args:
    builder: class whose name is the folder's below `records/`.
    folder: `<home>/<name of the builder>/<config>/<version>`.
    plan: opens the published files; not called for records that are there.
    overwrite: makes records anew.
    keep: folders that `overwrite` must leave.

  Returns:
    The folder of the records.

  Raises:
    FileNotFoundError, ValueError: whatever is wrong with the files, before
      anything is written; or records of other files are there.
  """
  if record_folder.is_written(folder, overwrite=overwrite, keep=keep):
    return folder
  found = plan()
  for split, part in found.parts.items():
    label = f'{found.label}: checking {split}'
    with frames_store.bar(len(part.ids), label, found.progress) as advance:
      for owner in part.ids:
        part.read(owner)
        advance(1)
  record_folder.write(
    builder(
      data_dir=str(folder.parents[2]),
      config=RowsConfig(
        name=folder.parent.name, description=found.label, plan=found
      ),
      file_format='array_record',
    )
  )
  return folder
