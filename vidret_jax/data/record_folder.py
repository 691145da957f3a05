# SPDX-License-Identifier: Apache-2.0
"""Folders of records that TFDS writes once and that are then only read."""

from collections.abc import Collection, Sequence
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


def require(
  folder: pathlib.Path,
  beside: Sequence[str],
  *,
  dataset: str,
  root: pathlib.Path,
  source: str,
) -> None:
  """Refuses to open records that are not there, or only in part.

  Args:
    folder: of the records.
    beside: names of files that lie beside them.
    dataset: name, for errors, as are the next two.
    root: folder that the records are made from.
    source: where its files are published.

  Raises:
    MissingRecords: they were not written, or not to the end.
  """
  if not folder.exists():
    there = 'is there' if root.is_dir() else 'is not there'
    partial = sorted(folder.parent.glob(f'incomplete.*_{folder.name}'))
    found = f'  found an unfinished {partial[0].name}\n' if partial else ''
    raise store.MissingRecords(
      f'{dataset}: no records for this config.\n'
      f'  expected: {folder}\n{found}'
      f'  they are made from: {root} (which {there})\n'
      f'  published: {source}\n'
      '  next: python -m vidret_jax.tools.prepare --config <your config> '
      '[--manual_dir <folder of the published files>]'
    )
  store.check_complete(str(folder))
  for name in ('metadata.json', *beside):
    if not (folder / name).is_file():
      raise store.MissingRecords(
        f'{folder} is half written: {name} is missing. Delete the folder and '
        'rebuild it: python -m vidret_jax.tools.prepare'
      )


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
