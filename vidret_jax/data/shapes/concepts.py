# SPDX-License-Identifier: Apache-2.0
"""What a caption speaks of, finer than its noun classes.

A noun class of the corpus says that there is a sound or a ground; here it says
which, and the colours are told apart: what the word sets of MSR-VTT are to its
captions.
"""

from collections.abc import Iterator

from vidret_jax.data.shapes import vocabulary as vocab

# Kind -> concept -> the words for it. A position in all of them is a class.
_KINDS = (
  vocab.SHAPES,
  vocab.COLOUR_WORDS,
  vocab.TEXTURES,
  vocab.TONE_WORDS,
  vocab.SOUNDS,
  vocab.TOPIC_WORDS,
  {word: (word,) for word in vocab.OVERLAYS},
)


def _phrases() -> Iterator[tuple[tuple[str, ...], int]]:
  """(words, class) of every wording."""
  number = 0
  for kind in _KINDS:
    for wordings in kind.values():
      for wording in wordings:
        yield tuple(wording.split()), number
      number += 1


_CLASS_OF = dict(_phrases())
_LONGEST = max(map(len, _CLASS_OF))


def classes(caption: str) -> list[int]:
  """Concepts of a caption, in order of mention.

  Args:
    caption: words separated by single spaces.
  """
  words, found, at = caption.split(), [], 0
  while at < len(words):
    for size in range(_LONGEST, 0, -1):
      number = _CLASS_OF.get(tuple(words[at : at + size]))
      if number is not None:
        found.append(number)
        at += size - 1
        break
    at += 1
  return found
