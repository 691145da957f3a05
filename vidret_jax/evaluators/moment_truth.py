# SPDX-License-Identifier: Apache-2.0
"""Annotation rows of moment retrieval, as the measures need them."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

import numpy as np

from vidret_jax.data import whole_files
from vidret_jax.metrics import moments

FEW = 5  # Names that an error lists.
_LONGEST = 1e12  # Seconds.


class Annotations(NamedTuple):
  """The truth about some queries.

  Attributes:
    ids: of the queries, `str(desc_id)`, in the order of the rows.
    truth: for `metrics.moments`; without spans where no row has a moment.
    kinds: kind of each query, None where no row has one.
    notes: sentences about what is allowed, but worth a look.
  """

  ids: tuple[str, ...]
  truth: moments.Truth
  kinds: tuple[str, ...] | None
  notes: tuple[str, ...]


def a_few(names: Sequence[str]) -> str:
  """The first of some names, for an error."""
  more = ', ...' if len(names) > FEW else ''
  return ', '.join(map(repr, names[:FEW])) + more


def id_of(row: Any, where: str) -> str:
  """`str(desc_id)` of a row of annotations or predictions.

  Raises:
    ValueError: the row is no object with a number or text for an id.
  """
  if not isinstance(row, Mapping) or 'desc_id' not in row:
    what = sorted(row)[:FEW] if isinstance(row, Mapping) else short(row)
    raise ValueError(
      f"{where}: expected an object with 'desc_id', found {what}"
    )
  name = row['desc_id']
  if isinstance(name, bool) or not isinstance(name, (int, str)):
    raise ValueError(
      f'{where}: desc_id is {short(name)}, expected a whole number or a text'
    )
  return str(name)


def read(path: str | pathlib.Path) -> list[dict[str, Any]]:
  """Reads annotations: an object a line, such as `tvr_val_release.jsonl`.

  Returns:
    The rows. Empty lines are skipped.

  Raises:
    ValueError: names the line that is no such object, or repeats an id.
  """
  rows, line_of = [], {}
  for where, row in whole_files.read_lines(path, ('desc_id',)):
    name = id_of(row, where)
    if name in line_of:
      raise ValueError(
        f'{where}: desc_id {name} is that of {line_of[name]}, too; every query '
        'needs an id of its own'
      )
    line_of[name] = where
    rows.append(row)
  if not rows:
    raise ValueError(f'{path}: has no annotations')
  return rows


def annotations(
  rows: Sequence[Mapping[str, Any]],
  number_of: Mapping[str, int],
  where: str,
) -> Annotations:
  """Turns rows into arrays.

  Args:
    rows: with distinct `desc_id`, `vid_name`, and all or none with `ts` (two
      numbers, or pairs of several annotators, in seconds) and with `type`.
    number_of: `vid_name` -> number of the video.
    where: for errors, the file of the rows.

  Returns:
    The truth, with the numbers of the videos.

  Raises:
    ValueError: rows of a hidden split, a row that lacks what others have, a
      moment that is none, a video without number.
  """
  ids = tuple(id_of(row, where) for row in rows)
  if not _all_have('vid_name', rows, ids, where):
    raise ValueError(
      f"{where}: no row has 'vid_name': a split whose answers are hidden "
      'cannot be evaluated here. Send the predictions to the server of the '
      'challenge, or give the annotations of another split.'
    )
  names = [str(row['vid_name']) for row in rows]
  unknown = [name for name in dict.fromkeys(names) if name not in number_of]
  if unknown:
    raise ValueError(
      f'{where}: {len(unknown)} videos of the annotations have no number in '
      f'video2idx: {a_few(unknown)}. It has to cover the split.'
    )
  items = np.array([number_of[name] for name in names], np.int64)
  spans = valid = kinds = None
  notes = []
  if _all_have('ts', rows, ids, where):
    spans, valid = _spans(rows, ids, where)
    backward = (spans[..., 1] < spans[..., 0]).any(1)
    if backward.any():
      notes.append(
        f'{where}: {int(backward.sum())} true moments end before they start, '
        f'such as that of {ids[int(backward.argmax())]}; nothing overlaps them'
      )
  if _all_have('type', rows, ids, where):
    kinds = tuple(str(row['type']) for row in rows)
    wrong = [i for i, kind in enumerate(kinds) if kind not in moments.KINDS]
    if wrong:
      raise ValueError(
        f'{where}: type of {ids[wrong[0]]} is {short(rows[wrong[0]]["type"])},'
        f' expected one of {", ".join(moments.KINDS)} ({len(wrong)} such)'
      )
  truth = moments.Truth(items, spans, valid)
  return Annotations(ids, truth, kinds, tuple(notes))


def _all_have(key, rows, ids, where):
  """Whether all rows have a key; an error where only some have it."""
  without = [name for name, row in zip(ids, rows) if row.get(key) is None]
  if without and len(without) < len(rows):
    raise ValueError(
      f'{where}: {len(without)} of {len(rows)} rows have no {key!r}: '
      f'{a_few(without)}'
    )
  return not without


def _spans(rows, ids, where):
  """(float32 [q, a, 2], bool [q, a])."""
  every = [_pairs(row['ts'], name, where) for name, row in zip(ids, rows)]
  most = max(map(len, every))
  valid = np.arange(most) < np.array([len(x) for x in every])[:, None]
  spans = np.zeros((*valid.shape, 2), np.float32)
  spans[valid] = [pair for pairs in every for pair in pairs]
  return spans, valid


def _pairs(ts, name, where):
  several = isinstance(ts, list) and ts and isinstance(ts[0], list)
  pairs = ts if several else [ts]
  for pair in pairs:
    if (
      not isinstance(pair, list)
      or len(pair) != 2
      or not all(type(x) in (int, float) for x in pair)
      or not all(abs(x) < _LONGEST for x in pair)  # Not where NaN.
    ):
      raise ValueError(
        f'{where}: ts of {name} is {short(ts)}, expected [start, end] in '
        'seconds, or a list of such pairs'
      )
  return pairs


def short(value: Any) -> str:
  """A value as an error shows it, whatever it is."""
  try:
    text = repr(value)
  except (ValueError, RecursionError):  # Too many digits, too deep.
    text = type(value).__name__
  return text if len(text) <= 60 else f'{text[:57]}...'
