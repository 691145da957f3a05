# SPDX-License-Identifier: Apache-2.0
"""Tables of words: the vocabulary, classes of verbs and nouns, word vectors."""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
import os
import re

import numpy as np

from vidret_jax.data.graphs import annotate

BEGIN, END, UNKNOWN = '<BOS>', '<EOS>', '<UNK>'  # Ids 0, 1 and 2.
_MAX_LINE = 1 << 20
_SEED = 0x7670
_HEADER = re.compile(rb'\d+ \d+')  # Of word2vec: words, width.


def vocabulary(
  captions: Iterable[str], min_count: int = 1
) -> tuple[dict[str, int], np.ndarray]:
  """Ids of the words of captions, in alphabetical order.

  Args:
    captions: words are what whitespace separates.
    min_count: rarer words are left out, and so become unknown.

  Returns:
    {word: id} and the words [num_words] by id.
  """
  count = collections.Counter(w for c in captions for w in c.split())
  special = (BEGIN, END, UNKNOWN)
  kept = sorted(
    w for w, n in count.items() if n >= min_count and w not in special
  )
  words = [*special, *kept]
  return {w: i for i, w in enumerate(words)}, np.array(words, str)


def verbs(parse: annotate.Parse) -> list[str]:
  """Lemmas of the verbs of a caption that are no auxiliaries."""
  return [
    lemma.lower()
    for lemma, tag, pos, dep in zip(
      parse.lemmas, parse.tags, parse.pos, parse.deps, strict=True
    )
    if (pos == 'VERB' or tag.startswith('VB'))
    and pos != 'AUX'
    and not dep.startswith('aux')
  ]


def nouns(parse: annotate.Parse) -> list[str]:
  """Lemmas of the nouns and names of a caption."""
  return [
    lemma.lower()
    for lemma, tag in zip(parse.lemmas, parse.tags, strict=True)
    if tag.startswith('NN')
  ]


def class_table(
  lemmas: Iterable[Iterable[str]], min_count: int = 1
) -> dict[str, int]:
  """Classes of lemmas: the most frequent is 0, equals go by the alphabet.

  Args:
    lemmas: of each caption.
    min_count: rarer ones have no class.
  """
  count = collections.Counter(w for row in lemmas for w in row)
  kept = sorted((-n, w) for w, n in count.items() if n >= min_count)
  return {w: i for i, (_, w) in enumerate(kept)}


def classes(lemmas: Iterable[str], table: Mapping[str, int]) -> list[int]:
  """Classes of the lemmas of a caption, repetitions kept, without others."""
  return [table[w] for w in lemmas if w in table]


def word_vectors(
  path: str | os.PathLike,
  words: Sequence[str],
  *,
  seed: int = 0,
  report: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, list[str]]:
  """Vectors of a vocabulary from a text file such as GloVe's.

  A line is a word and its numbers. The first line may be word2vec's, with the
  number of words and their width. If a word occurs twice, the first counts.

  Args:
    path: the file; read once, line by line.
    words: by id.
    seed: of the vectors of the other words, drawn from U(+-1/sqrt(width)) as
      the model does it.
    report: called with the bytes of each line.

  Returns:
    float32 [num_words, width], and the words that the file lacks.

  Raises:
    ValueError: a line of another width, or a number that is none; names the
      line.
  """
  ids = {w.encode(): i for i, w in enumerate(words)}
  found: dict[int, np.ndarray] = {}
  width = None
  with open(path, 'rb') as file:
    number = 0
    while line := file.readline(_MAX_LINE):
      number += 1
      if report:
        report(len(line))
      line = line.rstrip()
      spaces = line.count(b' ')
      if number == 1 and _HEADER.fullmatch(line):
        continue
      width = spaces if width is None else width
      if spaces < width or width < 2:
        raise ValueError(
          f'{path}:{number}: {spaces} numbers, expected {max(2, width)}; a '
          'text file of word vectors has a word and its numbers on each line'
        )
      # Some words of GloVe 840B contain spaces.
      whole = spaces == width
      word = line[: line.find(b' ')] if whole else line.rsplit(b' ', width)[0]
      i = ids.get(word)
      if i is not None and i not in found:
        found[i] = _numbers(path, number, line.rsplit(b' ', width)[1:])
  if width is None:
    raise ValueError(f'{path}: empty, expected word vectors')
  bound = 1 / np.sqrt(width)
  rng = np.random.default_rng((_SEED, seed))
  table = rng.uniform(-bound, bound, (len(words), width)).astype(np.float32)
  for i, vector in found.items():
    table[i] = vector
  return table, [w for i, w in enumerate(words) if i not in found]


def _numbers(path, number, cells):
  try:
    vector = np.array([float(c) for c in cells], np.float32)
  except ValueError as error:
    raise ValueError(f'{path}:{number}: {error}') from None
  if not np.isfinite(vector).all():
    raise ValueError(f'{path}:{number}: a number that is not finite')
  return vector
