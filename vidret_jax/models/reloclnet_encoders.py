# SPDX-License-Identifier: Apache-2.0
"""The parts of ReLoCLNet and XML: encoders of sentences and of videos.

See `reloclnet`. Upstream: `method_tvr/model.py`, `model_components.py`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers import attention, linear
from vidret_jax.layers.dropout import Dropout
from vidret_jax.layers.transformer import Dense, LayerNorm
from vidret_jax.models.base import Array, Emb

# In place of the scores and logits of what is not there.
ABSENT = -1e10


class Projection(nn.Module):
  """relu(dense(dropout(norm(x)))): features of any width to the model's.

  Attributes:
    dim: of the model.
    dropout: of the normed input.
    options: of the model.
  """

  dim: int
  dropout: float
  options: attention.Options

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    o = self.options
    y = LayerNorm(num=o.num, name='norm')(x.astype(o.num.dtype))
    y = Dropout(self.dropout)(y, train=train)
    return nn.relu(Dense(self.dim, o.std, o.num, name='dense')(y))


class Position(nn.Module):
  """dropout(norm(x + embedding)), a learnt vector per place.

  Attributes:
    length: of the table.
    dropout: of the result.
    options: of the model.
  """

  length: int
  dropout: float
  options: attention.Options

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    o = self.options
    table = self.param(
      'embedding',
      nn.initializers.normal(o.std),
      (self.length, x.shape[-1]),
      o.num.wide,
    )
    if x.shape[-2] > self.length:
      raise ValueError(
        f'a sequence of {x.shape[-2]} rows, but there are places for '
        f'{self.length} only; set max_clips or max_words of data and model '
        'alike.'
      )
    x = x + table[: x.shape[-2]].astype(x.dtype)
    x = LayerNorm(num=o.num, name='norm')(x)
    return Dropout(self.dropout)(x, train=train)


class Sentence(nn.Module):
  """Tokens to one vector per stream.

  Attributes:
    streams: how many.
    depth: encoders.
    dim: of the model.
    max_words: places.
    dropout: of the input.
    options: of the model.
  """

  streams: int
  depth: int
  dim: int
  max_words: int
  dropout: float
  options: attention.Options

  @nn.compact
  def __call__(self, x: Array, mask: Array, *, train: bool) -> Array:
    """Returns [b, streams, d] from tokens [b, l, d'] and mask [b, l]."""
    o = self.options
    x = Projection(self.dim, self.dropout, o, name='proj')(x, train=train)
    x = Position(self.max_words, self.dropout, o, name='position')(
      x, train=train
    )
    for i in range(self.depth):
      x = attention.Encoder(o, name=f'enc_{i + 1}')(x, mask, train=train)
    weights = _Modular(self.streams, o, name='modular')(x)
    weights = jnp.where(mask[..., None], weights, ABSENT)
    weights = jax.nn.softmax(weights, axis=1).astype(x.dtype)
    return jnp.einsum('bls,bld->bsd', weights, x, precision=o.num.precision)


class _Modular(nn.Module):
  """Logits of each token in each stream: [b, l, streams]."""

  streams: int
  options: attention.Options

  @nn.compact
  def __call__(self, x: Array) -> Array:
    o = self.options
    kernel = self.param(
      'kernel',
      nn.initializers.normal(o.std),
      (x.shape[-1], self.streams),
      o.num.wide,
    )
    return o.num.dot(x, kernel).astype(o.num.wide)


class Context(nn.Module):
  """The encoders of one stream of a video.

  Attributes:
    dim: of the model.
    depth: encoders.
    crossed: whether the stream looks at another one after the first encoder.
    dropout: of the input.
    options: of the model.
  """

  dim: int
  depth: int
  crossed: bool
  dropout: float
  options: attention.Options

  def setup(self):
    o = self.options
    self.proj = Projection(self.dim, self.dropout, o)
    self.enc = [
      attention.Encoder(o, name=f'enc_{i + 1}') for i in range(self.depth)
    ]
    if self.crossed:
      self.cross = attention.Attention(o)
      self.cross_norm = LayerNorm(num=o.num)

  def first(self, x: Array, mask: Array, position, *, train: bool) -> Array:
    """The first level.

    Args:
      x: features [b, n, d'] of the first n places, zeros where there is no
        clip. The others hold none: they are alike until places are added.
      mask: bool [b, t].
      position: adds places.
      train: whether to drop.

    Returns:
      [b, t, d].
    """
    n, length = x.shape[1], mask.shape[1]
    seen = self.proj(x, train=train)
    if n < length:
      alike = self.proj(jnp.zeros_like(x[:1, :1]), train=train)
      alike = jnp.broadcast_to(alike, (len(x), length - n, self.dim))
      seen = jnp.concatenate([seen, alike], axis=1)
    x = position(seen, train=train)
    return self.enc[0](x, mask, train=train, keys=n)

  def joined(self, x: Array, other: Array, mask: Array, *, train: bool):
    """norm(attention(x, other) + x), [b, n, d]: the first n places of a video.

    Args:
      x: [b, n, d].
      other: [b, t, d], all places of the other stream.
      mask: bool [b, t].
      train: whether to drop.
    """
    pairs = mask[:, : x.shape[1], None] & mask[:, None, :]
    return self.cross_norm(self.cross(x, other, pairs, train=train) + x)

  def deeper(self, x: Array, mask: Array, *, train: bool) -> list[Array]:
    """All levels after the first one."""
    levels = []
    for encoder in self.enc[1:]:
      x = encoder(x, mask, train=train)
      levels.append(x)
    return levels


class Span(nn.Module):
  """Similarities of sentence and clips, and logits of start and end.

  Attributes:
    streams: names.
    kernel: width of the convolutions, odd.
    dim: of the model.
    options: of the model.
  """

  streams: tuple[str, ...]
  kernel: int
  dim: int
  options: attention.Options

  def setup(self):
    o = self.options
    for name in self.streams:
      setattr(self, name, Dense(self.dim, o.std, o.num))
    init = linear.symmetric_uniform(self.kernel)
    self.start = self.param('start', init, (self.kernel,), o.num.wide)
    self.end = self.param('end', init, (self.kernel,), o.num.wide)

  def asked(self, q: Emb) -> Emb:
    """What each stream of the clips is compared with: stream -> [q, d]."""
    return {name: getattr(self, name)(q[name]) for name in self.streams}

  def boundaries(self, sim: Array, mask: Array) -> tuple[Array, Array]:
    """Cross-correlations of the similarities, not masked before."""
    half = self.kernel // 2
    pad = [(0, 0)] * (sim.ndim - 1) + [(half, half)]
    padded, length = jnp.pad(sim, pad), sim.shape[-1]

    def correlate(weights):
      terms = (
        weights[i] * padded[..., i : i + length] for i in range(self.kernel)
      )
      return jnp.where(mask, sum(terms), ABSENT)

    return correlate(self.start), correlate(self.end)
