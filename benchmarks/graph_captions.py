# SPDX-License-Identifier: Apache-2.0
"""Clips and role graphs of published sizes, drawn: see `collection`."""

import numpy as np

from benchmarks import collection

WORDS = 20  # Of a sentence: what the original was timed with.


class Graphs(collection.Drawn):
  """Rows whose sentences and graphs are as long as published ones.

  20 words, and on average 1.68 verbs and 3.35 other phrases, the means that
  HGR reports of its role files.
  """

  def gather(self, index, seeds):
    batch = super().gather(index, seeds)
    return shorten(batch, np.maximum(index, 0))


class Captions(collection.Captions, Graphs):
  """Queries, `per_video` for each item in order."""


def shorten(batch, rows):
  """Cuts masks of full batches down; `rows` are numbers of the rows."""
  out = dict(batch)
  words = out['word_mask'].shape[1]
  out['word_mask'] = np.repeat(
    np.arange(words)[None] < WORDS, len(rows), axis=0
  )
  if 'verb_mask' not in out:
    return out
  verbs = 1 + (rows * 37 % 100 < 68)
  nouns = 3 + (rows * 53 % 100 < 35)
  place = np.arange(words)
  for name, count, span in (('verb', verbs, 1), ('noun', nouns, 3)):
    slots = np.arange(out[f'{name}_mask'].shape[1])
    first = 3 * slots[:, None] % WORDS
    inside = (place >= first) & (place < first + span)
    filled = slots < count[:, None]
    out[f'{name}_mask'] = inside & filled[..., None]
  total = out['verb_mask'].shape[1]
  edges = np.zeros_like(out['edge_mask'])
  for row, (v, n) in zip(edges, zip(verbs, nouns)):
    row[1 : 1 + v, 0] = True
    others = slice(1 + total, 1 + total + n)
    row[1, others] = row[others, 1] = True
  out['edge_mask'] = edges
  out['roles'] = out['roles'] % 16
  return out
