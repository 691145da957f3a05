# SPDX-License-Identifier: Apache-2.0
"""The ground truth of a corpus, one JSON line per video."""

from collections.abc import Iterator
import dataclasses
import json
import os
import pathlib
from typing import Any

from vidret_jax.data.shapes import captions, copies, sample
from vidret_jax.data.shapes import script as script_lib


def _row(script, knobs, *, copy: copies.Copy | None = None) -> dict[str, Any]:
  told = captions.write(script, knobs)
  name = copy.id if copy else script.id
  return {
    'id': name,
    'split': 'copies' if copy else script.split,
    'video': f'videos/{name}.mp4',
    'duration': script.duration,
    'captions': [
      {
        'text': c.text,
        'verb_classes': c.verb_classes,
        'noun_classes': c.noun_classes,
        'events': c.events,
        'contexts': c.contexts,
        'graph': c.graph,
      }
      for c in told
    ],
    'moments': [
      {
        'start': start,
        'end': end,
        'text': c.text,
        'kind': kind,
        'event': c.events[0] if c.events else -1,
        'graph': c.graph,
      }
      for start, end, c, kind in captions.moments(script, knobs)
    ],
    'events': [dataclasses.asdict(e) for e in script.events],
    'actors': [dataclasses.asdict(a) for a in script.actors],
    'ground': {'texture': script.texture, 'tone': script.tone},
    'sound': script.sound,
    'overlays': [
      {'start': a, 'end': b, 'text': text} for a, b, text in script.words
    ],
    'topic': script.topic,
    'subtitles': [
      {'start': a, 'end': b, 'text': text} for a, b, text in script.lines
    ],
    'copy': {
      'source': copy.source if copy else '',
      'edit': copy.edit if copy else '',
      'relation': copy.relation if copy else '',
      'other': copy.other if copy else '',
    },
  }


def rows(recipe: script_lib.Recipe) -> Iterator[dict[str, Any]]:
  """All rows in corpus order: train, val, test, copies.

  Captions and events of a copy are those of the script it was made from, not
  of the edit: a clip at another speed keeps its source's times.
  """
  scripts = sample.draw(recipe)
  knobs = recipe.difficulty
  for script in scripts:
    yield _row(script, knobs)
  by_id = {s.id: s for s in scripts}
  for copy in copies.plan(recipe, scripts):
    script = by_id[copy.source]
    if copy.edit == 'sequel':
      script = sample.sequel(script, copy.id)
    elif copy.edit == 'dub' and copy.other:
      script = by_id[copy.other]
    yield _row(script, knobs, copy=copy)


def write(path: str | os.PathLike, recipe: script_lib.Recipe) -> None:
  """Writes all rows as JSON lines."""
  with open(path, 'w', encoding='utf-8') as file:
    for row in rows(recipe):
      file.write(json.dumps(row) + '\n')


def read(corpus: str | os.PathLike) -> list[dict[str, Any]]:
  """Rows of a prepared corpus folder.

  Raises:
    FileNotFoundError: the folder holds no finished corpus.
  """
  path = pathlib.Path(corpus) / 'annotations.jsonl'
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} is absent: no finished shapes corpus there. Make it with '
      'python -m vidret_jax.tools.prepare --config configs/ce_shapes.py'
    )
  with path.open(encoding='utf-8') as file:
    return [json.loads(line) for line in file]
