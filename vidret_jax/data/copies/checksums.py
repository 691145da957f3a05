# SPDX-License-Identifier: Apache-2.0
"""Checksums of the shards of records."""

import pathlib
import zlib

from vidret_jax.data import whole_files


def crc32(path: pathlib.Path) -> int:
  """CRC-32 of a file."""
  value = 0
  with open(path, 'rb') as stream:
    while chunk := stream.read(1 << 22):
      value = zlib.crc32(chunk, value)
  return value


def verify(folder: pathlib.Path, contents: str) -> None:
  """Reads all shards of finished records and compares their checksums.

  Args:
    folder: of the records.
    contents: name of the JSON file in it that tells them.

  Raises:
    ValueError: naming the first shard that has changed.
  """
  for name, note in whole_files.read_json(folder / contents, dict)[
    'shards'
  ].items():
    value = crc32(folder / name)
    if value != note['crc32']:
      raise ValueError(
        f'{folder / name}: CRC-32 {value}, expected {note["crc32"]}. The file '
        'is damaged: delete the folder and run prepare again.'
      )
