# SPDX-License-Identifier: Apache-2.0
"""Sentences of vocabulary ids, embedded and read by a recurrent network."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Numerics, symmetric_uniform
from vidret_jax.layers.recurrent import Recurrent

Array = jax.Array


class WordEncoder(nn.Module):
  """Word features in context; upstream `RNNEncoder` on `Embedding`.

  Attributes:
    num_words: size of the vocabulary.
    word_dim: width of a word's vector.
    features: width of the network's state, and of the result.
    rnn: 'gru' or 'lstm'.
    rnn_layers: how many.
    bidirectional: whether sentences are read backwards too.
    fix_words: vectors are not trained.
    dropout: of the vectors, and between layers.
    num: numerics.
  """

  num_words: int
  word_dim: int = 300
  features: int = 1024
  rnn: str = 'gru'
  rnn_layers: int = 1
  bidirectional: bool = True
  fix_words: bool = False
  dropout: float = 0.0
  num: Numerics = Numerics()

  def setup(self):
    self.embedding = self.param(
      'embedding',
      symmetric_uniform(self.word_dim),
      (self.num_words, self.word_dim),
      self.num.wide,
    )
    self.network = Recurrent(
      self.rnn,
      self.features,
      self.rnn_layers,
      self.bidirectional,
      self.dropout,
      self.num,
      name='rnn',
    )
    self.drop = nn.Dropout(self.dropout)

  def in_context(self, ids: Array, mask: Array, *, train: bool) -> Array:
    """Features of words, the mean of both directions.

    Args:
      ids: int32 [b, l].
      mask: bool [b, l], True for a leading run of words.
      train: drops out.

    Returns:
      [b, l, features], zero at padding.
    """
    table = self.embedding
    if self.fix_words:
      table = jax.lax.stop_gradient(table)
    x = self.drop(jnp.take(table, ids, axis=0), deterministic=not train)
    return self.network(x, mask, train=train).mean(2)
