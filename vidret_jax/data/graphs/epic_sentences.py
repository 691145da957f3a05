# SPDX-License-Identifier: Apache-2.0
"""Clips and sentences of multi-instance retrieval on EPIC-Kitchens-100.

Its relevance (JPoSE, Wray et al., ICCV 2019; Damen et al., IJCV 2022) is
between all clips and the sentence table: each narration once.
"""

from collections.abc import Iterator, Mapping, Sequence
import csv
import dataclasses
import os

from vidret_jax.data.graphs import classes

_CLIPS = ('narration_id', 'narration', 'verb_class', 'all_noun_classes')
_NEXT = 'expected the columns of the official retrieval annotations'


@dataclasses.dataclass(frozen=True)
class Clips:
  """The clip table.

  Attributes:
    ids: v narration ids, which name the clips.
    narrations: v sentences.
    verbs: v classes.
    nouns: v lists of classes, the main one first.
  """

  ids: list[str]
  narrations: list[str]
  verbs: list[int]
  nouns: list[list[int]]

  def __len__(self):
    return len(self.ids)

  def take(self, rows: Sequence[int]) -> 'Clips':
    """The table of some rows."""
    columns = (self.ids, self.narrations, self.verbs, self.nouns)
    return Clips(*([column[i] for i in rows] for column in columns))


def read_clips(path: str | os.PathLike) -> Clips:
  """Reads `EPIC_100_retrieval_{train,test}.csv`.

  Raises:
    ValueError: a column is missing or a cell is malformed; names the line.
  """
  table = Clips([], [], [], [])
  for where, row in _rows(path, _CLIPS):
    try:
      (verb,) = classes.parse(f'[{row["verb_class"]}]')
      nouns = classes.parse(row['all_noun_classes'])
    except ValueError as error:
      raise ValueError(f'{where}: {error}') from None
    table.ids.append(row['narration_id'])
    table.narrations.append(row['narration'])
    table.verbs.append(verb)
    table.nouns.append(nouns)
  if len(set(table.ids)) < len(table):
    raise ValueError(f'{path}: a narration_id occurs twice; {_NEXT}')
  return table


def _rows(path, columns) -> Iterator[tuple[str, Mapping[str, str]]]:
  with open(path, encoding='utf-8-sig', newline='') as file:
    reader = csv.DictReader(file)
    try:
      found = reader.fieldnames or []
      absent = [c for c in columns if c not in found]
      if absent:
        raise ValueError(f'{path}: no column {absent} in {found}; {_NEXT}')
      for row in reader:
        where = f'{path}:{reader.line_num}'
        if any(row[c] is None for c in columns):
          raise ValueError(f'{where}: too few cells')
        yield where, row
    except (csv.Error, UnicodeDecodeError) as error:
      raise ValueError(f'{path}: no CSV in UTF-8 ({error}); {_NEXT}') from None


def sentence_table(clips: Clips) -> list[int]:
  """Which clips stand for the sentences, as in the official tables.

  Each narration is there once, as the first clip that has it. Clips with the
  same narration can be of several actions; an action (verb class and main
  noun class) that is left without a sentence gets one more, that of its first
  clip.

  Returns:
    q rows of the clip table.
  """
  first = {}
  for i, narration in enumerate(clips.narrations):
    first.setdefault(narration, i)
  kept = list(first.values())

  def action(i):
    return clips.verbs[i], *clips.nouns[i][:1]

  there = {action(i) for i in kept}
  for i in range(len(clips)):
    if action(i) not in there:
      there.add(action(i))
      kept.append(i)
  return kept


def read_sentences(path: str | os.PathLike, clips: Clips) -> list[int]:
  """Reads a table such as `EPIC_100_retrieval_test_sentence.csv`.

  Args:
    path: CSV with `narration` and, if it is the official one, `narration_id`.
    clips: of the same split.

  Returns:
    q rows of the clip table: the clip that a sentence is named after, or where
    ids are of another kind the first clip with that narration.

  Raises:
    ValueError: a sentence of no clip.
  """
  by_id = {name: i for i, name in enumerate(clips.ids)}
  by_text = {}
  for i, narration in enumerate(clips.narrations):
    by_text.setdefault(narration, i)
  found = []
  for where, row in _rows(path, ('narration',)):
    i = by_id.get(row.get('narration_id'), by_text.get(row['narration']))
    if i is None:
      raise ValueError(
        f'{where}: {row["narration"]!r} is a narration of no clip; give the '
        'clip table of the same split'
      )
    found.append(i)
  return found
