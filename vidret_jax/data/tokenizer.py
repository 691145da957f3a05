# SPDX-License-Identifier: Apache-2.0
"""CLIP's byte-pair tokenizer (`simple_tokenizer.py` of openai/CLIP).

Texts are cleaned and split here; merging is done by the `tokenizers` library,
whose result is the same as that of the original's loop. So is its splitting of
other text than ASCII, except for letters that only the latest versions of
Unicode have. The files it reads are in `vocabulary.py`.
"""

from collections.abc import Iterable, Sequence
import functools
import html
import itertools
import json
import os
import pathlib
import re
import threading

from absl import logging
import ftfy
import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from vidret_jax.data import vocabulary as vocabulary_lib

# The original matches without regard to case; in lower-cased text only the
# long s, which folds to s, is left to be said.
_LITERALS = r'<\|[sſ]tartoftext\|>|<\|endoftext\|>'
_PIECES = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
# The same for ASCII, which is nearly all there is and needs no tables.
_ASCII = re.compile(
  r'<\|startoftext\|>|<\|endoftext\|>'
  r"|'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+"
)
_SPACES = re.compile(r'\s+')
_CACHED = 1 << 17  # Pieces (words) whose ids are kept.


@functools.lru_cache(maxsize=65536)
def _repair(text: str) -> str:
  text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
  return _SPACES.sub(' ', text).strip().lower()


def clean(text: str) -> str:
  """Repairs encoding, unescapes HTML twice, collapses space, lower-cases.

  Args:
    text: any string.

  Returns:
    What upstream's `whitespace_clean(basic_clean(text)).lower()` returns.
  """
  # In printable ASCII there is nothing to repair and only & begins an entity.
  if text.isascii() and '&' not in text and text.isprintable():
    return _SPACES.sub(' ', text.strip()).lower()
  return _repair(text)


class Tokenizer:
  """Texts to ids and back. Safe to use from several threads.

  Attributes:
    vocab_size: number of ids.
    start: id of `<|startoftext|>`.
    end: id of `<|endoftext|>`, the largest id: the text tower finds the end of
      a row by that.
    truncated: number of texts that `row` and `rows` have cut so far.
  """

  def __init__(self, vocabulary: vocabulary_lib.Vocabulary):
    ids = vocabulary.ids
    self.vocab_size = len(ids)
    self.start = ids[vocabulary_lib.START]
    self.end = ids[vocabulary_lib.END]
    self.truncated = 0
    self._lock = threading.Lock()
    self._reported = False
    self._model = _model(ids, vocabulary.merges)
    self._splitter = _splitter(f'{_LITERALS}|{_PIECES}')
    self._ids_of = functools.lru_cache(_CACHED)(self._merge)
    self._symbol = vocabulary_lib.byte_symbols()
    byte_of = {c: b for b, c in self._symbol.items()}
    self._bytes = {
      i: bytes(byte_of[c] for c in token) for token, i in ids.items()
    }

  def encode(self, text: str) -> list[int]:
    """The ids of a text, without start and end."""
    text = clean(text)
    if text.isascii():
      pieces = _ASCII.findall(text)
    else:
      pieces = [p for p, _ in self._splitter.pre_tokenize_str(text)]
    return list(itertools.chain.from_iterable(map(self._ids_of, pieces)))

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids, with a space after every word.

    Raises:
      ValueError: an id is not in the vocabulary.
    """
    try:
      raw = b''.join(self._bytes[int(i)] for i in ids)
    except KeyError as e:
      raise ValueError(
        f'token id {e.args[0]} is not in this vocabulary of '
        f'{self.vocab_size}; was the text encoded with another tokenizer?'
      ) from None
    return raw.decode('utf-8', errors='replace').replace('</w>', ' ')

  def row(self, text: str, max_words: int) -> np.ndarray:
    """int32 [l] with l = max_words; see `rows`."""
    return self.rows([text], max_words)[0]

  def rows(self, texts: Sequence[str], max_words: int) -> np.ndarray:
    """Token rows of texts: start, tokens, end, then zeros.

    Args:
      texts: n strings.
      max_words: length l of a row, at least 2. Tokens that leave no place for
        the end token are cut, and the text is counted in `truncated`.

    Returns:
      int32 [n, l].

    Raises:
      ValueError: max_words is below 2.
    """
    if max_words < 2:
      raise ValueError(
        f'max_words is {max_words}: a row needs place for its start and end '
        'token; set it to 2 or more'
      )
    rows = np.zeros((len(texts), max_words), np.int32)
    cut = 0
    for row, text in zip(rows, texts):
      ids = self.encode(text)
      cut += len(ids) > max_words - 2
      ids = [self.start, *ids[: max_words - 2], self.end]
      row[: len(ids)] = ids
    with self._lock:
      self.truncated += cut
    return rows

  def report(self, name: str, total: int | None = None) -> None:
    """Logs once how many texts were cut; says nothing if none was.

    Args:
      name: what the texts belong to, for the log.
      total: how many texts there were.
    """
    with self._lock:
      if self._reported or not self.truncated:
        return
      self._reported = True
      count = self.truncated
    of = '' if total is None else f' of {total}'
    logging.warning(
      '%s: %d%s texts are longer than max_words and were cut', name, count, of
    )

  def _merge(self, piece: str) -> tuple[int, ...]:
    if piece == vocabulary_lib.START:
      return (self.start,)
    if piece == vocabulary_lib.END:
      return (self.end,)
    symbols = ''.join(self._symbol[b] for b in piece.encode())
    return tuple(t.id for t in self._model.tokenize(symbols))


def _splitter(pattern):
  return pre_tokenizers.Split(
    tokenizers.Regex(pattern), behavior='removed', invert=True
  )


def _model(ids=None, merges=None):
  return models.BPE(vocab=ids, merges=merges, end_of_word_suffix='</w>')


def _pipeline(model):
  """The library's tokenizer, for learning and as a file: split, merge."""
  inner = tokenizers.Tokenizer(model)
  inner.pre_tokenizer = pre_tokenizers.Sequence(
    [
      _splitter(_PIECES),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  return inner


def load(
  path: str | os.PathLike[str], vocab_size: int | None = None
) -> Tokenizer:
  """Reads a tokenizer.

  Args:
    path: `bpe_simple_vocab_16e6.txt.gz` (or .txt), a `tokenizer.json`, a
      `merges.txt` or `vocab.json` with the other beside it, or a folder that
      holds one of these.
    vocab_size: number of ids that the model has; None: not checked, except
      that the published merges must be complete.

  Returns:
    A new tokenizer.

  Raises:
    ValueError: the file is missing, damaged, or of another vocabulary.
  """
  return Tokenizer(vocabulary_lib.read(pathlib.Path(path), vocab_size))


def train(
  texts: Iterable[str], path: str | os.PathLike[str], vocab_size: int
) -> Tokenizer:
  """Learns a vocabulary of CLIP's kind and writes it.

  Cleaning, splitting, byte symbols and word ends are CLIP's, and so is the
  order of the ids: byte symbols, the same at the end of a word, merges, start,
  end. The same texts give the same file.

  Args:
    texts: what to learn from.
    path: the `tokenizer.json` to write.
    vocab_size: number of ids at most, at least 514; fewer where the texts hold
      no further pair of symbols that occurs twice.

  Returns:
    The tokenizer.

  Raises:
    ValueError: vocab_size is below 514.
  """
  symbols = vocabulary_lib.symbols()
  if vocab_size < len(symbols) + 2:
    raise ValueError(
      f'vocab_size is {vocab_size}: the byte symbols, start and end are '
      f'{len(symbols) + 2} already; ask for at least as many'
    )
  learner = _pipeline(_model())
  # As special tokens the symbols keep their order, by which ties are broken.
  learner.train_from_iterator(
    (clean(t) for t in texts),
    trainers.BpeTrainer(
      vocab_size=vocab_size - 2,
      min_frequency=2,
      special_tokens=symbols,
      end_of_word_suffix='</w>',
      show_progress=False,
    ),
  )
  learnt = json.loads(learner.to_str())['model']['merges']
  vocabulary = vocabulary_lib.from_merges([tuple(m) for m in learnt])
  model = _model(vocabulary.ids, vocabulary.merges)
  _pipeline(model).save(os.fspath(path))
  return Tokenizer(vocabulary)
