# SPDX-License-Identifier: Apache-2.0
"""Post-norm attention blocks of BERT, without its feed-forward layer.

As TVR's XML and ReLoCLNet have them (upstream `method_tvr/model_components.py`,
`BertSelfAttention` and `BertAttention`). Softmaxes and norms are computed in
float32 whatever the type of the products is.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers import dropout as dropout_lib
from vidret_jax.layers.linear import Numerics
from vidret_jax.layers.transformer import Dense, LayerNorm

Array = jax.Array

# Added to the logits of keys that are not valid. Where none is, it is a
# constant, and all keys are attended to: published weights count on it.
_ABSENT = -10000.0


@dataclasses.dataclass(frozen=True)
class Options:
  """What all blocks of a model have in common.

  Attributes:
    heads: must divide the width.
    dropout: of attention weights and of what a block adds.
    std: of initial kernels.
    num: numerics.
  """

  heads: int
  dropout: float = 0.0
  std: float = 0.02
  num: Numerics = Numerics()


class _Attending(nn.Module):
  """A module with query, key and value.

  Attributes:
    options: of the model.
  """

  options: Options

  def attend(self, x: Array, other: Array, mask: Array, train: bool) -> Array:
    """Call it in a compact method.

    Args:
      x: [b, n, d].
      other: [b, m, d], keys and values.
      mask: bool, broadcastable to [b, n, m]: who may attend to what.
      train: whether weights are dropped.

    Returns:
      [b, n, d].
    """
    o, width = self.options, x.shape[-1]
    depth = width // o.heads
    absent = jnp.where(mask, 0.0, _ABSENT).astype(o.num.wide)
    key = self.make_rng('dropout') if train and o.dropout else None

    def project(name, x):
      y = Dense(width, o.std, o.num, name=name)(x)
      return y.reshape(*y.shape[:-1], o.heads, depth)

    def head(args):
      number, q, k, v = args
      logits = jnp.einsum(
        'bnd,bmd->bnm',
        q,
        k,
        precision=o.num.precision,
        preferred_element_type=o.num.wide,
      )
      weights = jax.nn.softmax(logits / depth**0.5 + absent, axis=-1)
      weights = weights.astype(v.dtype)
      if key is not None:
        weights = dropout_lib.drop(
          weights, jax.random.fold_in(key, number), o.dropout
        )
      return jnp.einsum('bnm,bmd->bnd', weights, v, precision=o.num.precision)

    qkv = project('query', x), project('key', other), project('value', other)
    by_head = tuple(jnp.moveaxis(y, 2, 0) for y in qkv)
    args = (jnp.arange(o.heads), *by_head)
    if _in_turn():
      y = jax.lax.map(jax.checkpoint(head), args)
    else:
      y = jax.vmap(head)(args)
    return jnp.moveaxis(y, 0, 2).reshape(x.shape)


def _in_turn() -> bool:
  """Whether heads are computed one after the other.

  On a CPU all heads at once take 1.4 times as long: their weights are written
  to fresh memory, and kept for the backward pass.
  """
  return jax.default_backend() == 'cpu'


class Attention(_Attending):
  """Multi-head attention from one sequence to another, not projected after."""

  @nn.compact
  def __call__(
    self, x: Array, other: Array, mask: Array, *, train: bool = False
  ) -> Array:
    """See `attend`."""
    return self.attend(x, other, mask, train)


class Encoder(_Attending):
  """norm(dropout(out(attention(x, x))) + x)."""

  @nn.compact
  def __call__(
    self,
    x: Array,
    mask: Array,
    *,
    train: bool = False,
    keys: int | None = None,
  ) -> Array:
    """Encodes a sequence.

    Args:
      x: [b, n, d].
      mask: bool [b, n]; others are not attended to, but attend themselves.
      train: whether to drop.
      keys: places before which all valid ones are; default: n. Fewer cost less
        and change nothing where each row has a valid one.

    Returns:
      [b, n, d].
    """
    o = self.options
    y = self.attend(x, x[:, :keys], mask[:, None, :keys], train)
    y = Dense(x.shape[-1], o.std, o.num, name='out')(y)
    y = dropout_lib.Dropout(o.dropout)(y, train=train)
    return LayerNorm(num=o.num, name='norm')(y + x)
