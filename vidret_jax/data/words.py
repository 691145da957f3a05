# SPDX-License-Identifier: Apache-2.0
"""Word vectors that need no download: hashed character n-grams.

Each word is the normalised sum of the vectors of its character n-grams and
of the word itself, every one drawn from a hash (as fastText does with learned
vectors, arXiv 1607.04606). Any string has a vector, spelling variants are
close ("spin", "spins"), synonyms are not: a model has to learn those.
"""

from collections.abc import Iterable, Sequence
import functools
import hashlib
import re

import numpy as np

DIM = 64
_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def tokenize(sentence: str) -> list[str]:
  """Lower-case words and numbers; punctuation separates and is dropped."""
  return _TOKEN.findall(sentence.lower())


def _gaussian(key: str, dim: int) -> np.ndarray:
  """float32 [d] standard normal numbers that depend on `key` alone.

  Box-Muller on the bytes of a hash: the same on every machine and with every
  version of numpy's generators.
  """
  raw = hashlib.shake_128(key.encode()).digest(8 * dim)
  bits = np.frombuffer(raw, '<u4').astype(np.float64)
  uniform = (bits + 0.5) / 2.0**32
  radius = np.sqrt(-2 * np.log(uniform[:dim]))
  return (radius * np.cos(2 * np.pi * uniform[dim:])).astype(np.float32)


@functools.lru_cache(maxsize=65536)
def word_vector(word: str, dim: int = DIM) -> np.ndarray:
  """The unit vector of one word.

  Args:
    word: a lower-case token.
    dim: width d.

  Returns:
    float32 [d], read-only. Half of the energy belongs to the whole word, half
    to its n-grams of 3 to 5 characters (with word boundaries).
  """
  padded = f'<{word}>'
  grams = [
    padded[i : i + n] for n in (3, 4, 5) for i in range(len(padded) - n + 1)
  ]
  vector = _gaussian(f'word:{word}', dim)
  if grams:
    parts = sum(_gaussian(f'gram:{g}', dim) for g in grams)
    vector = vector + parts / np.sqrt(len(grams))
  vector = (vector / np.linalg.norm(vector)).astype(np.float32)
  vector.setflags(write=False)
  return vector


def embed_tokens(tokens: Sequence[str], dim: int = DIM) -> np.ndarray:
  """float32 [l, d], one unit vector per token; [0, d] for no tokens."""
  if not tokens:
    return np.zeros((0, dim), np.float32)
  return np.stack([word_vector(t, dim) for t in tokens])


def embed(sentence: str, dim: int = DIM) -> np.ndarray:
  """Token vectors of a free-form query or caption.

  Args:
    sentence: any text.
    dim: width d; records of `shapes` hold the default.

  Returns:
    float32 [l, d].

  Raises:
    ValueError: no word is left after dropping punctuation.
  """
  tokens = tokenize(sentence)
  if not tokens:
    raise ValueError(
      f'The sentence {sentence!r} has no word; write at least one word of '
      'latin letters or digits.'
    )
  return embed_tokens(tokens, dim)


def embed_all(
  sentences: Iterable[str], dim: int = DIM
) -> tuple[np.ndarray, np.ndarray]:
  """Token vectors of several sentences, one after another.

  Returns:
    (float32 [sum of lengths, d], int32 [sentences] lengths), the layout of
    `text` and `text_len` in the records.
  """
  parts = [embed(s, dim) for s in sentences]
  lengths = np.array([len(p) for p in parts], np.int32)
  if not parts:
    return np.zeros((0, dim), np.float32), lengths
  return np.concatenate(parts), lengths
