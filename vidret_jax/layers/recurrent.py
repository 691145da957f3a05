# SPDX-License-Identifier: Apache-2.0
"""GRU and LSTM over sentences of different lengths: `torch.nn.GRU`, `LSTM`.

The products of the inputs are computed for all steps at once. The scan visits
as many steps as the longest sentence of the batch has words; later ones are
skipped at run time. The backward direction of a sentence starts at its last
word: its words are reversed first, so that both directions end together.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Numerics

Array = jax.Array

GATES = {'gru': 3, 'lstm': 4}


class Direction(nn.Module):
  """Parameters of one direction of one layer, in torch's order of gates.

  Both biases are kept although only their sum matters in most gates: merged,
  they would move half as fast under Adam.

  Attributes:
    kind: 'gru' (gates r, z, n) or 'lstm' (i, f, g, o).
    features: width of the state.
    num: numerics.
  """

  kind: str
  features: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array, Array]:
    """Products of all inputs.

    Args:
      x: [b, l, in].

    Returns:
      ([b, l, gates], the state's kernel [features, gates], its bias [gates]).
    """
    wide, gates = self.num.wide, GATES[self.kind] * self.features
    # One orthogonal draw for the matrices of all gates together.
    orthogonal = nn.initializers.orthogonal()
    shape = (x.shape[-1], gates)
    kernel = self.param('input_kernel', orthogonal, shape, wide)
    shape = (self.features, gates)
    hidden_kernel = self.param('hidden_kernel', orthogonal, shape, wide)
    bias = self.param('input_bias', self._start, (gates,), wide)
    hidden_bias = self.param(
      'hidden_bias', nn.initializers.zeros, (gates,), wide
    )
    return self.num.dot(x, kernel) + bias, hidden_kernel, hidden_bias

  def _start(self, key, shape, dtype):
    """Zeros; an LSTM begins by remembering."""
    del key
    bias = jnp.zeros(shape, dtype)
    if self.kind == 'lstm':
      bias = bias.at[self.features : 2 * self.features].set(1)
    return bias


class Layer(nn.Module):
  """The directions of one layer; attributes as those of `Direction`."""

  kind: str
  features: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, inputs: dict[str, Array]) -> list[tuple[Array, ...]]:
    """`Direction` of every input: {name of the direction: [b, l, in]}."""
    return [
      Direction(self.kind, self.features, self.num, name=name)(x)
      for name, x in inputs.items()
    ]


class Recurrent(nn.Module):
  """Layers of one or two directions over padded sentences.

  Attributes:
    kind: 'gru' or 'lstm'.
    features: width of each direction's state.
    layers: how many.
    bidirectional: a second direction; its states stand behind the first's.
    dropout: between layers.
    num: numerics; gates and states are in the wide type.
  """

  kind: str
  features: int
  layers: int = 1
  bidirectional: bool = True
  dropout: float = 0.0
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array, mask: Array, *, train: bool) -> Array:
    """Runs over the words.

    Args:
      x: [b, l, in].
      mask: bool [b, l], True for a leading run of words.
      train: drops out between layers.

    Returns:
      [b, l, directions, features] of the last layer, zero at padding.
    """
    names = ('forward', 'backward')[: 1 + self.bidirectional]
    steps = jnp.arange(x.shape[1])
    length = mask.sum(1, keepdims=True)
    reverse = jnp.where(steps < length, length - 1 - steps, steps)
    for k in range(self.layers):
      if k:
        x = x.reshape(*x.shape[:2], -1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
      inputs = [x, jnp.take_along_axis(x, reverse[..., None], 1)]
      layer = Layer(self.kind, self.features, self.num, name=f'layer_{k}')
      parts = layer(dict(zip(names, inputs)))
      states = _scan(self.kind, parts, mask, self.num)
      if self.bidirectional:
        states[1] = jnp.take_along_axis(states[1], reverse[..., None], 1)
      x = jnp.where(mask[..., None, None], jnp.stack(states, 2), 0)
    return x


def _scan(kind, parts, mask, num) -> list[Array]:
  """States of every direction: [b, l, features] each."""
  cell = _gru if kind == 'gru' else _lstm
  rows = mask.shape[0]

  def start(kernel):
    zeros = jnp.zeros((rows, kernel.shape[0]), num.wide)
    return (zeros,) if kind == 'gru' else (zeros, zeros)

  def advance(carry, inputs, real):
    out = []
    for state, x, (_, kernel, bias) in zip(carry, inputs, parts):
      h = num.dot(state[0], kernel) + bias
      new = cell(x.astype(num.wide), h.astype(num.wide), state)
      out.append(
        tuple(jnp.where(real[:, None], n, s) for n, s in zip(new, state))
      )
    return tuple(out)

  def step(carry, xs):
    inputs, real = xs
    carry = jax.lax.cond(
      real.any(), lambda: advance(carry, inputs, real), lambda: carry
    )
    return carry, tuple(state[0] for state in carry)

  inputs = tuple(jnp.moveaxis(x, 1, 0) for x, _, _ in parts)
  carry = tuple(start(kernel) for _, kernel, _ in parts)
  _, states = jax.lax.scan(step, carry, (inputs, mask.T))
  return [jnp.moveaxis(h, 0, 1) for h in states]


def _gru(x, h, state):
  xr, xz, xn = jnp.split(x, 3, -1)
  hr, hz, hn = jnp.split(h, 3, -1)
  reset, update = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
  new = jnp.tanh(xn + reset * hn)
  return ((1 - update) * new + update * state[0],)


def _lstm(x, h, state):
  i, f, g, o = jnp.split(x + h, 4, -1)
  memory = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(memory), memory
