# SPDX-License-Identifier: Apache-2.0
"""What a submission to the EPIC-Kitchens-100 retrieval challenge contains."""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import pickle
from typing import Any, BinaryIO

import numpy as np

from vidret_jax.data.graphs import epic_sentences

VERSION, CHALLENGE = '0.1', 'multi_instance_retrieval'
MEMBER = 'test.pkl'
MAX_BYTES = 2**31
_LEVELS = {'sls_pt': range(6), 'sls_tl': range(6), 'sls_td': range(6)}
KEYS = ('version', 'challenge', 'sim_mat', 'vis_ids', 'txt_ids', *_LEVELS)


@dataclasses.dataclass(frozen=True)
class Tables:
  """The official tables.

  Attributes:
    clips: v ids.
    sentences: q ids.
    narrations: q texts.
  """

  clips: tuple[str, ...]
  sentences: tuple[str, ...]
  narrations: tuple[str, ...]


def read_tables(
  clips_path: str, clips: epic_sentences.Clips, sentences_path: str
) -> Tables:
  """Puts the tables together.

  Args:
    clips_path: for errors.
    clips: the clip table.
    sentences_path: CSV with `narration_id` and `narration`.

  Raises:
    ValueError: a column is missing, or an id occurs twice.
  """
  with open(sentences_path, encoding='utf-8-sig', newline='') as file:
    try:
      rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
      raise ValueError(f'{sentences_path}: no CSV in UTF-8 ({error})') from None
  for name in ('narration_id', 'narration'):
    if not rows or any(row.get(name) is None for row in rows):
      raise ValueError(
        f'{sentences_path}: column {name!r} is missing or not in all of its '
        f'{len(rows)} rows; expected the official sentence table'
      )
  ids = tuple(row['narration_id'] for row in rows)
  for path, names in ((clips_path, clips.ids), (sentences_path, ids)):
    if len(set(names)) < len(names):
      raise ValueError(f'{path}: a narration_id occurs twice')
  return Tables(tuple(clips.ids), ids, tuple(row['narration'] for row in rows))


def arrange(
  official: Tables,
  scores: np.ndarray,
  texts: np.ndarray,
  item_ids: np.ndarray,
  where: str,
) -> np.ndarray:
  """Scores in the order of the tables: float32 [clips, sentences].

  Args:
    official: the tables.
    scores: [q, v].
    texts: [q], narrations of the rows.
    item_ids: [v], clips of the columns.
    where: for errors.

  Raises:
    ValueError: shapes differ, or a clip or sentence has no scores.
  """
  if scores.shape != (len(texts), len(item_ids)):
    raise ValueError(
      f'{where}: scores {list(scores.shape)} of {len(texts)} texts and '
      f'{len(item_ids)} items'
    )
  column = {str(name): i for i, name in enumerate(item_ids)}
  row: dict[str, int] = {}
  for i, text in enumerate(texts):
    row.setdefault(str(text), i)
  for kind, wanted, known in (
    ('clips', official.clips, column),
    ('sentences', official.narrations, row),
  ):
    absent = [name for name in wanted if name not in known]
    if absent:
      raise ValueError(
        f'{where}: no scores of {len(absent)} of the {len(wanted)} {kind} of '
        f'the table, such as {absent[0]!r}; evaluate the split of the table'
      )
  columns = [column[name] for name in official.clips]
  rows = [row[text] for text in official.narrations]
  return np.ascontiguousarray(scores[rows][:, columns].T, np.float32)


def unit_range(sim_mat: np.ndarray) -> np.ndarray:
  """Scores moved and scaled to [0, 1], which changes no ranking."""
  low, high = (float(f(sim_mat)) for f in (np.min, np.max))
  if low == high:
    return np.full_like(sim_mat, 0.5)
  scaled = (sim_mat.astype(np.float64) - low) / (high - low)
  return scaled.astype(np.float32)


def make(
  official: Tables, sim_mat: np.ndarray, sls_pt: int, sls_tl: int, sls_td: int
) -> dict[str, Any]:
  """The dict of a submission."""
  return dict(
    version=VERSION,
    challenge=CHALLENGE,
    sim_mat=sim_mat,
    vis_ids=list(official.clips),
    txt_ids=list(official.sentences),
    sls_pt=sls_pt,
    sls_tl=sls_tl,
    sls_td=sls_td,
  )


class _Portable(pickle._Pickler):  # pylint: disable=protected-access
  """Names numpy's functions as NumPy 1 and 2 both know them.

  NumPy 2 would write `numpy._core`, which the challenge's server may not have.
  """

  def save_global(self, obj, name=None):
    module = getattr(obj, '__module__', None) or ''
    if not module.startswith('numpy._core'):
      return super().save_global(obj, name)
    self.save(module.replace('numpy._core', 'numpy.core'))
    self.save(name or obj.__name__)
    self.write(pickle.STACK_GLOBAL)
    self.memoize(obj)


def dump(content: Mapping[str, Any], file: BinaryIO) -> None:
  """Pickles a submission, protocol 4."""
  _Portable(file, protocol=4).dump(content)


def check(content: Any, official: Tables, where: str) -> tuple[str, ...]:
  """Compares a submission with the tables.

  Args:
    content: what the pickle holds.
    official: the tables.
    where: for errors.

  Returns:
    Sentences about what is allowed, but worth a look.

  Raises:
    ValueError: names the first key that is wrong, what it is and what it
      should be.
  """
  if not isinstance(content, dict):
    raise ValueError(
      f'{where}: holds {type(content).__name__}, expected a dict with {KEYS}'
    )
  missing = [k for k in KEYS if k not in content]
  if missing:
    raise ValueError(
      f'{where}: no {missing}; found {sorted(map(str, content))}'
    )
  unknown = sorted(str(k) for k in content if k not in KEYS)
  if str(content['version']) != VERSION:
    raise ValueError(
      f'{where}: version is {content["version"]!r}, expected {VERSION!r}'
    )
  if content['challenge'] != CHALLENGE:
    raise ValueError(
      f'{where}: challenge is {content["challenge"]!r}, expected {CHALLENGE!r}'
    )
  for key, known in _LEVELS.items():
    level = content[key]
    whole = isinstance(level, (int, np.integer)) and type(level) is not bool
    if not whole or level not in known:
      raise ValueError(
        f'{where}: {key} is {level!r}, expected a supervision level, a whole '
        f'number from {known[0]} to {known[-1]}'
      )
  _check_ids(where, 'vis_ids', content['vis_ids'], official.clips)
  _check_ids(where, 'txt_ids', content['txt_ids'], official.sentences)
  return _check_scores(where, content['sim_mat'], official) + tuple(
    f'{key!r} is no key of a submission' for key in unknown
  )


def _check_ids(where: str, key: str, found: Any, want: Sequence[str]) -> None:
  if not isinstance(found, (list, tuple, np.ndarray)):
    raise ValueError(
      f'{where}: {key} is {type(found).__name__}, expected a list of ids'
    )
  found = [str(x) for x in found]
  if len(found) != len(want):
    raise ValueError(
      f'{where}: {key} has {len(found)} ids, the table has {len(want)}'
    )
  for i, (got, expected) in enumerate(zip(found, want)):
    if got != expected:
      raise ValueError(
        f'{where}: {key}[{i}] is {got!r}, the table has {expected!r} there; '
        'ids stand in the order of the table'
      )


def _check_scores(where: str, found: Any, official: Tables) -> tuple[str, ...]:
  shape = len(official.clips), len(official.sentences)
  try:
    sims = np.asarray(found)
  except ValueError as error:
    raise ValueError(f'{where}: sim_mat is no matrix ({error})') from None
  if sims.shape != shape or sims.dtype.kind not in 'fiu':
    raise ValueError(
      f'{where}: sim_mat is {sims.dtype} {list(sims.shape)}, expected floats '
      f'{list(shape)}, clips x sentences'
    )
  bad = np.argwhere(~np.isfinite(sims))
  if len(bad):
    i, j = bad[0].tolist()
    raise ValueError(
      f'{where}: sim_mat[{i}, {j}] is {sims[i, j]}, expected finite scores '
      f'({len(bad)} such)'
    )
  notes = []
  if sims.size and (sims.min() < 0 or sims.max() > 1):
    notes.append(
      f'scores lie in [{sims.min():.3g}, {sims.max():.3g}]; the challenge '
      'speaks of 0 to 1. --unit_range scales them'
    )
  if sims.size and sims.min() == sims.max():
    notes.append('all scores are equal')
  return tuple(notes)
