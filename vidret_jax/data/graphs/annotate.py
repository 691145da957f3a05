# SPDX-License-Identifier: Apache-2.0
"""Parses of captions by a spaCy pipeline.

Words are what whitespace separates, as everywhere in the captions' files: the
pipeline's own tokenizer is not used, so role graphs point at the right words.
spaCy is an extra (`pip install 'vidret_jax[annotate]'`); any pipeline with a
tagger and a parser will do.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import sys
from typing import Any


@dataclasses.dataclass(frozen=True)
class Parse:
  """What a pipeline says about a caption of l words.

  Attributes:
    words: the caption's.
    tags: fine (Penn Treebank) parts of speech.
    pos: coarse ones (VERB, AUX, NOUN, PROPN, ...).
    lemmas: of the words.
    deps: dependency of each word on its head.
    heads: index of each word's head; a root is its own.
    chunks: [first, after last) of each noun phrase.
  """

  words: list[str]
  tags: list[str]
  pos: list[str]
  lemmas: list[str]
  deps: list[str]
  heads: list[int]
  chunks: list[list[int]]

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


def from_json(caption: str, value: Any) -> Parse:
  """Reads what `to_json` wrote, or only a list of fine tags.

  Of a list of tags nothing but the tags is known: lemmas are then the words
  in lower case, and there are neither dependencies nor noun phrases.

  Raises:
    ValueError: something else, or not one entry per word.
  """
  words = caption.split()
  if isinstance(value, list):
    value = {'tags': value}
  if not isinstance(value, dict) or not isinstance(value.get('tags'), list):
    raise ValueError(
      f'caption {caption[:60]!r}: expected fine tags, or an object with tags'
    )
  n = len(words)
  tags = value['tags']
  fields = {
    'words': words,
    'tags': tags,
    'pos': value.get('pos') or [coarse(str(t)) for t in tags],
    'lemmas': value.get('lemmas') or [w.lower() for w in words],
    'deps': value.get('deps') or [''] * n,
    'heads': value.get('heads') or list(range(n)),
  }
  for key, found in fields.items():
    kind = int if key == 'heads' else str
    if not isinstance(found, list) or len(found) != n:
      size = len(found) if isinstance(found, list) else type(found).__name__
      raise ValueError(
        f'caption {caption[:60]!r}: {key} of length {size}, expected {n}, one '
        'per word'
      )
    if not all(type(x) is kind for x in found):
      raise ValueError(f'caption {caption[:60]!r}: {key} are not {kind}')
  if not all(0 <= i < n for i in fields['heads']):
    raise ValueError(f'caption {caption[:60]!r}: a head outside of it')
  chunks = value.get('chunks') or []
  for chunk in chunks:
    if not (
      isinstance(chunk, list)
      and [type(x) for x in chunk] == [int, int]
      and 0 <= chunk[0] < chunk[1] <= n
    ):
      raise ValueError(
        f'caption {caption[:60]!r}: noun phrase {chunk!r}, expected [first, '
        f'after last] within {n} words'
      )
  heads = fields.pop('heads')
  fields = {key: _once(found) for key, found in fields.items()}
  return Parse(**fields, heads=heads, chunks=chunks)


def coarse(tag: str) -> str:
  """Coarse part of speech of a fine one, as far as it matters here."""
  starts = {'VB': 'VERB', 'NNP': 'PROPN', 'NN': 'NOUN', 'PRP': 'PRON'}
  return next((p for start, p in starts.items() if tag.startswith(start)), 'X')


def load(model: str) -> Any:
  """A spaCy pipeline by the name of its package or by its folder.

  Raises:
    ValueError: spaCy or the pipeline is not there, or it lacks a component.
  """
  try:
    import spacy
  except ImportError:
    raise ValueError(
      f"--spacy {model} needs spaCy: pip install 'vidret_jax[annotate]', or "
      'give roles and parses as files (--srl, --parses)'
    ) from None
  try:
    nlp = spacy.load(model, exclude=['ner'])
  except (OSError, ImportError, ValueError) as error:
    raise ValueError(
      f'{model}: no spaCy pipeline ({str(error).splitlines()[0][:120]}); give '
      'the folder of one, or install one, for English: python -m spacy '
      'download en_core_web_sm'
    ) from None
  absent = {'tagger', 'parser'} - set(nlp.pipe_names)
  if absent:
    raise ValueError(
      f'{model}: a pipeline of {nlp.pipe_names} without {sorted(absent)}; '
      'expected one that tags and parses'
    )
  return nlp


def parse(
  nlp: Any,
  captions: Iterable[str],
  report: Callable[[int], Any] | None = None,
) -> Iterator[tuple[str, Parse]]:
  """Parses captions, in order.

  Args:
    nlp: of `load`.
    captions: with at least one word each.
    report: called with 1 for every caption.
  """
  from spacy import tokens

  pairs = ((tokens.Doc(nlp.vocab, words=c.split()), c) for c in captions)
  for doc, caption in nlp.pipe(pairs, as_tuples=True, batch_size=256):
    yield caption, _read(doc)
    if report:
      report(1)


def stop_words() -> frozenset[str]:
  """spaCy's English stop words."""
  from spacy.lang.en import stop_words as english

  return frozenset(english.STOP_WORDS)


def _read(doc):
  if not doc.has_annotation('POS'):  # Which noun phrases are found by.
    for t in doc:
      t.pos_ = coarse(t.tag_)
  try:
    chunks = [[c.start, c.end] for c in doc.noun_chunks]
  except NotImplementedError:  # Not defined for the pipeline's language.
    chunks = []
  return Parse(
    words=_once(t.text for t in doc),
    tags=_once(t.tag_ for t in doc),
    pos=_once(t.pos_ for t in doc),
    lemmas=_once(t.lemma_ or t.lower_ for t in doc),
    deps=_once(t.dep_ for t in doc),
    heads=[t.head.i for t in doc],
    chunks=chunks,
  )


def _once(strings):
  """A list whose equal strings are one object: there are millions."""
  return [sys.intern(s) for s in strings]
