# SPDX-License-Identifier: Apache-2.0
"""Which videos a split has and what is said of each: the table all views use.

Videos stand in the order of their first row, captions of a video in file
order, whatever lies between them. (Upstream EERCF takes the groups from an
unordered set, which holds for adjacent rows of equal number only.)
"""

from collections.abc import Iterable, Mapping, Sequence
import csv
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np


class BadAnnotation(ValueError):
  """An annotation file that does not say what it has to."""


@dataclasses.dataclass(frozen=True)
class Table:
  """Videos and captions of one split.

  Attributes:
    where: the files it was read from, for errors.
    ids: v video ids, each once.
    captions: per video, its captions; one at least.
    spans: per video (start, end) in whole seconds, or None for all of it.
    rows: int64 [n, 2], (video, caption slot) of every caption, in file order:
      the order of upstream's training items.
    variants: per paraphrase file, captions of the same shape as `captions`.
  """

  where: str
  ids: tuple[str, ...]
  captions: tuple[tuple[str, ...], ...]
  spans: tuple[tuple[int, int] | None, ...]
  rows: np.ndarray
  variants: tuple[tuple[tuple[str, ...], ...], ...] = ()

  def __post_init__(self):
    if not self.ids:
      raise BadAnnotation(f'{self.where}: no videos. Fetch the file again.')
    for video, said in zip(self.ids, self.captions, strict=True):
      if not said:
        raise BadAnnotation(
          f'{self.where}: video {video!r} has no caption; expected at least '
          'one. Add one, or take the video off the list.'
        )

  def to_json(self) -> dict[str, Any]:
    """Plain lists, from which `from_json` makes an equal table."""
    return {
      'where': self.where,
      'ids': list(self.ids),
      'captions': [list(c) for c in self.captions],
      'spans': [list(s) if s else None for s in self.spans],
      'rows': self.rows.tolist(),
      'variants': [[list(c) for c in v] for v in self.variants],
    }

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> 'Table':
    return cls(
      value['where'],
      tuple(value['ids']),
      _tuples(value['captions']),
      tuple(tuple(s) if s else None for s in value['spans']),
      np.asarray(value['rows'], np.int64).reshape(-1, 2),
      tuple(_tuples(v) for v in value['variants']),
    )


def _tuples(value) -> tuple[tuple[str, ...], ...]:
  return tuple(tuple(v) for v in value)


def table(
  rows: Iterable[tuple[str, str]],
  where: str,
  *,
  ids: Sequence[str] | None = None,
  spans: Mapping[str, tuple[int, int]] | None = None,
  variants: Sequence[Sequence[str]] = (),
) -> Table:
  """Groups (video id, caption) rows.

  Args:
    rows: in file order.
    where: the files, for errors.
    ids: the videos and their order; rows of others are left out. None takes
      all, in order of first appearance.
    spans: seconds of the clips that are parts of their video.
    variants: per paraphrase file, one caption per row.

  Raises:
    BadAnnotation: no rows, an empty caption, a video without any.
  """
  rows = list(rows)
  if ids is None:
    ids = list(dict.fromkeys(video for video, _ in rows))
  place = {video: i for i, video in enumerate(ids)}
  captions = [[] for _ in ids]
  others = [[[] for _ in ids] for _ in variants]
  order = []
  for i, (video, caption) in enumerate(rows):
    at = place.get(video)
    if at is None:
      continue
    if not caption.strip():
      raise BadAnnotation(
        f'{where}: caption {len(captions[at])} of video {video!r} is empty; '
        'expected at least one word. Remove the row.'
      )
    order.append((at, len(captions[at])))
    captions[at].append(caption)
    for other, said in zip(others, variants, strict=True):
      other[at].append(said[i])
  return Table(
    where,
    tuple(ids),
    _tuples(captions),
    tuple((spans or {}).get(video) for video in ids),
    np.asarray(order, np.int64).reshape(-1, 2),
    tuple(_tuples(other) for other in others),
  )


def read_csv(
  path: pathlib.Path, columns: Sequence[str]
) -> list[tuple[int, list[str]]]:
  """Rows of a CSV with a header: (line number, values of `columns`).

  Raises:
    BadAnnotation: a missing column or value, naming file, line and column.
  """
  out = []
  with path.open(encoding='utf-8-sig', newline='') as file:
    reader = csv.DictReader(file)
    try:
      header = reader.fieldnames or []
      for column in columns:
        if column not in header:
          raise BadAnnotation(
            f'{path}, line 1: no column {column!r}; found '
            f'{str(header)[:200]}. Expected a CSV whose header has '
            f'{list(columns)}.'
          )
      for row in reader:
        values = [row[column] for column in columns]
        for column, value in zip(columns, values, strict=True):
          if value is None or not value.strip():
            raise BadAnnotation(
              f'{path}, line {reader.line_num}, column {column!r}: no value. '
              'Complete the row or remove it.'
            )
        out.append((reader.line_num, [value.strip() for value in values]))
    except (csv.Error, UnicodeDecodeError) as error:
      raise BadAnnotation(
        f'{path}, after line {reader.line_num}: not CSV in UTF-8 ({error}). '
        'Fetch the file again.'
      ) from error
  return out


def read_ids(path: pathlib.Path) -> list[str]:
  """Ids of a list with one per line, stripped.

  Raises:
    BadAnnotation: no ids, one twice, or no text.
  """
  try:
    lines = path.read_text(encoding='utf-8-sig').splitlines()
  except UnicodeDecodeError as error:
    raise BadAnnotation(
      f'{path}: not text in UTF-8 ({error}). Fetch the list again.'
    ) from error
  numbered = [(n, s.strip()) for n, s in enumerate(lines, 1) if s.strip()]
  return unique(path, numbered)


def unique(
  path: pathlib.Path,
  numbered: Iterable[tuple[int, str]],
  *,
  unit: str = 'line',
  column: str = '',
) -> list[str]:
  """The ids of (number, id) pairs.

  Args:
    path: the file, for errors.
    numbered: where an id stands, and the id.
    unit: what the number counts.
    column: where in a line it stands.

  Raises:
    BadAnnotation: no ids, or one twice.
  """
  column = f', column {column!r}' if column else ''
  seen = {}
  for number, video in numbered:
    if video in seen:
      raise BadAnnotation(
        f'{path}, {unit} {number}{column}: video id {video!r} is in {unit} '
        f'{seen[video]}, too; expected each once. Remove one.'
      )
    seen[video] = number
  if not seen:
    raise BadAnnotation(f'{path}: no video ids. Fetch the list again.')
  return list(seen)


def read_json(path: pathlib.Path, kind: type) -> Any:
  """A JSON file whose outermost value is a dict or a list.

  Raises:
    BadAnnotation: other contents.
  """
  try:
    value = json.loads(path.read_text(encoding='utf-8-sig'))
  except (ValueError, RecursionError) as error:
    raise BadAnnotation(
      f'{path}: not JSON ({str(error)[:200]}). Fetch the file again.'
    ) from error
  if not isinstance(value, kind):
    raise BadAnnotation(
      f'{path}: expected a JSON {_NAMES[kind]}, found {type(value).__name__}.'
    )
  return value


_NAMES = {dict: 'object', list: 'list'}


def field(path: pathlib.Path, where: str, row: Any, key: str, kind) -> Any:
  """`row[key]` of a JSON object, checked.

  Raises:
    BadAnnotation: no object, no such key or another type.
  """
  if not isinstance(row, dict) or key not in row:
    found = sorted(row)[:12] if isinstance(row, dict) else type(row).__name__
    raise BadAnnotation(
      f'{path}, {where}: no key {key!r}; found {found}. Fetch the file again.'
    )
  # True is an int, but never a time.
  if not isinstance(row[key], kind) or isinstance(row[key], bool):
    raise BadAnnotation(
      f'{path}, {where}, key {key!r}: found {str(row[key])[:80]!r}, expected '
      f'{getattr(kind, "__name__", "a number")}.'
    )
  return row[key]


def from_csv(path: pathlib.Path) -> Table:
  """The table of a CSV with the columns `video_id` and `sentence`.

  A video may have any number of rows, adjacent or not.
  """
  rows = read_csv(path, ['video_id', 'sentence'])
  return table([(video, said) for _, (video, said) in rows], str(path))
