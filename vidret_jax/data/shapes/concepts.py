# SPDX-License-Identifier: Apache-2.0
"""What a caption tells, as classes for relevance finer than the corpus' own.

Four captions in five share a verb or noun class of the corpus with any given
clip: whatever the ranking, it looks good. Here a noun is what is told of it
("red circle", "striped ground", "low hum"), and verbs are what the shapes do.
Then a third of all pairs has something in common, in most cases a little.
"""

from collections.abc import Mapping
import functools
from typing import Any

from vidret_jax.data.shapes import vocabulary as vocab

# Things, and what tells one from another, by word.
_KINDS = {
  'ground': vocab.TEXTURES,
  'sound': vocab.SOUNDS,
  'voice': vocab.TOPIC_WORDS,
  'word': {word: (word,) for word in vocab.OVERLAYS},
}


@functools.lru_cache(maxsize=1)
def names() -> tuple[tuple[str, str], ...]:
  """(thing, which one or '') of every noun class; positions are ids."""
  out = [(shape, c) for shape in vocab.SHAPES for c in ('', *vocab.COLOURS)]
  for thing, which in _KINDS.items():
    out += [(thing, one) for one in ('', *which)]
  return tuple(out)


def verbs(caption: Mapping[str, Any]) -> list[int]:
  """What shapes do in a caption of `annotations.jsonl`: ids of ACTIONS."""
  return [k for k in caption['verb_classes'] if k < len(vocab.ACTIONS)]


def nouns(caption: Mapping[str, Any]) -> list[int]:
  """What a caption of `annotations.jsonl` speaks of: positions in `names`."""
  things = {vocab.NOUN_CLASSES[k] for k in caption['noun_classes']}
  found = _shapes(caption['text'].split())
  padded = f' {caption["text"]} '
  for thing in sorted(things & set(_KINDS)):
    which = [
      one
      for one, wordings in _KINDS[thing].items()
      if any(f' {wording} ' in padded for wording in wordings)
    ]
    found += [(thing, one) for one in which or ['']]
  return [_ids()[name] for name in dict.fromkeys(found)]


@functools.lru_cache(maxsize=1)
def _ids() -> dict[tuple[str, str], int]:
  return {name: i for i, name in enumerate(names())}


@functools.lru_cache(maxsize=1)
def _words() -> tuple[dict[str, str], dict[str, str]]:
  """word -> shape, word -> colour."""
  shapes, colours = (
    {word: name for name, group in words.items() for word in group}
    for words in (vocab.SHAPES, vocab.COLOUR_WORDS)
  )
  return shapes, colours


def _shapes(words: list[str]) -> list[tuple[str, str]]:
  """Shapes, each with the colour that is told before it."""
  shapes, colours = _words()
  out, colour = [], ''
  for word in words:
    if word in colours:
      colour = colours[word]
    elif word in shapes:
      out.append((shapes[word], colour))
      colour = ''
  return out
