# SPDX-License-Identifier: Apache-2.0
"""GRU and LSTM over sentences of different lengths: `torch.nn.GRU`, `LSTM`.

Loops take as many steps as the longest sentence of the batch has words, however
long its padding, so products of padding are never computed. The one backwards
through time only finds the gradients of the gates; those of the matrices are
products over all steps at once. The backward direction of a sentence starts at
its last word: its words are reversed first, so that both directions end
together.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Numerics

Array = jax.Array

GATES = {'gru': 3, 'lstm': 4}
_STATES = {'gru': 1, 'lstm': 2}  # An LSTM also hands on its memory.


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
  def __call__(self, x: Array, mask: Array) -> Array:
    """Runs over the words.

    Args:
      x: [b, l, in].
      mask: bool [b, l].

    Returns:
      [b, l, features].
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
    weights = Weights(kernel, bias, hidden_kernel, hidden_bias)
    x = jnp.moveaxis(x, 1, 0)
    states = recurrence(self.kind, self.num, x, weights, jnp.asarray(mask).T)
    return jnp.moveaxis(states, 0, 1)

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
  def __call__(self, inputs: dict[str, Array], mask: Array) -> list[Array]:
    """`Direction` of every input: {name of the direction: [b, l, in]}."""
    return [
      Direction(self.kind, self.features, self.num, name=name)(x, mask)
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
      states = layer(dict(zip(names, inputs)), mask)
      if self.bidirectional:
        states[1] = jnp.take_along_axis(states[1], reverse[..., None], 1)
      x = jnp.where(mask[..., None, None], jnp.stack(states, 2), 0)
    return x


class Weights(NamedTuple):
  """Of one direction; kernels are [in, gates], biases [gates]."""

  input_kernel: Array
  input_bias: Array
  hidden_kernel: Array
  hidden_bias: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recurrence(
  kind: str, num: Numerics, x: Array, weights: Weights, mask: Array
) -> Array:
  """States of one direction, from zero on.

  Args:
    kind: 'gru' or 'lstm'.
    num: numerics.
    x: [l, b, in].
    weights: of the direction.
    mask: bool [l, b], True for a leading run of steps; a state stays as it is
      in the others. States of steps beyond the longest run are zero.

  Returns:
    [l, b, d].
  """
  return _run(kind, num, x, weights, mask)[0][0]


def _run(kind, num, x, weights, mask):
  """All states (one array [l, b, d] for 'gru', two for 'lstm'), and the
  products of inputs and of states, [l, b, gates] each."""
  width, gates = weights.hidden_kernel.shape
  empty = jnp.zeros((*x.shape[:2], width), num.wide)
  states = (empty,) * _STATES[kind]
  products = (jnp.zeros((*x.shape[:2], gates), num.wide),) * 2

  def step(t, carry):
    state, out, products = carry
    found = (
      num.dot(x[t], weights.input_kernel) + weights.input_bias,
      num.dot(state[0], weights.hidden_kernel) + weights.hidden_bias,
    )
    found = tuple(p.astype(num.wide) for p in found)
    new = _masked(kind, *found, state, mask[t])
    out, products = (
      tuple(a.at[t].set(b) for a, b in zip(*pair))
      for pair in ((out, new), (products, found))
    )
    return new, out, products

  start = tuple(s[0] for s in states)
  carry = start, states, products
  return jax.lax.fori_loop(0, _steps(mask), step, carry)[1:]


def _run_forward(kind, num, x, weights, mask):
  out, products = _run(kind, num, x, weights, mask)
  return out[0], (x, weights, mask, out, products)


def _run_backward(kind, num, kept, slope):
  x, weights, mask, out, products = kept
  before = tuple(jnp.roll(x, 1, 0).at[0].set(0) for x in out)
  gates, states = GATES[kind], range(len(out))

  def cells(x, h, state):
    return _masked(kind, x, h, state, mask)

  # A cell treats every feature by itself: its derivative is a product with
  # factors that are known for all steps before the first is taken.
  _, pull = jax.vjp(cells, *products, before)
  factors = [
    pull(tuple(jnp.full_like(out[k], j == k) for k in states)) for j in states
  ]

  def spread(slopes, part, t=slice(None)):
    """Slopes of states as slopes of products: 0 of inputs, 1 of states."""
    return sum(jnp.tile(s, gates) * f[part][t] for s, f in zip(slopes, factors))

  back, steps = weights.hidden_kernel.T, _steps(mask)

  def step(i, carry):
    t = steps - 1 - i
    (first, *rest), seen = carry
    slopes = (first + slope[t], *rest)
    seen = tuple(x.at[t].set(s) for x, s in zip(seen, slopes))
    first, *rest = (
      sum(s * f[2][k][t] for s, f in zip(slopes, factors)) for k in states
    )
    first = first + num.dot(spread(slopes, 1, t), back).astype(num.wide)
    return (first, *rest), seen

  start = tuple(jnp.zeros_like(x[0]) for x in out)
  none = tuple(jnp.zeros_like(x) for x in out)
  _, seen = jax.lax.fori_loop(0, steps, step, (start, none))
  of_inputs, of_states = spread(seen, 0), spread(seen, 1)

  def of_kernel(a, b):
    return jnp.einsum(
      'lbd,lbg->dg',
      a.astype(num.dtype),
      b.astype(num.dtype),
      precision=num.precision,
      preferred_element_type=num.wide,
    )

  of_weights = Weights(
    of_kernel(x, of_inputs),
    of_inputs.sum((0, 1)),
    of_kernel(before[0], of_states),
    of_states.sum((0, 1)),
  )
  # Not `num.dot`: merging steps and rows would give every device all rows.
  of_x = jnp.einsum(
    'lbg,dg->lbd',
    of_inputs.astype(num.dtype),
    weights.input_kernel.astype(num.dtype),
    precision=num.precision,
  ).astype(x.dtype)
  return of_x, of_weights, None


recurrence.defvjp(_run_forward, _run_backward)


def _steps(mask: Array) -> Array:
  """Steps of the longest run."""
  return mask.any(1).sum()


def _masked(kind, x, h, state, real):
  new = _gru(x, h, state) if kind == 'gru' else _lstm(x, h, state)
  return tuple(jnp.where(real[..., None], n, s) for n, s in zip(new, state))


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
