# SPDX-License-Identifier: Apache-2.0
"""CLIP's towers (arXiv 2103.00020) as encoders of frames and tokens."""

from collections.abc import Sequence
import os

import jax
import numpy as np

from vidret_jax.convert import clip as convert
from vidret_jax.convert import clip_file, clip_sizes
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.models import clip as clip_lib

_MULTIPLE = 16  # Batches are filled up to this, so that few are compiled.


class Towers:
  """An encoder as `data.clip_frames` and `data.clip_sentences` take it.

  Attributes:
    image_size: of a frame.
    width: of a row.
  """

  def __init__(
    self,
    weights: str | os.PathLike,
    tokenizer: str | os.PathLike | None = None,
  ):
    """Reads weights.

    Args:
      weights: file of OpenAI or Hugging Face, or a folder of the latter.
      tokenizer: bpe_simple_vocab_16e6.txt.gz, or a folder that has
        tokenizer.json; None where no sentences are encoded.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it holds something else.
    """
    state = clip_file.read(weights)
    self._sizes = clip_sizes.sizes(
      {k: v for k, v in state.items() if k not in convert.SCALARS},
      os.fspath(weights),
    )
    variables, _ = convert.load(weights, self._sizes)
    self._variables = {'params': variables['params']['clip']}
    self._tokenizer = (
      tokenizer_lib.load(tokenizer, self._sizes.vocab) if tokenizer else None
    )
    model = clip_lib.Clip(self._sizes)
    self._image = jax.jit(
      lambda v, x: model.apply(v, x[None], method='encode_image')[0, :, 0]
    )
    self._text = jax.jit(
      lambda v, x: model.apply(v, x, every=True, method='encode_text')
    )
    self.image_size = self._sizes.image_size
    self.width = self._sizes.dim

  def frames(self, pixels: np.ndarray) -> np.ndarray:
    """uint8 [n, r, r, 3] -> float32 [n, d], not normalised."""
    return self._run(self._image, pixels)

  def queries(self, texts: Sequence[str]) -> list[np.ndarray]:
    """float32 [tokens, d] of each sentence.

    The last row belongs to the end of text, where CLIP reads off a sentence;
    the start, which is the same for all, is left out.

    Raises:
      ValueError: a sentence without a token.
    """
    ids = self._tokenizer.rows(texts, self._sizes.context)
    ends = ids.argmax(1)
    for text, end in zip(texts, ends):
      if end < 2:
        raise ValueError(
          f'The sentence {text!r} has no token; write at least one word.'
        )
    states = self._run(self._text, ids)
    return [s[1 : end + 1] for s, end in zip(states, ends)]

  def sentences(self, texts: Sequence[str]) -> list[np.ndarray]:
    """The same of subtitles; a sentence without tokens has no rows."""
    found = [np.zeros((0, self.width), np.float32)] * len(texts)
    said = [i for i, text in enumerate(texts) if self._tokenizer.encode(text)]
    if said:
      for i, rows in zip(said, self.queries([texts[i] for i in said])):
        found[i] = rows
    return found

  def _run(self, function, rows):
    count = len(rows)
    spare = -count % _MULTIPLE
    rows = np.concatenate([rows, np.repeat(rows[-1:], spare, axis=0)])
    return np.asarray(function(self._variables, rows), np.float32)[:count]
