# SPDX-License-Identifier: Apache-2.0
"""Files of found moments, in the form of the TVR challenge.

  {"video2idx": {vid_name: video_idx, ...},
   "VCMR": [{"desc_id": ..., "desc": ...,
             "predictions": [[video_idx, start, end, score], ...]}, ...],
   "SVMR": [...], "VR": [...]}

Best rows first; seconds. The order of the file counts, scores are for record.
Files are read with suspicion: whoever evaluates them did not make them.
"""

import collections
from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from vidret_jax.data import whole_files
from vidret_jax.evaluators import moment_rows, moment_truth
from vidret_jax.metrics import moments

_INDEX = 'video2idx'


class Predictions(NamedTuple):
  """What a file holds.

  Attributes:
    video2idx: vid_name -> video_idx.
    tasks: task -> its lists, in the order of the file.
    notes: sentences about what is allowed, but worth a look.
  """

  video2idx: dict[str, int]
  tasks: dict[str, moment_rows.Found]
  notes: tuple[str, ...]


def read(path: str | pathlib.Path, limit: int = moments.LIMIT) -> Predictions:
  """Reads a file of predictions.

  Rows become arrays while the file is parsed, so beside the text there is never
  a second copy of it in Python's objects.

  Args:
    path: of the JSON file.
    limit: rows of each query to take, as upstream.

  Raises:
    ValueError: no JSON, or not of the form above; names task, query and row.
  """
  content = _parse(path, limit)
  if not isinstance(content, dict):
    raise ValueError(
      f'{path}: holds {moment_truth.short(content)}, expected an object with '
      f'{_INDEX!r} and some of {", ".join(moments.TASKS)}'
    )
  tasks = [name for name in content if name in moments.TASKS]
  others = [name for name in content if name not in (*moments.TASKS, _INDEX)]
  if _INDEX not in content or not tasks:
    raise ValueError(
      f'{path}: has {moment_truth.a_few(list(content)) or "nothing"}, expected '
      f'{_INDEX!r} and some of {", ".join(moments.TASKS)}'
    )
  notes = [
    f'{path}: {moment_truth.short(name)} is no task and not looked at'
    for name in others
  ]
  video2idx = _check_index(content[_INDEX], path)
  found = {}
  for task in tasks:
    where = f'{path}, {task}'
    entries = content.pop(task)
    found[task], more = moment_rows.found(entries, video2idx, where)
    notes += more
  return Predictions(video2idx, found, tuple(notes))


def aligned(
  predictions: Predictions,
  ids: Sequence[str],
  where: str,
  match: bool = True,
) -> dict[str, moments.Lists]:
  """Lists in the order of the annotations.

  Args:
    predictions: of a file.
    ids: of the annotations.
    where: for errors, the file of the predictions.
    match: every query of either side has to be on the other one; False leaves
      out those that are not (upstream's `match_number`).

  Raises:
    ValueError: ids differ, or have nothing in common.
  """
  out = {}
  for task, found in predictions.tasks.items():
    place = {name: i for i, name in enumerate(found.ids)}
    missing = [name for name in ids if name not in place]
    known = set(ids)
    strange = [name for name in found.ids if name not in known]
    if match and (missing or strange):
      raise ValueError(
        f'{where}, {task}: the {len(found.ids)} queries are not the {len(ids)} '
        f'of the annotations; {len(missing)} are missing: '
        f'{moment_truth.a_few(missing) or "none"}; {len(strange)} are unknown: '
        f'{moment_truth.a_few(strange) or "none"}. Predict the same split, or '
        'evaluate what both have (--no-match).'
      )
    if len(missing) == len(ids):
      raise ValueError(f'{where}, {task}: no query is one of the annotations')
    take = np.array([place.get(name, 0) for name in ids], np.int64)
    there = np.array([name in place for name in ids])
    lists = moments.Lists(*(x[take] for x in found.lists[:4]))
    out[task] = lists._replace(
      valid=lists.valid & there[:, None], counted=None if match else there
    )
  return out


def write(
  path: str | pathlib.Path,
  tasks: Mapping[str, moments.Lists],
  rows: Sequence[Mapping[str, Any]],
  video2idx: Mapping[str, int],
  numbers: np.ndarray | None = None,
) -> None:
  """Writes predictions, query by query; whole or not at all.

  Numbers have nine digits, from which float32 comes back as it was.

  Args:
    path: of the JSON file.
    tasks: task -> lists with scores, rows like `rows`; written in this order.
    rows: of each query, `desc_id` and `desc`.
    video2idx: of all videos of the split.
    numbers: int [v], `video_idx` of what `Lists.items` holds; None: it holds
      `video_idx`.

  Raises:
    ValueError: shapes, or numbers that are not finite; nothing is written.
  """
  for task, lists in tasks.items():
    _check_lists(task, lists, len(rows), numbers)
  with (
    whole_files.partial(path, overwrite=True) as draft,
    open(draft, 'w', encoding='utf-8') as file,
  ):
    file.write(f'{{"{_INDEX}": ')
    json.dump({str(k): int(i) for k, i in video2idx.items()}, file)
    for task, lists in tasks.items():
      file.write(f', {json.dumps(task)}: [')
      for i, text in enumerate(_texts(lists, rows, numbers)):
        file.write(f', {text}' if i else text)
      file.write(']')
    file.write('}')


def _parse(path, limit):
  def hook(pairs):
    out = dict(pairs)
    if len(out) < len(pairs):
      count = collections.Counter(name for name, _ in pairs)
      twice = moment_truth.short(count.most_common(1)[0][0])
      raise ValueError(f'key {twice} occurs twice in an object')
    if isinstance(out.get('predictions'), list):
      out['predictions'] = moment_rows.packed(out['predictions'], limit)
    return out

  try:
    with open(path, encoding='utf-8-sig') as file:
      return json.load(file, object_pairs_hook=hook)
  except UnicodeDecodeError as error:
    raise ValueError(f'{path}: is no text in UTF-8 ({error})') from None
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{path}: is no JSON ({error}). Cut off, or annotations given for '
      'predictions?'
    ) from None
  except RecursionError:
    raise ValueError(f'{path}: lists within lists without end') from None
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def _check_index(index, path):
  if not isinstance(index, dict):
    raise ValueError(
      f'{path}: {_INDEX} is {moment_truth.short(index)}, expected an object of '
      'vid_name: video_idx'
    )
  names = {}
  for name, number in index.items():
    if type(number) is not int or not abs(number) < moment_rows.LARGEST:
      raise ValueError(
        f'{path}: {_INDEX} of {name!r} is {moment_truth.short(number)}, '
        'expected a whole number'
      )
    if number in names:
      raise ValueError(
        f'{path}: {_INDEX} gives {number} to {names[number]!r} and to {name!r};'
        ' every video needs a number of its own'
      )
    names[number] = name
  return index


def _check_lists(task, lists, q, numbers):
  shape = lists.items.shape
  if task not in moments.TASKS or lists.scores is None:
    raise ValueError(
      f'{task}: expected one of {", ".join(moments.TASKS)}, with scores'
    )
  if len(shape) != 2 or shape[0] != q or lists.scores.shape != shape:
    raise ValueError(
      f'{task}: items {list(shape)} and scores {list(lists.scores.shape)}, '
      f'expected [{q}, n] twice'
    )
  good = np.isfinite(lists.scores)
  if lists.spans is not None:
    good &= np.isfinite(lists.spans).all(-1)
  if numbers is not None:
    good &= (lists.items >= 0) & (lists.items < len(numbers))
  if (bad := lists.valid & ~good).any():
    i, j = np.argwhere(bad)[0].tolist()
    span = 0 if lists.spans is None else lists.spans[i, j].tolist()
    raise ValueError(
      f'{task}: row {j} of query {i} has item {lists.items[i, j]}, span {span} '
      f'and score {lists.scores[i, j]}, expected a known video and finite '
      f'numbers ({int(bad.sum())} such rows)'
    )


def _texts(lists, rows, numbers):
  """Yields the JSON object of each query."""
  one = '[%d, 0, 0, %.9g]' if lists.spans is None else '[%d, %.9g, %.9g, %.9g]'
  for i, row in enumerate(rows):
    here = lists.valid[i]
    items = lists.items[i][here]
    columns = [items if numbers is None else numbers[items]]
    if lists.spans is not None:
      columns += list(lists.spans[i][here].T)
    columns.append(lists.scores[i][here])
    values = np.stack(columns, axis=1, dtype=np.float64).ravel().tolist()
    found = ', '.join([one] * len(items)) % tuple(values)
    name, text = json.dumps(row['desc_id']), json.dumps(row.get('desc', ''))
    yield f'{{"desc_id": {name}, "desc": {text}, "predictions": [{found}]}}'
