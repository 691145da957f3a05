# SPDX-License-Identifier: Apache-2.0
"""From captions to the annotation files of a dataset, step by step.

`tools/annotate.py` is the program; here is what it calls, file by file as
`published.py` reads them: roles, role graphs, classes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import itertools
import json
import os
import pathlib
from typing import Any

from vidret_jax.data.graphs import (
  annotate,
  dependencies,
  files,
  layout,
  lexicon,
  srl,
)

Failures = dict[str, str]  # Caption -> why.
_ABSENT = object()


class Slots:
  """Captions of the clips of a dataset.

  Attributes:
    of_clip: clip -> {slot: caption}.
  """

  def __init__(self, path: str | os.PathLike, by: str):
    """Reads `ref_captions.json`; `by` is as in `layout.Layout`.

    Raises:
      files.BadFile: not {key: [caption, ...]}; names the key.
    """
    self.path = path
    self.of_clip: dict[str, dict[int, str]] = {}
    for key, said in files.json_object(pathlib.Path(path)).items():
      if not isinstance(said, list) or not said:
        raise files.BadFile(
          f'{path}: {key!r} has {str(said)[:60]!r}, expected a list of captions'
        )
      clip, slots = key, range(len(said))
      if by == 'slot':
        clip, _, number = key.rpartition('_')
        if not clip or not number.isdecimal() or len(said) > 1:
          raise files.BadFile(
            f'{path}: key {key!r} with {len(said)} captions, expected '
            "'<clip>_<number>' with one"
          )
        slots = [int(number)]
      for slot, text in zip(slots, said, strict=True):
        files.caption(text, f'{path}: caption {slot} of clip {clip!r}')
        row = self.of_clip.setdefault(clip, {})
        if slot in row:
          raise files.BadFile(f'{path}: two captions {slot} of clip {clip!r}')
        row[slot] = text
    if not self.of_clip:
      raise files.BadFile(f'{path}: no captions')

  def texts(self, clips: Sequence[str] | None = None) -> list[str]:
    """All captions of some or all clips, with repetitions."""
    absent = [c for c in clips or () if c not in self.of_clip]
    if absent:
      raise files.BadFile(f'{self.path}: no captions of clip {absent[0]!r}')
    rows = [self.of_clip[c] for c in (clips or self.of_clip)]
    return list(itertools.chain.from_iterable(row.values() for row in rows))


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON; the file appears whole or not at all."""
  partial = path.with_name(f'{path.name}.partial')
  with open(partial, 'w', encoding='utf-8') as file:
    json.dump(value, file, ensure_ascii=False)
  os.replace(partial, path)


def read_parses(
  paths: Iterable[str | os.PathLike],
) -> dict[str, annotate.Parse]:
  """Parses from files; a later file goes before an earlier one.

  Raises:
    ValueError: a file, or a caption in it, is malformed.
  """
  found = {}
  for path in paths:
    for caption, value in files.json_object(pathlib.Path(path)).items():
      try:
        found[caption] = annotate.from_json(caption, value)
      except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
  return found


def add_parses(
  found: dict[str, annotate.Parse],
  nlp: Any,
  captions: Sequence[str],
  path: pathlib.Path,
  report: Callable[[int], Any],
) -> None:
  """Parses captions; what is known is written, also when this is stopped."""
  try:
    for caption, parse in annotate.parse(nlp, captions, report):
      found[caption] = parse
  finally:
    write_json(path, {c: p.to_json() for c, p in found.items()})


def find_roles(
  found: Mapping[str, Any],
  captions: Iterable[str],
  parses: Mapping[str, annotate.Parse],
) -> tuple[dict[str, Any], Failures]:
  """Roles that a tagger found, or else by rules from parses."""
  kept, failed = {}, {}
  for caption in captions:
    # Files without captions are known by the words.
    value = found.get(caption, found.get(' '.join(caption.split()), _ABSENT))
    if value is not _ABSENT:
      words = value.get('words') if isinstance(value, Mapping) else None
      if words == caption.split():
        kept[caption] = value
      else:
        failed[caption] = 'the words of its roles are not those of the caption'
    elif caption in parses and any(parses[caption].deps):
      kept[caption] = dependencies.roles(parses[caption])
    else:
      failed[caption] = 'no roles; give --spacy, or --srl with this caption'
  return kept, failed


def make_graphs(
  roles: Mapping[str, Any],
  parses: Mapping[str, annotate.Parse],
  captions: Iterable[str],
) -> tuple[dict[str, srl.Graph], dict[str, srl.Graph], Failures]:
  """Graphs of captions.

  Returns:
    Those that could be made; those of all captions, augmented, which begin
    from the caption alone where none could be made; failures.
  """
  plain, failed = srl.graphs(roles)
  augmented = {}
  for caption in captions:
    graph = plain.get(caption) or srl.root(caption.split())
    if caption in parses:
      parse = parses[caption]
      graph = srl.augment(graph, parse.tags, parse.chunks)
    augmented[caption] = graph
  return plain, augmented, failed


def read_table(path: str | os.PathLike) -> dict[str, int]:
  """Reads {lemma: class}.

  Raises:
    files.BadFile: something else.
  """
  table = files.json_object(pathlib.Path(path))
  for word, i in table.items():
    if type(i) is not int or i < 0:
      raise files.BadFile(
        f'{path}: the class of {word[:60]!r} is {str(i)[:20]!r}, expected an '
        'integer from 0 on'
      )
  return table


def make_classes(
  kind: layout.Layout,
  slots: Slots,
  parses: Mapping[str, annotate.Parse],
  verbs: Mapping[str, int],
  nouns: Mapping[str, int],
) -> tuple[dict[str, Any], Failures]:
  """The file of classes, for all captions, and failures.

  Args:
    kind: how the dataset's keys are made. Where they are clips
      (EPIC-Kitchens-100) a caption has one verb class, its first.
    slots: the captions.
    parses: of captions.
    verbs: lemma -> class; lemmas without one are left out.
    nouns: the same.
  """
  database, failed = {}, {}
  for clip, said in slots.of_clip.items():
    for slot, caption in said.items():
      if caption not in parses:
        failed[caption] = 'no parts of speech; give --spacy or --parses'
        continue
      found = lexicon.classes(lexicon.verbs(parses[caption]), verbs)
      if kind.classes_by == 'clip':
        found = found[0] if found else []
      database[_key(kind, clip, slot)] = entry(
        found, lexicon.classes(lexicon.nouns(parses[caption]), nouns)
      )
  return {'database': database}, failed


def entry(verbs: int | list[int], nouns: list[int]) -> dict[str, Any]:
  """The annotation of one caption."""
  return {'annotations': [{'verb_class': verbs, 'noun_classes': nouns}]}


def _key(kind, clip, slot):
  if kind.classes_by == 'clip':
    return clip
  stem = clip.removesuffix('.mp4') if kind.classes_by == 'rank' else clip
  return f'{stem}_{slot}'
