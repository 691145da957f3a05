# SPDX-License-Identifier: Apache-2.0
"""Folders of records that TFDS writes once and that are then only read."""

from collections.abc import Collection
import contextlib
import io
import json
import pathlib
import shutil
import tempfile
from typing import Any

from vidret_jax.data import store


def key(i: int, count: int) -> int:
  """Key of record i of `count`, in order.

  TFDS sorts large sets in buckets of the 128 bits of the key, each in memory:
  the keys of consecutive records are spread over all of them.
  """
  return (i << 128) // count


def is_written(
  folder: pathlib.Path, *, overwrite: bool, keep: Collection[pathlib.Path]
) -> bool:
  """Whether finished records of the same source files are there.

  Args:
    folder: of the records.
    overwrite: removes what is there, finished or not.
    keep: folders that `overwrite` must leave.

  Raises:
    MissingRecords: they are damaged.
    ValueError: their source files have changed since. Files that are gone are
      no error: records stand on their own.
  """
  if overwrite and folder not in keep:
    unfinished = folder.parent.glob(f'incomplete.*_{folder.name}')
    for old in filter(pathlib.Path.exists, [folder, *unfinished]):
      shutil.rmtree(old)
  if not folder.exists():
    return False
  store.check_complete(str(folder))
  found = json.loads((folder / 'metadata.json').read_text())
  for name, size in found['files'].items():
    file = pathlib.Path(name)
    if file.is_file() and file.stat().st_size != size:
      raise ValueError(
        f'{folder}: made from {name} when it had {size} bytes; it has '
        f'{file.stat().st_size} now. Run prepare again with --overwrite.'
      )
  return True


def write(builder: Any) -> None:
  """Runs a TFDS builder that downloads nothing, below a bar of its own."""
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()  # Ours counts clips, not examples and shards.
  # TFDS makes a download folder, and tells of it, where there is no download.
  with (
    tempfile.TemporaryDirectory() as empty,
    contextlib.redirect_stdout(io.StringIO()),
  ):
    builder.download_and_prepare(download_dir=empty, file_format='array_record')
