# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, and text files of strangers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import csv
import json
import os
import pathlib
from typing import Any


@contextlib.contextmanager
def partial(
  path: str | os.PathLike, overwrite: bool = False
) -> Iterator[pathlib.Path]:
  """A temporary path that takes its name when all went well.

  Raises:
    FileExistsError: the file is there and must not be overwritten.
  """
  path = refuse_existing(path, overwrite)
  path.parent.mkdir(parents=True, exist_ok=True)
  # Beside the target, as a file can only be renamed within a file system.
  temporary = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def refuse_existing(
  path: str | os.PathLike, overwrite: bool = False
) -> pathlib.Path:
  """The path, if nothing or a file to be overwritten is there.

  Raises:
    FileExistsError: something else is: a folder, or a device or pipe, which a
      file of that name would replace.
  """
  path = pathlib.Path(path)
  if path.exists() and not (overwrite and path.is_file()):
    raise FileExistsError(
      f'{path}: is there already; name another file, or give --overwrite.'
    )
  return path


@contextlib.contextmanager
def create_hdf5(
  path: str | os.PathLike, overwrite: bool = False
) -> Iterator[Any]:
  """An open HDF5 file that appears under its name when all went well."""
  import h5py

  with partial(path, overwrite) as temporary, h5py.File(temporary, 'w') as out:
    yield out


def write_json(
  path: str | os.PathLike, value: Any, overwrite: bool = False
) -> None:
  """Writes one JSON value."""
  with partial(path, overwrite) as temporary:
    with open(temporary, 'w', encoding='utf-8') as stream:
      json.dump(value, stream)


def write_lines(
  path: str | os.PathLike, rows: Iterable[Any], overwrite: bool = False
) -> None:
  """Writes JSON lines, in the escapes that every tool reads."""
  with partial(path, overwrite) as temporary:
    with open(temporary, 'w', encoding='utf-8') as stream:
      for row in rows:
        stream.write(json.dumps(row) + '\n')


def read_lines(
  path: str | os.PathLike, need: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields ('file:line', object) of a file of JSON lines.

  Args:
    path: of the file.
    need: keys that each object must have.

  Raises:
    FileNotFoundError: no such file.
    ValueError: a line is no JSON object or lacks a key.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file.')
  with open(path, encoding='utf-8-sig', newline='\n') as stream:
    try:
      for number, line in enumerate(stream, 1):
        if line.strip():
          where = f'{path}:{number}'
          yield where, _object(line, where, need)
    except UnicodeDecodeError as error:
      raise ValueError(
        f'{path}: is no UTF-8 text ({error}). Save it as UTF-8.'
      ) from None


def _object(line, where, need):
  try:
    value = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f'{where}: cannot be read as JSON ({str(error)[:200]}). Expected one '
      'object per line.'
    ) from None
  if not isinstance(value, dict):
    raise ValueError(
      f'{where}: expected a JSON object, found {type(value).__name__}.'
    )
  absent = [key for key in need if key not in value]
  if absent:
    raise ValueError(
      f'{where}: no {absent[0]!r}; expected the keys {list(need)}, found '
      f'{list(value)[:8]}.'
    )
  return value


def read_json(path: str | os.PathLike, kind: type) -> Any:
  """Reads a JSON file that holds an object (`dict`) or a list.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it is damaged or holds something else.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file.')
  try:
    with open(path, encoding='utf-8-sig') as stream:
      found = json.load(stream)
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f'{path}: cannot be read as JSON ({str(error)[:200]}). Fetch it again.'
    ) from None
  if not isinstance(found, kind):
    raise ValueError(
      f'{path}: expected a JSON {"object" if kind is dict else "list"}, found '
      f'{type(found).__name__}. Is it the right file?'
    )
  return found


def text_lines(path: str | os.PathLike) -> Iterator[str]:
  """Yields the lines of a text file.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it is no UTF-8.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file.')
  try:
    with open(path, encoding='utf-8-sig') as stream:
      yield from stream
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{path}: is no UTF-8 text ({error}). Save it as UTF-8.'
    ) from None


def read_table(
  path: str | os.PathLike, columns: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, dict[str, str]]]:
  """Yields ('file:line', row) of a table (CSV with a header).

  Args:
    path: of the file.
    columns: what is wanted -> the names that its column may have.

  Raises:
    FileNotFoundError: no such file.
    ValueError: a column is absent, or a row is too short.
  """
  try:
    reader = csv.DictReader(text_lines(path))
    names = reader.fieldnames or []
    found = {}
    for key, known in columns.items():
      found[key] = next((n for n in names if n.strip().lower() in known), None)
      if found[key] is None:
        raise ValueError(
          f'{path}: columns {str(names)[:120]}, expected one of {list(known)}.'
        )
    for row in reader:
      where = f'{path}:{reader.line_num}'
      values = {key: row[name] for key, name in found.items()}
      if None in values.values():
        raise ValueError(f'{where}: a row that is too short.')
      yield where, values
  except csv.Error as error:
    raise ValueError(f'{path}: cannot be read as a table ({error}).') from None
