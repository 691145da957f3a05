# SPDX-License-Identifier: Apache-2.0
"""Token features of sentences: hashed words, or a Hugging Face model.

An encoder has `width`, `queries(texts)` and `sentences(texts)`. The first
encodes sentences one by one, the second those of one video in their context.
"""

from collections.abc import Sequence
import importlib
import os
import pathlib

import numpy as np

from vidret_jax.data import words

TOKENS = 30  # Of a query, with the two special ones (TVR, arXiv 2001.09099).
_CHUNK = 254  # Of subtitles that are encoded together, without them.


class Words:
  """Hashed n-gram vectors, the encoder of the corpus `shapes`.

  Needs no download and knows no synonyms: for first steps and tests.

  Attributes:
    width: of a token.
  """

  def __init__(self, width: int = words.DIM):
    if width < 1:
      raise ValueError(f'--dim {width}: expected a width of at least 1.')
    self.width = width

  def queries(self, texts: Sequence[str]) -> list[np.ndarray]:
    """float32 [tokens, width] of each sentence.

    Raises:
      ValueError: a sentence without a word.
    """
    return [words.embed(text, self.width) for text in texts]

  def sentences(self, texts: Sequence[str]) -> list[np.ndarray]:
    """The same, but sentences may have no word."""
    return [words.embed_tokens(words.tokenize(t), self.width) for t in texts]


class Transformer:
  """Hidden states of a language model in a folder, RoBERTa for example.

  Features are those of the layer before the last, without special tokens
  (TVR, arXiv 2001.09099; `lm_finetuning_on_single_sentences.py`).

  Attributes:
    width: of a token.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    *,
    max_tokens: int = TOKENS,
    device: str = 'cpu',
  ):
    """Loads the model.

    Args:
      folder: what `save_pretrained` writes, tokenizer included.
      max_tokens: of a query, special ones included; the rest is cut off.
      device: PyTorch's name of it.

    Raises:
      ValueError: Transformers is not installed, the folder is none, or the
        limit is too small.
    """
    folder = pathlib.Path(folder)
    if not (folder / 'config.json').is_file():
      raise ValueError(
        f'--model {folder}: no config.json there; expected the folder of a '
        'Hugging Face model. Download one, it is not fetched from here.'
      )
    if max_tokens < 1:
      raise ValueError(f'--max-tokens {max_tokens}: expected at least 1.')
    try:
      library = importlib.import_module('transformers')
      self._torch = importlib.import_module('torch')
    except ImportError as error:
      raise ValueError(
        f'a language model needs PyTorch and Transformers ({error}); pip '
        'install torch transformers, or encode with `words`.'
      ) from None
    options = dict(local_files_only=True, trust_remote_code=False)
    try:
      self._tokenizer = library.AutoTokenizer.from_pretrained(folder, **options)
      model = library.AutoModel.from_pretrained(folder, **options)
      self._model = model.eval().to(device)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
      raise ValueError(
        f'--model {folder}: cannot be loaded ({str(error)[:300]}).'
      ) from None
    self._device = device
    self._max_tokens = max_tokens
    self.width = int(model.config.hidden_size)
    self._pad = self._tokenizer.pad_token_id or 0
    # What it puts before and after a text.
    full, bare = self._tokenizer.encode('a'), self._ids('a')
    start = next(
      (
        i
        for i in range(len(full))
        if full[i : i + len(bare)] == bare and len(bare)
      ),
      0,
    )
    self._before = full[:start]
    self._after = full[start + len(bare) :]

  def queries(self, texts: Sequence[str]) -> list[np.ndarray]:
    """float32 [tokens, width] of each sentence, cut at `max_tokens`.

    Raises:
      ValueError: a sentence without a token.
    """
    special = len(self._before) + len(self._after)
    room = max(1, self._max_tokens - special)
    ids = [self._ids(text)[:room] for text in texts]
    for text, found in zip(texts, ids):
      if not found:
        raise ValueError(
          f'The sentence {text!r} has no token; write at least one word.'
        )
    return self._states(ids)

  def sentences(self, texts: Sequence[str]) -> list[np.ndarray]:
    """float32 [tokens, width] of each sentence, encoded together.

    Sentences are packed into chunks that the model reads as one text; the
    original loses some sentences at the end of a video, this does not.
    """
    ids = [self._ids(text) for text in texts]
    chunks = pack(ids, _CHUNK)
    states = [row for one in chunks for row in self._states([one])[0]]
    found, start = [], 0
    for sentence in ids:
      rows = states[start : start + len(sentence)]
      found.append(np.array(rows, np.float32).reshape(-1, self.width))
      start += len(sentence)
    return found

  def _ids(self, text):
    return self._tokenizer.encode(text, add_special_tokens=False, verbose=False)

  def _states(self, ids):
    rows = [self._before + one + self._after for one in ids]
    skip = len(self._before)
    longest = max(map(len, rows))
    tensor = self._torch.tensor
    batch = tensor([r + [self._pad] * (longest - len(r)) for r in rows])
    mask = tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
    with self._torch.no_grad():
      out = self._model(
        input_ids=batch.to(self._device),
        attention_mask=mask.to(self._device),
        output_hidden_states=True,
      )
    states = out.hidden_states[-2].float().cpu().numpy()
    return [s[skip : skip + len(one)] for s, one in zip(states, ids)]


def pack(sentences: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
  """Joins sentences to chunks of at most `limit` tokens.

  A chunk ends with a sentence; only one that is longer than the limit is cut.
  """
  chunks = [[]]
  for sentence in sentences:
    for start in range(0, len(sentence), limit):
      piece = sentence[start : start + limit]
      if len(chunks[-1]) + len(piece) > limit:
        chunks.append([])
      chunks[-1].extend(piece)
  return [chunk for chunk in chunks if chunk]
