# SPDX-License-Identifier: Apache-2.0
"""Files of similarities, {query: {video: score}}, larger is nearer.

That is the form in which results of FIVR-200K are exchanged (`evaluation.py` of
https://github.com/MKLab-ITI/FIVR-200K); HAP-VR pickles the same. Files are read
with suspicion: whoever evaluates them did not make them.
"""

import array
from collections.abc import Mapping, Sequence
import json
import math
import pathlib
from typing import NamedTuple

import numpy as np

from vidret_jax.data import bad_file, whole_files
from vidret_jax.metrics import copies

_SHOWN = 3  # Ids that a message names.


class Scored(NamedTuple):
  """Scores of one query.

  Attributes:
    videos: int32 [n], numbers in `Similarities.videos`.
    scores: float64 [n], finite.
  """

  videos: np.ndarray
  scores: np.ndarray


class Similarities(NamedTuple):
  """What a file holds.

  Attributes:
    videos: every id of a scored video, in the order of the file.
    queries: query -> its scores.
  """

  videos: tuple[str, ...]
  queries: dict[str, Scored]


def write(
  path: str | pathlib.Path,
  scores: np.ndarray,
  queries: Sequence[str],
  items: Sequence[str],
  top: int | None = None,
) -> None:
  """Writes scores, best first; whole or not at all.

  Numbers have nine digits, from which float32 comes back as it was. Queries
  without any score are left out, and so is each from its own list: it competes
  in no protocol, but the script of FIVR-200K would count it as a wrong answer.

  Args:
    path: of the JSON file; a file that is there is replaced.
    scores: float32 [q, n]; NaN where there is none.
    queries: ids of the rows.
    items: ids of the columns.
    top: so many videos of each query; None: all that have a score.

  Raises:
    ValueError: shapes that do not fit, or an infinite score; nothing is
      written.
  """
  if scores.shape != (len(queries), len(items)):
    raise ValueError(
      f'{path}: scores {list(scores.shape)}, expected [{len(queries)}, '
      f'{len(items)}].'
    )
  if np.isinf(scores).any():
    i, j = np.argwhere(np.isinf(scores))[0].tolist()
    raise ValueError(
      f'{path}: score of query {queries[i]!r} and video {items[j]!r} is '
      f'{scores[i, j]}, expected a finite number.'
    )
  names = [json.dumps(name) for name in items]
  column = {name: j for j, name in enumerate(items)}
  with (
    whole_files.partial(path, overwrite=True) as draft,
    open(draft, 'w', encoding='utf-8') as file,
  ):
    file.write('{')
    before = ''
    for query, row in zip(queries, scores):
      order = np.argsort(-row, kind='stable')[: (~np.isnan(row)).sum()]
      order = order[order != column.get(query, -1)][:top]
      if not len(order):
        continue
      values = zip(order.tolist(), row[order].tolist())
      text = ', '.join(f'{names[j]}: {score:.9g}' for j, score in values)
      file.write(f'{before}{json.dumps(query)}: {{{text}}}')
      before = ',\n'
    file.write('}\n')


def read(path: str | pathlib.Path) -> Similarities:
  """Reads a file; ids and scores become arrays while it is parsed.

  Raises:
    FileNotFoundError: no such file.
    bad_file.BadFile: no JSON, or not of the form above; names query and video.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file.')
  number: dict[str, int] = {}

  def hook(pairs):
    if not pairs:  # A query without videos, or a file without queries.
      return _Row((), ())
    if all(isinstance(value, _Row) for _, value in pairs):
      return _distinct(pairs)
    return _packed(pairs, number)

  try:
    with open(path, encoding='utf-8-sig') as file:
      content = json.load(file, object_pairs_hook=hook, parse_constant=_refuse)
  except RecursionError:
    raise bad_file.BadFile(f'{path}: objects without end.') from None
  except ValueError as error:
    raise bad_file.BadFile(
      f'{path}: {str(error)[:300]}. Expected a JSON file of '
      '{query: {video: score}}.'
    ) from None
  if not isinstance(content, dict):
    found = 'the scores of one query' if isinstance(content, _Row) else content
    raise bad_file.BadFile(
      f'{path}: holds {str(found)[:60]}, expected {{query: {{video: score}}}}.'
    )
  return Similarities(
    tuple(number),
    {
      query: Scored(np.asarray(row[0], np.int32), np.asarray(row[1], float))
      for query, row in content.items()
    },
  )


def matrix(
  found: Similarities,
  queries: Sequence[str],
  items: Sequence[str],
  where: str,
  *,
  searched: Sequence[str] | None = None,
) -> tuple[np.ndarray, copies.There, tuple[str, ...]]:
  """Scores by rows and columns.

  Args:
    found: of a file.
    queries: ids of the rows.
    items: ids of the columns.
    where: the file, for messages.
    searched: videos that were there to be found. Of those without a score for a
      query, the query was searched without finding them; all others are
      missing. None: those that are scored for any query.

  Returns:
    float64 [q, n], NaN where there is no score; which videos are there; and
    sentences about what the file has beyond this.

  Raises:
    ValueError: no query or no video of the file is a row or a column, or a
      video is scored that was not searched.
  """
  column = {name: j for j, name in enumerate(items)}
  place = np.array([column.get(v, -1) for v in found.videos], np.int64)
  scores = np.full((len(queries), len(items)), np.nan)
  for i, query in enumerate(queries):
    if query in found.queries:
      row = found.queries[query]
      inside = place[row.videos] >= 0
      scores[i, place[row.videos[inside]]] = row.scores[inside]
  notes = []
  strange = dict(
    queries=sorted(set(found.queries) - set(queries)),
    videos=[v for v, j in zip(found.videos, place.tolist()) if j < 0],
  )
  total = dict(queries=len(found.queries), videos=len(found.videos))
  for what, ids in strange.items():
    if len(ids) == total[what]:
      raise ValueError(
        f'{where}: none of its {total[what]} {what} is one of the annotations, '
        f'which have {list(dict(queries=queries, videos=items)[what][:_SHOWN])}'
        f'; found {ids[:_SHOWN]}. Are these annotations of another data set?'
      )
    if ids:
      notes.append(
        f'{where} has {len(ids):,} {what} that the annotations do not have, '
        f'such as {ids[0]!r}; they are left out.'
      )
  asked = np.array([query in found.queries for query in queries])
  known = copies.There(asked, ~np.isnan(scores).all(0))
  if searched is not None:
    there = np.isin(np.array(items), np.array(list(searched)))
    if (more := known.items & ~there).any():
      raise ValueError(
        f'{where}: scores {items[int(more.argmax())]!r}, which is not on the '
        f'list of what was searched ({int(more.sum())} such videos).'
      )
    known = known._replace(items=there)
  elif gaps := _gaps(scores, known, [column.get(q, -1) for q in queries]):
    notes.append(
      f'{where} has no score for {gaps:,} pairs of its queries and videos. If '
      'it holds only the best of each query, name all videos that were '
      'searched (--searched): those in no list count as missing, which '
      "missing='ignore' takes for no misses."
    )
  return scores, known, tuple(notes)


def _gaps(scores, known, own):
  """Pairs of different videos that are there, without a score."""
  empty = np.isnan(scores)
  empty[~known.queries] = False
  empty[:, ~known.items] = False
  own = np.array(own)
  empty[own >= 0, own[own >= 0]] = False
  return int(empty.sum())


class _Row(tuple):
  """(numbers of videos, scores) of one query while a file is parsed."""

  __slots__ = ()

  def __new__(cls, videos, scores):
    return super().__new__(cls, (videos, scores))


def _refuse(text):
  raise ValueError(f'{text} is a score, expected finite numbers')


def _distinct(pairs: list) -> Mapping[str, _Row]:
  out = dict(pairs)
  if len(out) < len(pairs):
    raise ValueError(f'query {_twice(pairs)!r} occurs twice')
  return out


def _packed(pairs, number):
  """The scores of one query."""
  videos, scores = array.array('i'), array.array('d')
  for name, value in pairs:
    if type(value) not in (int, float) or not _finite(value):
      what = 'an object' if isinstance(value, (_Row, dict)) else repr(value)
      raise ValueError(
        f'{name!r} has {what[:60]}, expected a finite number as the score'
      )
    videos.append(number.setdefault(name, len(number)))
    scores.append(value)
  if len(set(videos)) < len(videos):
    raise ValueError(f'video {_twice(pairs)!r} is scored twice for one query')
  return _Row(videos, scores)


def _finite(value):
  try:
    return math.isfinite(value)
  except OverflowError:  # A whole number beyond all floats.
    return False


def _twice(pairs):
  seen = set()
  return next(k for k, _ in pairs if k in seen or seen.add(k))
