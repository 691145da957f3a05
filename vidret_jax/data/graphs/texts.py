# SPDX-License-Identifier: Apache-2.0
"""Distinct captions of a split as arrays of fixed size, made once."""

from collections.abc import Mapping
import json
from typing import Any

import numpy as np

from vidret_jax.data.graphs import records, tensors

WORDS = ('ids', 'vectors')
GRAPH_KEYS = ('verb_mask', 'noun_mask', 'roles', 'edge_mask')


class Texts:
  """Words and role graphs of the texts of a table.

  Making them takes about 25 us a text on one core (3 s for the 120,595 pairs
  of MSR-VTT) and, with the published sizes, 580 bytes of memory a text.

  Attributes:
    sizes: num_words, where words are ids.
    spec: see `data.source`.
  """

  def __init__(
    self,
    table: records.Table,
    *,
    max_words: int = 30,
    num_verbs: int = 4,
    num_nouns: int = 6,
    graphs: bool = True,
    vectors: tuple[Mapping[str, int], np.ndarray] | None = None,
    where: str = '',
  ):
    """Makes all arrays.

    Args:
      table: of the texts.
      max_words: words of a text at most, l.
      num_verbs: verb phrases at most, v.
      num_nouns: other phrases at most, p.
      graphs: whether role graphs are wanted.
      vectors: (word -> row, float32 [n, d]); a text then is the vectors of the
        words that are in it, the others dropped, as upstream's word2vec reader
        has it. None: a text is word ids, unknown words being id 2.
      where: records, for errors.

    Raises:
      ValueError: a size that is not positive; or no graphs in the records.
    """
    sizes = dict(max_words=max_words, num_verbs=num_verbs, num_nouns=num_nouns)
    for name, value in sizes.items():
      if value < 1:
        raise ValueError(f'{name}={value}: expected 1 or more.')
    if graphs and table.graphs is None:
      raise ValueError(
        f'{where}: graphs=True, but these records were made without role '
        'graphs. Put the graph file where the published one is, run prepare '
        'with --overwrite, or set graphs=False.'
      )
    count = len(table.texts)
    self.sizes = {} if vectors else {'num_words': table.num_words}
    self._vectors = None
    self._words = np.zeros((count, max_words), np.int32)
    self._mask = np.zeros((count, max_words), bool)
    if vectors is None:
      for i, text in enumerate(table.texts):
        self._words[i], self._mask[i] = tensors.sentence(
          text, table.vocabulary, max_words
        )
      self.spec = {'words': ((max_words,), np.dtype(np.int32))}
    else:
      rows, found = vectors
      # The last row, of zeros, is that of no word.
      self._vectors = np.concatenate([found, np.zeros_like(found[:1])])
      self._words[:] = len(found)
      for i, text in enumerate(table.texts):
        known = [rows[word] for word in text.split() if word in rows]
        known = known[:max_words]
        self._words[i, : len(known)] = known
        self._mask[i, : len(known)] = True
      shape = (max_words, found.shape[1])
      self.spec = {'word_vectors': (shape, np.dtype(np.float32))}
    self.spec['word_mask'] = ((max_words,), np.dtype(bool))
    self._graphs = _graphs(table.graphs, sizes) if graphs else {}
    for key, value in self._graphs.items():
      dtype = np.int32 if key == 'roles' else bool
      self.spec[key] = (value.shape[1:], np.dtype(dtype))

  def rows(self, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of texts, int64 [b]; a row of -1 is zeros."""
    absent, safe = texts < 0, np.maximum(texts, 0)
    words, mask = self._words[safe], self._mask[safe]
    mask[absent] = False
    if self._vectors is None:
      words[absent] = 0
      out = {'words': words, 'word_mask': mask}
    else:
      words[absent] = len(self._vectors) - 1
      out = {'word_vectors': self._vectors[words], 'word_mask': mask}
    for key, value in self._graphs.items():
      picked = value[safe].astype(self.spec[key][1], copy=False)
      picked[absent] = 0
      out[key] = picked
    return out


def _graphs(graphs, sizes) -> dict[str, Any]:
  """Graph tensors of all texts, roles as int8."""
  first = tensors.graph([{}, []], **sizes)
  out = {
    key: np.zeros(
      (len(graphs), *first[key].shape), np.int8 if key == 'roles' else bool
    )
    for key in GRAPH_KEYS
  }
  for i, graph in enumerate(graphs):
    for key, value in tensors.graph(json.loads(graph), **sizes).items():
      out[key][i] = value
  return out
