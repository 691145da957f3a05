# SPDX-License-Identifier: Apache-2.0
"""The files of an index: how they grow, and how damage is noticed.

  index.json    counts, layouts, checksums, and what the weights were
  ids.jsonl     one id a line
  coarse.rows   what the first stage reads; kept in memory while searching
  fine.rows     what the second stage reads, item by item, from disk
  fine.crc32    a checksum of each item in fine.rows
  ...           whatever the maker added: the config, the tokenizer

Files only grow, and `index.json`, which says how much of them counts, is
replaced in one step. So a killed `append` leaves the index as it was, those who
search notice nothing of it, and the next one writes over what it left.
"""

from collections.abc import Iterator, Mapping, Sequence
import fcntl
import json
import os
import pathlib
import shutil
from typing import Any
import zlib

import numpy as np

from vidret_jax.search import row_layout as layout_lib
from vidret_jax.search import rows as rows_lib

FORMAT = 'vidret_jax index'
VERSION = 1
META = 'index.json'
IDS = 'ids.jsonl'
COARSE = 'coarse.rows'
FINE = 'fine.rows'
CHECKS = 'fine.crc32'
LOCK = 'lock'
# Files with one checksum of all that counts; fine.rows has one per item.
_SUMMED = (IDS, COARSE, CHECKS)

Meta = dict[str, Any]
Path = str | os.PathLike


class BadIndex(ValueError):
  """An index that is damaged, or does not fit the weights or the config."""


def damaged(folder: Path, name: str, what: str) -> BadIndex:
  """The error for a file that is not as it was written."""
  return BadIndex(
    f'{pathlib.Path(folder) / name} is damaged: {what}. Restore it from a '
    'copy, or make the index anew.'
  )


def create(folder: Path, meta: Meta, files: Mapping[str, Path]) -> None:
  """Makes an index without items, all of it or nothing.

  Args:
    folder: new, or empty.
    meta: what `index.json` says besides counts and checksums.
    files: name -> file to copy into the index.

  Raises:
    FileExistsError: the folder holds something.
    ValueError: a name that cannot be used.
  """
  folder = pathlib.Path(folder)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise FileExistsError(
      f'{folder} exists already and is no empty folder; name another one.'
    )
  ours = (META, LOCK, IDS, COARSE, FINE, CHECKS)
  for name in files:
    if name in ours or pathlib.PurePath(name).name != name:
      raise ValueError(f'an index cannot hold a further file {name!r}.')
  part = folder.with_name(folder.name + '.part')
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir(parents=True)
  for name, file in files.items():
    shutil.copyfile(file, part / name)
  for name in (*_SUMMED, FINE):
    (part / name).touch()
  sums = {name: dict(bytes=0, crc32=0) for name in _SUMMED}
  start = dict(format=FORMAT, version=VERSION, rows=0, layouts=None, sums=sums)
  write_meta(part, {**meta, **start})
  if folder.exists():
    folder.rmdir()
  part.rename(folder)


def read_meta(folder: Path) -> Meta:
  """What `index.json` says, once all files are long enough for it.

  Raises:
    FileNotFoundError: there is no index.
    BadIndex: it is damaged, or of a later version.
  """
  path = pathlib.Path(folder) / META
  if not path.is_file():
    raise FileNotFoundError(
      f'{folder} is no index: it has no {META}. Make one with '
      'python -m vidret_jax.tools.index'
    )
  try:
    meta = json.loads(path.read_bytes())
    if meta['format'] != FORMAT:
      raise ValueError(f'format is {meta["format"]!r}')
    if meta['version'] > VERSION:
      raise BadIndex(
        f'{folder} has version {meta["version"]}, this program knows '
        f'{VERSION}: use a later one.'
      )
    if meta.pop('crc32') != _sum(meta):
      raise ValueError('its checksum differs')
    _check_types(meta)
    row_bytes = [layout.row_bytes for layout in layouts(meta) or ()]
  except BadIndex:
    raise
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise damaged(folder, META, f'{type(e).__name__}: {e}') from e
  need = {name: entry['bytes'] for name, entry in meta['sums'].items()}
  need.update(zip((COARSE, FINE), [b * meta['rows'] for b in row_bytes]))
  for name, least in need.items():
    path = pathlib.Path(folder) / name
    size = path.stat().st_size if path.is_file() else None
    if size is None or size < least:
      have = 'it is absent' if size is None else f'it has {size:,} bytes'
      raise damaged(folder, name, f'{have}, expected {least:,}')
  return meta


def _check_types(meta: Meta) -> None:
  """Raises ValueError or KeyError: not what `create` and `append` write."""
  kinds = dict(rows=int, recipe=dict, about=dict, fingerprint=str, sums=dict)
  counts = {'rows': meta['rows']}
  for name, kind in kinds.items():
    if not isinstance(meta[name], kind):
      raise ValueError(f'{name} is {meta[name]!r}')
  for name in _SUMMED:
    counts |= {f'{name} {key}': x for key, x in meta['sums'][name].items()}
  for name, count in counts.items():
    if not isinstance(count, int) or count < 0:
      raise ValueError(f'{name} is {count!r}')
  if meta['rows'] and meta['layouts'] is None:
    raise ValueError(f'layouts are absent, rows are {meta["rows"]}')
  coarse = meta['coarse']
  if coarse is not None and not all(isinstance(x, str) for x in coarse):
    raise ValueError(f'coarse is {coarse!r}')
  layout_lib.check_dtype(meta['dtype'])


def layouts(meta: Meta) -> tuple[layout_lib.Layout, layout_lib.Layout] | None:
  """Of coarse.rows and fine.rows; None before the first item."""
  if meta['layouts'] is None:
    return None
  coarse, fine = map(layout_lib.Layout.from_json, meta['layouts'])
  return coarse, fine


def write_meta(folder: Path, meta: Meta) -> None:
  """Replaces `index.json` in one step that outlasts a power cut."""
  path = pathlib.Path(folder) / META
  draft = path.with_name(path.name + '.part')
  with open(draft, 'w') as file:
    json.dump({**meta, 'crc32': _sum(meta)}, file, indent=1)
    file.flush()
    os.fsync(file.fileno())
  draft.replace(path)
  place = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(place)
  finally:
    os.close(place)


def stream(
  folder: Path, name: str, meta: Meta, size: int = 2**20
) -> Iterator[bytes]:
  """Yields the part of a file that counts, `size` bytes at a time.

  Raises:
    BadIndex: its checksum differs; at the end, so use nothing before that.
  """
  entry, found = meta['sums'][name], 0
  with open(pathlib.Path(folder) / name, 'rb') as file:
    for start in range(0, entry['bytes'], size):
      data = file.read(min(size, entry['bytes'] - start))
      found = zlib.crc32(data, found)
      yield data
  if found != entry['crc32']:
    raise damaged(folder, name, 'its checksum differs')


def read_ids(folder: Path, meta: Meta) -> list[str]:
  """The ids of all items."""
  try:
    lines = b''.join(stream(folder, IDS, meta)).splitlines()
    ids = [json.loads(line) for line in lines]
  except json.JSONDecodeError as e:
    raise damaged(folder, IDS, str(e)) from e
  if len(ids) != meta['rows'] or not all(isinstance(x, str) for x in ids):
    raise damaged(folder, IDS, f'{len(ids)} ids of {meta["rows"]} items')
  return ids


def read_checks(folder: Path, meta: Meta) -> np.ndarray:
  """CRC-32 of each item in fine.rows, uint32 [rows]."""
  checks = np.frombuffer(b''.join(stream(folder, CHECKS, meta)), '<u4')
  if len(checks) != meta['rows']:
    raise damaged(folder, CHECKS, f'{len(checks)} of {meta["rows"]} items')
  return checks.astype(np.uint32)


def lock(folder: Path) -> Any:
  """An open file that keeps others from adding; ends with the process.

  Raises:
    BadIndex: another process has it.
  """
  file = open(pathlib.Path(folder) / LOCK, 'ab')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    file.close()
    raise BadIndex(
      f'another process adds to {folder} now; wait until it is done.'
    ) from None
  return file


def append(
  folder: Path,
  meta: Meta,
  ids: Sequence[str],
  both: tuple[layout_lib.Layout, layout_lib.Layout],
  leaves: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
) -> tuple[Meta, np.ndarray]:
  """Writes items behind those that count, then counts them.

  Args:
    folder: of the index, locked.
    meta: as it is.
    ids: n names.
    both: layouts of the two stages.
    leaves: arrays [n, ...] of the two stages, in the types kept.

  Returns:
    (meta as it is now, CRC-32 of each fine row, uint32 [n]).
  """
  folder = pathlib.Path(folder)
  meta = json.loads(json.dumps(meta))
  before, checks = meta['rows'], np.zeros(len(ids), np.uint32)
  meta['layouts'] = [layout.to_json() for layout in both]
  if both[1].names:
    with open(folder / FINE, 'r+b', buffering=0) as file:
      checks = rows_lib.RowFile(file, both[1], before).append(leaves[1])
      os.fsync(file.fileno())
  lines = ''.join(json.dumps(name) + '\n' for name in ids)
  for name, data in (
    (IDS, lines.encode()),
    (COARSE, layout_lib.pack(leaves[0], both[0]).tobytes()),
    (CHECKS, checks.astype('<u4').tobytes()),
  ):
    entry = meta['sums'][name]
    with open(folder / name, 'r+b', buffering=0) as file:
      rows_lib.write_at(file, data, entry['bytes'])
      os.fsync(file.fileno())
    entry['bytes'] += len(data)
    entry['crc32'] = zlib.crc32(data, entry['crc32'])
  meta['rows'] = before + len(ids)
  write_meta(folder, meta)
  return meta, checks


def compare(
  folder: Path, meta: Meta, recipe: Mapping[str, Any], fingerprint: str
) -> None:
  """Raises BadIndex if items were embedded in another way; says which."""
  recipe = json.loads(json.dumps(recipe))
  if recipe != meta['recipe']:
    lines = [
      f'  {key}: the index has {a!r}, here it is {b!r}'
      for key, a, b in _differences(meta['recipe'], recipe)
    ]
    raise BadIndex(
      f'index {folder} was made in another way:\n'
      + '\n'.join(lines[:8])
      + '\nuse the run it was made with, or make another index.'
    )
  if fingerprint != meta['fingerprint']:
    raise BadIndex(
      f'index {folder} was made with other weights (fingerprint '
      f'{meta["fingerprint"]}, these have {fingerprint}). Use the run it was '
      'made with, or make another index.'
    )


def _differences(a, b, at=''):
  """[(dotted key, old value, new value)] of nested dicts."""
  if not (isinstance(a, dict) and isinstance(b, dict)):
    return [] if a == b else [(at, a, b)]
  out = []
  for key in sorted({*a, *b}):
    where = f'{at}.{key}'.lstrip('.')
    out += _differences(a.get(key), b.get(key), where)
  return out


def _sum(meta: Meta) -> int:
  return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
