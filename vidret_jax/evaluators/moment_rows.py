# SPDX-License-Identifier: Apache-2.0
"""Rows of a file of found moments, from JSON to checked arrays."""

import array
from collections.abc import Mapping
import itertools
from typing import Any, NamedTuple

import numpy as np

from vidret_jax.evaluators import moment_truth
from vidret_jax.metrics import moments

# Neither seconds nor numbers of videos come near it.
LARGEST = 10**12
ROW = '[video_idx, start, end, score]'


class Found(NamedTuple):
  """Lists of one task; `lists.items` holds `video_idx`."""

  ids: tuple[str, ...]
  lists: moments.Lists


class Rows(NamedTuple):
  """Rows of one query: float64 [n, 3 or 4], and how many the file has.

  Three numbers are a row without score.
  """

  values: np.ndarray
  total: int


def packed(rows: list[Any], limit: int) -> Rows | list[Any]:
  """The first `limit` rows, or all as they are where they are none.

  What is left as it is makes `found` fail with an explanation.
  """
  some = rows[:limit]
  try:
    widths = set(map(len, some))
    # Takes numbers only: NumPy would make numbers of texts.
    flat = array.array('d', itertools.chain.from_iterable(some))
  except (TypeError, OverflowError):
    return rows
  if not widths:
    return Rows(np.zeros((0, 4)), 0)
  if widths not in ({3}, {4}):
    return rows
  return Rows(np.array(flat).reshape(len(some), -1), len(rows))


def found(
  entries: Any, video2idx: Mapping[str, int], where: str
) -> tuple[Found, list[str]]:
  """Checks the list of one task and puts it into arrays.

  Args:
    entries: the list, whose `predictions` went through `packed`.
    video2idx: of the file.
    where: for errors, file and task.

  Returns:
    The lists, and sentences about what deserves a look.

  Raises:
    ValueError: names the query and row that is wrong.
  """
  if not isinstance(entries, list):
    raise ValueError(
      f'{where}: is {moment_truth.short(entries)}, expected a list with an '
      'object for each query'
    )
  place, parts = {}, []
  for number, entry in enumerate(entries):
    name = moment_truth.id_of(entry, f'{where}, entry {number}')
    if name in place:
      raise ValueError(
        f'{where}: desc_id {name} occurs twice, in the entries {place[name]} '
        f'and {number}'
      )
    place[name] = number
    rows = entry.get('predictions')
    if not isinstance(rows, Rows):
      raise ValueError(f'{where}, desc_id {name}: {_explain(rows)}')
    parts.append(rows)
  ids = tuple(place)
  lengths = np.array([len(x.values) for x in parts], np.int64)
  valid = np.arange(lengths.max(initial=0)) < lengths[:, None]
  values = np.zeros((*valid.shape, 4))
  values[..., 3] = np.nan
  for to, (rows, _) in zip(values, parts):
    to[: len(rows), : rows.shape[1]] = rows
  _check_values(values, valid, ids, where)
  lists = moments.Lists(
    items=values[..., 0].astype(np.int64),
    valid=valid,
    spans=values[..., 1:3].astype(np.float32),
    scores=values[..., 3].astype(np.float32),
  )
  longer = np.array([len(x.values) < x.total for x in parts], bool)
  return Found(ids, lists), [
    f'{where}: {n} {text} (first: desc_id {ids[first]})'
    for text, n, first in _notes(lists, longer, video2idx)
  ]


def _check_values(values, valid, ids, where):
  """Indices are whole numbers, times are numbers of seconds."""
  good = (np.abs(values[..., :3]) < LARGEST).all(-1)  # Not where NaN.
  good &= values[..., 0] == np.floor(values[..., 0])
  good &= ~(np.abs(values[..., 3]) > np.finfo(np.float32).max)  # NaN: none.
  if (bad := valid & ~good).any():
    i, j = np.argwhere(bad)[0].tolist()
    raise ValueError(
      f'{where}, desc_id {ids[i]}: row {j} is {values[i, j].tolist()}, '
      f'expected {ROW}, all finite ({int(bad.sum())} such rows)'
    )


def _explain(rows):
  """Why `packed` left some rows alone."""
  if not isinstance(rows, list):
    found = 'missing' if rows is None else moment_truth.short(rows)
    return f'predictions is {found}, expected a list of {ROW}'
  for i, row in enumerate(rows):
    if (
      not isinstance(row, list)
      or len(row) not in (3, 4)
      or not all(type(x) in (int, float) and abs(x) < LARGEST for x in row)
    ):
      return f'row {i} is {moment_truth.short(row)}, expected {ROW}'
  return 'some rows have a score and some have none, expected all or none'


def _notes(lists, longer, video2idx):
  """Yields (what deserves a look, how often, the first query)."""
  scores, spans, valid = lists.scores, lists.spans, lists.valid
  known = np.array(list(video2idx.values()), np.int64)
  rising = (scores[:, 1:] > scores[:, :-1]) & valid[:, 1:]
  for text, here in {
    'rows end before they start, and overlap nothing': (
      (spans[..., 1] < spans[..., 0]) & valid
    ),
    'rows name a video that video2idx does not have': (
      ~np.isin(lists.items, known) & valid
    ),
    'rows have no score': np.isnan(scores) & valid,
    'lists are not sorted by score; their order counts': rising.any(1),
    'lists are longer than what counts': longer,
    'lists are empty and count as misses': ~valid.any(1),
  }.items():
    if n := int(here.sum()):
      yield text, n, int(np.argwhere(here)[0, 0])
