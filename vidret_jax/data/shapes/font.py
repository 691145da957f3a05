# SPDX-License-Identifier: Apache-2.0
"""A 5x7 pixel alphabet, so that overlaid words are the same on any machine."""

import numpy as np

ROWS, COLUMNS, SCALE = 7, 5, 2
# Seven rows of five bits for each letter, top row first.
_BITS = {
  'a': '0e11111f111111', 'b': '1e11111e11111e', 'c': '0e11101010110e',
  'd': '1e11111111111e', 'e': '1f10101e10101f', 'f': '1f10101e101010',
  'g': '0e11101713110f', 'h': '1111111f111111', 'i': '0e04040404040e',
  'j': '0702020202120c', 'k': '11121418141211', 'l': '1010101010101f',
  'm': '111b1515111111', 'n': '11191513111111', 'o': '0e11111111110e',
  'p': '1e11111e101010', 'q': '0e11111115120d', 'r': '1e11111e141211',
  's': '0f10100e01011e', 't': '1f040404040404', 'u': '1111111111110e',
  'v': '11111111110a04', 'w': '1111111515150a', 'x': '11110a040a1111',
  'y': '11110a04040404', 'z': '1f01020408101f',
}  # fmt: skip


def _glyph(code: str) -> np.ndarray:
  rows = bytes.fromhex(code)
  return np.array([[r >> (4 - c) & 1 for c in range(COLUMNS)] for r in rows])


GLYPHS = {k: _glyph(v).astype(np.float32) for k, v in _BITS.items()}


def draw(word: str) -> np.ndarray:
  """float32 [14, 12 n - 2], 1 where a letter of `word` (a-z) has ink."""
  gap = np.zeros((ROWS, 1), np.float32)
  parts = [p for letter in word for p in (GLYPHS[letter], gap)][:-1]
  ink = np.concatenate(parts, axis=1)
  return ink.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
