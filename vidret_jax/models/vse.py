# SPDX-License-Identifier: Apache-2.0
"""One vector per caption and video: the baseline of HGR and RANP.

In the manner of VSE++ (Faghri et al., BMVC 2018,
https://arxiv.org/abs/1707.05612); upstream `global_match.py`.
"""

import flax.linen as nn

from vidret_jax.layers.linear import Linear, Numerics
from vidret_jax.layers.words import WordEncoder
from vidret_jax.models import mined
from vidret_jax.models.base import Array, Batch, Emb
from vidret_jax.ops import masks, phrases, similarity


class GlobalText(WordEncoder):
  """The mean of a caption's words in context: [b, features]."""

  def __call__(self, batch: Batch, *, train: bool) -> Array:
    mask = batch['word_mask']
    words = self.in_context(batch['words'], mask, train=train)
    return masks.masked_mean(words, mask[..., None], 1)


class GlobalVideo(nn.Module):
  """An affine map of the mean of a clip's features: [b, features].

  Attributes:
    features: width of the embedding.
    dropout: of the embedding.
    num: numerics.
  """

  features: int
  dropout: float = 0.0
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array, mask: Array, *, train: bool) -> Array:
    mean = masks.masked_mean(x, mask[..., None], 1)
    y = Linear(x.shape[-1], self.features, num=self.num, name='map')(mean)
    return nn.Dropout(self.dropout, deterministic=not train)(y)


class Vse(mined.Mined):
  """The global baseline; `models.ranp.make` documents the options.

  Embeddings: `embed`, a unit vector per caption or video.
  """

  num_words: int = 0
  dim: int = 1024
  word_dim: int = 300
  rnn: str = 'gru'
  rnn_layers: int = 1
  bidirectional: bool = True
  fix_words: bool = False
  word_dropout: float = 0.2
  video_dropout: float = 0.2
  num: Numerics = Numerics()

  def setup(self):
    self.video = GlobalVideo(self.dim, self.video_dropout, self.num)
    self.text = GlobalText(
      self.num_words,
      self.word_dim,
      self.dim,
      self.rnn,
      self.rnn_layers,
      self.bidirectional,
      self.fix_words,
      self.word_dropout,
      self.num,
    )

  def encode_query(self, batch: Batch, *, train: bool = False) -> Emb:
    """Embeds captions from `words` and `word_mask`."""
    text = self.text(batch, train=train).astype(self.num.wide)
    return dict(embed=phrases.unit(text))

  def encode_item(self, batch: Batch, *, train: bool = False) -> Emb:
    """Embeds videos from `features` and `feature_mask`."""
    video = self.video(batch['features'], batch['feature_mask'], train=train)
    return dict(embed=phrases.unit(video.astype(self.num.wide)))

  def score(self, q: Emb, v: Emb) -> Array:
    """Cosines, [q, v]."""
    return similarity.dot_all(
      q['embed'],
      v['embed'],
      dtype=self.num.dtype,
      precision=self.num.precision,
    )
