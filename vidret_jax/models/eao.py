# SPDX-License-Identifier: Apache-2.0
"""Everything at Once, text and video: one transformer for both.

Shvetsova et al., CVPR 2022, https://arxiv.org/abs/2112.04446, as RANP trains
it: words and clip features become tokens of one width, the same blocks read
either kind alone, and the mean of the tokens is projected and compared.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Linear, Numerics, symmetric_uniform
from vidret_jax.layers.transformer import LayerNorm, Style, blocks
from vidret_jax.models import mined
from vidret_jax.models.base import Array, Batch, Emb
from vidret_jax.ops import masks, similarity

PROJECTIONS = ('gated', 'minimal', '')
_EPS = 1e-6  # Of the norms.
_STD = 0.02  # Of the transformer's initial weights, tokens and positions.


class GatedMap(nn.Module):
  """y * sigmoid(gate(y)) with y = fc(x); upstream `GatedEmbeddingUnit`."""

  features: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    y = Linear(x.shape[-1], self.features, num=self.num, name='fc')(x)
    gate = Linear(self.features, self.features, num=self.num, name='gate')(y)
    return y * nn.sigmoid(gate)


def projection(kind: str, features: int, num: Numerics, name: str):
  """The map called 'gated' or 'minimal' (affine); '' is the identity."""
  if kind == 'gated':
    return GatedMap(features, num, name=name)
  if kind == 'minimal':
    return Affine(features, num, name=name)
  return lambda x: x


class Affine(nn.Module):
  """`Linear` that takes its input's width as it comes."""

  features: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width, wide = x.shape[-1], self.num.wide
    init = symmetric_uniform(width)
    kernel = self.param('kernel', init, (width, self.features), wide)
    bias = self.param('bias', init, (self.features,), wide)
    return self.num.dot(x, kernel) + bias.astype(self.num.dtype)


class Tokens(nn.Module):
  """Clip features, word vectors or word ids as tokens: [b, n, dim].

  Attributes:
    dim: width of a token.
    kind: see `projection`.
    num_words: size of the table of ids; 0: inputs are vectors.
    word_dim: width of the table.
    fix_words: the table is not trained.
    num: numerics.
  """

  dim: int
  kind: str
  num_words: int = 0
  word_dim: int = 300
  fix_words: bool = True
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array, mask: Array) -> Array:
    if self.num_words:
      table = self.param(
        'embedding',
        symmetric_uniform(self.word_dim),
        (self.num_words, self.word_dim),
        self.num.wide,
      )
      x = jnp.take(table, x, axis=0)
      x = jax.lax.stop_gradient(x) if self.fix_words else x
    x = masks.zero_rows(x, mask)
    x = projection(self.kind, self.dim, self.num, 'token')(x)
    x = LayerNorm(_EPS, self.num, name='norm')(x)
    return jnp.where(mask[..., None], x, 0)


class Fusion(nn.Module):
  """The blocks that both kinds of tokens pass, each kind alone.

  Attributes:
    dim: width of a token.
    heads: of the attention.
    depth: blocks.
    ratio: inner width of a block, in widths of a token.
    cls_token: a learnt token stands for the rest, in place of their mean.
    num: numerics.
  """

  dim: int
  heads: int
  depth: int
  ratio: float
  cls_token: bool = False
  num: Numerics = Numerics()

  def setup(self):
    draw = nn.initializers.normal(_STD)
    self.masking_token = self.param(
      'masking_token', draw, (self.dim,), self.num.wide
    )
    if self.cls_token:
      self.first = self.param('cls_token', draw, (self.dim,), self.num.wide)
    style = Style(heads=self.heads, ratio=self.ratio, gelu='exact', std=_STD)
    self.block = blocks(self.depth, eps=_EPS, num=self.num, style=style)
    self.norm = LayerNorm(_EPS, self.num)

  def fill(self, x: Array, mask: Array) -> tuple[Array, Array]:
    """Gives sequences without any token the masking token."""
    empty = ~mask.any(1)
    here = empty[:, None] & (jnp.arange(mask.shape[1]) == 0)
    x = jnp.where(here[..., None], self.masking_token.astype(x.dtype), x)
    return x, mask | here

  def __call__(self, x: Array, mask: Array) -> tuple[Array, Array]:
    """Reads tokens.

    Args:
      x: [b, n, dim].
      mask: bool [b, n], at least one True in every row: see `fill`.

    Returns:
      ([b, n, dim] tokens, [b, dim] what stands for all of them).
    """
    if self.cls_token:
      first = jnp.broadcast_to(
        self.first.astype(x.dtype), (len(x), 1, self.dim)
      )
      x = jnp.concatenate([first, x], 1)
      mask = jnp.concatenate([jnp.ones((len(x), 1), bool), mask], 1)
    bias = jnp.where(mask, 0.0, -jnp.inf)[:, None, None]
    for block in self.block:
      x = block(x, bias)
    # Upstream has this norm and never applies it: checkpoints hold it.
    self.norm(x[:, :1])
    if self.cls_token:
      return x[:, 1:], x[:, 0]
    return x, masks.masked_mean(x, mask[..., None], 1)


class Eao(mined.Mined):
  """EAO; `models.ranp.make` documents the options.

  Embeddings: `embed`, a unit vector per caption or video.
  """

  num_words: int = 0
  dim: int = 4096
  word_dim: int = 300
  heads: int = 64
  depth: int = 1
  mlp_ratio: float = 1.0
  projection_dim: int = 6144
  token_projection: str = 'gated'
  projection: str = 'gated'
  individual: bool = True
  positions: bool = False
  cls_token: bool = False
  words: str = 'vectors'
  fix_words: bool = True
  max_frames: int = 20
  max_words: int = 30
  num: Numerics = Numerics()

  def setup(self):
    kind, num = self.token_projection, self.num
    ids = self.num_words if self.words == 'ids' else 0
    self.video = Tokens(self.dim, kind, num=num)
    self.text = Tokens(self.dim, kind, ids, self.word_dim, self.fix_words, num)
    self.fusion = Fusion(
      self.dim, self.heads, self.depth, self.mlp_ratio, self.cls_token, num
    )
    if self.positions:
      self.place = Positions(
        self.dim, self.max_frames, self.max_words, num, name='positions'
      )
    self.project = Projections(
      self.projection_dim,
      self.projection,
      self.individual,
      num,
      name='projection',
    )

  def tokens(self, batch: Batch, kind: str) -> tuple[Array, Array]:
    """Tokens of one kind, 'video' or 'text', and which of them are real."""
    if kind == 'video':
      x, mask = batch['features'], batch['feature_mask']
      return self.video(x, mask), mask
    x = batch['words' if self.words == 'ids' else 'word_vectors']
    mask = batch['word_mask']
    return self.text(x, mask), mask

  def embed(self, batch: Batch, kind: str) -> Emb:
    """Embeds 'video' or 'text'."""
    x, mask = self.fusion.fill(*self.tokens(batch, kind))
    if self.positions:
      x = self.place(x, kind)
    _, pooled = self.fusion(x, mask)
    y = self.project(pooled, kind).astype(self.num.wide)
    return dict(embed=similarity.l2_normalize(y, eps=1e-8))

  def encode_query(self, batch: Batch, *, train: bool = False) -> Emb:
    """Embeds captions from `words` or `word_vectors`, and `word_mask`."""
    del train  # There is no dropout.
    return self.embed(batch, 'text')

  def encode_item(self, batch: Batch, *, train: bool = False) -> Emb:
    """Embeds videos from `features` and `feature_mask`."""
    del train
    return self.embed(batch, 'video')

  def score(self, q: Emb, v: Emb) -> Array:
    """Cosines, [q, v]."""
    return similarity.dot_all(
      q['embed'],
      v['embed'],
      dtype=self.num.dtype,
      precision=self.num.precision,
    )


class Positions(nn.Module):
  """A learnt vector for every place of a frame or a word.

  Attributes:
    dim: width of a token.
    frames: places of frames; batches must have exactly these.
    words: places of words, at most.
    num: numerics.
  """

  dim: int
  frames: int
  words: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array, kind: str) -> Array:
    """Adds the places to [b, n, dim] tokens of a kind, 'video' or 'text'."""
    draw, wide = nn.initializers.normal(_STD), self.num.wide
    tables = dict(
      video=self.param('video', draw, (self.frames, self.dim), wide),
      text=self.param('text', draw, (self.words, self.dim), wide),
    )
    return x + tables[kind][: x.shape[1]].astype(x.dtype)


class Projections(nn.Module):
  """Maps to the space of comparison, one per kind or one for both.

  Attributes:
    features: width of that space.
    kind: see `projection`.
    individual: one map per kind.
    num: numerics.
  """

  features: int
  kind: str
  individual: bool = True
  num: Numerics = Numerics()

  def setup(self):
    names = ('video', 'text') if self.individual else ('shared',)
    for name in names:
      setattr(self, name, projection(self.kind, self.features, self.num, None))

  def __call__(self, x: Array, kind: str) -> Array:
    """Maps [b, d] of a kind, 'video' or 'text'."""
    return getattr(self, kind if self.individual else 'shared')(x)
