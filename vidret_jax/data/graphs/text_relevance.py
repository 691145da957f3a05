# SPDX-License-Identifier: Apache-2.0
"""What a caption is about, read from its text alone.

The sets of words of Wray et al. (CVPR 2021, SSVR), between which
`relevance.iou` and `relevance.matrix` measure:

  BoW  iou(word_sets(...), word_sets(...))
  PoS  matrix(verbs, nouns, verbs, nouns) of tagged_sets(...)
  SYN  the same of class_sets(tagged_sets(...), table)

Synsets come from a table of words: the original's other way, Lesk's algorithm
on WordNet, needs a corpus that is not a package. METEOR, its fourth relevance,
is not made here.
"""

from collections.abc import Iterable, MutableMapping, Sequence, Set


def word_sets(captions: Iterable[str], stop_words: Set[str]) -> list[list[str]]:
  """Words that are not stop words; words are what single spaces separate."""
  return [[w for w in c.split(' ') if w not in stop_words] for c in captions]


def tagged_sets(
  words: Iterable[Sequence[str]], tags: Iterable[Sequence[str]], tag: str
) -> list[list[str]]:
  """Words with a part of speech.

  Args:
    words: of each caption; lemmas for SYN.
    tags: coarse tags, as many.
    tag: 'VERB' or 'NOUN'.
  """
  return [
    [w for w, t in zip(row, row_tags, strict=True) if t == tag]
    for row, row_tags in zip(words, tags, strict=True)
  ]


def class_sets(
  words: Iterable[Iterable[str]], table: MutableMapping[str, int]
) -> list[list[int]]:
  """Classes of words.

  Args:
    words: of each caption.
    table: word -> class. A word that it lacks gets the number of words in it
      as its class, and is added.
  """
  return [[table.setdefault(w, len(table)) for w in row] for row in words]
