# SPDX-License-Identifier: Apache-2.0
"""Collaborative gating: experts modulate each other (arXiv 1907.13487, 3.1).

A shared function g relates expert m to another (or two, or their mean); the
relations of m, averaged over the experts a video really has, gate m.

The batch comes first in every array, experts or relations second: a product
merges the axes before its last, and only rows that were the leading axis stay
divided over devices.
"""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidret_jax.layers.activations import activation
from vidret_jax.layers.gating import ReasoningUnit
from vidret_jax.layers.linear import Linear, Numerics
from vidret_jax.layers.norm import BatchNorm

Array = jax.Array

# Upstream divides by the number of available relations plus this.
_EPS = 1e-11
# Width to which the tensor variant reduces both sides (upstream constant).
_TENSOR_DIM = 64

PAIRS = ('pairwise', 'triplet')
STARS = ('pairwise_star', 'pairwise_star_specific', 'pairwise_star_tensor')
KINDS = PAIRS + STARS + ('legacy_2019',)


class Chain(nn.Module):
  """`layers` repetitions of (normalise, activate, linear).

  Attributes:
    features: width in, out and between.
    layers: number of repetitions; none is the identity.
    norm: with the normalisation.
    activation: 'mish' or 'relu'.
    num: numerics.
  """

  features: int
  layers: int
  norm: bool = True
  activation: str = 'mish'
  num: Numerics = Numerics()

  def setup(self):
    self.norms = [
      BatchNorm(dtype=self.num.wide)
      for _ in range(self.layers if self.norm else 0)
    ]
    self.linears = [
      Linear(self.features, self.features, num=self.num)
      for _ in range(self.layers)
    ]
    self.act = activation(self.activation)

  def hidden(self, x: Array, *, train: bool, where: Array | None) -> Array:
    """Everything but the last linear map. [b, g, d] -> [b, g, d]."""
    where = None if where is None else where[:, None]
    for i, linear in enumerate(self.linears):
      if self.norm:
        x = self.norms[i](x, train=train, where=where, stacked=True)
      x = self.act(x)
      if i + 1 < self.layers:
        x = linear(x)
    return x

  def last(self, x: Array, weight: Array | float = 1.0) -> Array:
    """The last linear map of `x`, a sum whose weights add up to `weight`."""
    if not self.layers:
      return x
    linear = self.linears[-1]
    bias = linear.offset() * jnp.asarray(weight, self.num.dtype)
    return linear.part(x, 0) + bias

  def __call__(self, x: Array, *, train: bool, where: Array | None) -> Array:
    """[b, g, d]: g batches, each normalised on its own, in this order."""
    return self.last(self.hidden(x, train=train, where=where))


class CollaborativeGating(nn.Module):
  """Gates every expert by its relations to the others.

  Two rearrangements make it cheap and change nothing but rounding: the first
  map of a concatenation is a sum of one product per member, each computed
  once; and the last map of g, being linear, is applied after the average.

  Attributes:
    names: one per expert, in gating order.
    features: width of the shared space.
    kind: one of `KINDS`.
    include_self: relate an expert to itself, too (upstream default 1).
    g_layers: linear maps in g.
    h_layers: repetitions in h, which acts on the averaged relations.
    norm: batch normalisation in g and h. Every relation is a batch of its
      own: M * M updates of the running statistics per step, as upstream.
    activation: 'mish' or 'relu'.
    sequential: gate the experts one after the other, so that later ones meet
      the already gated embeddings of earlier ones. Upstream's loop does it in
      place; the paper gates all from the ungated embeddings (False).
    num: numerics.
  """

  names: tuple[str, ...]
  features: int
  kind: str = 'pairwise'
  include_self: bool = True
  g_layers: int = 3
  h_layers: int = 0
  norm: bool = True
  activation: str = 'mish'
  sequential: bool = True
  num: Numerics = Numerics()

  def setup(self):
    if self.kind not in KINDS:
      raise ValueError(
        f'gating={self.kind!r}: expected one of {", ".join(KINDS)}.'
      )
    if len(self.names) < 2:
      raise ValueError(
        f'gating={self.kind!r} relates experts to each other: it needs two '
        f'or more, found {list(self.names)}.'
      )
    if self.g_layers < 1 or self.h_layers < 0:
      raise ValueError(
        f'g_layers={self.g_layers}, h_layers={self.h_layers}: expected at '
        'least one layer in g and none or more in h.'
      )
    d, num = self.features, self.num
    if self.kind == 'pairwise_star_specific':
      self.g_in = [Linear(d, d, parts=2, num=num) for _ in self.names]
      self.g_mid = [Linear(d, d, num=num) for _ in self.names]
    elif self.kind == 'pairwise_star_tensor':
      self.reduce = Linear(d, _TENSOR_DIM, num=num)
      self.g_in = Linear(_TENSOR_DIM**2, d, num=num)
    else:
      self.g_in = Linear(d, d, parts=self._members(), num=num)
    if self.kind == 'legacy_2019':
      self.h_in = Linear(d, d, num=num)
    self.g = Chain(d, self.g_layers - 1, self.norm, self.activation, num)
    self.h = Chain(d, self.h_layers, self.norm, self.activation, num)
    self.units = {n: ReasoningUnit(d, num=num) for n in self.names}

  def _members(self) -> int:
    return 3 if self.kind == 'triplet' else 2

  def __call__(
    self,
    experts: list[Array],
    available: Array,
    *,
    train: bool,
    where: Array | None = None,
  ) -> list[Array]:
    """Gates the experts.

    Args:
      experts: per expert [b, d], of unit norm.
      available: bool [b, m].
      train: batch statistics.
      where: bool [b], rows that take part in the statistics.

    Returns:
      Per expert [b, d], of unit norm.
    """
    have = available.astype(self.num.dtype)
    if self.kind in STARS:
      return self._star(experts, have, train, where)
    return self._relate(experts, have, train, where)

  def _relate(self, experts, have_bm, train, where):
    """Pairs and triplets."""
    count = len(experts)
    e_bmd = jnp.stack(experts, 1)
    roles = range(1, self._members())
    head = self.g_in.part(e_bmd, 0) + self.g_in.offset()
    rest = {r: self.g_in.part(e_bmd, r) for r in roles}
    out = []
    for m, name in enumerate(self.names):
      others = self._partners(m, count)
      z, a = head[:, m, None], have_bm[:, m, None]
      for role, index in zip(roles, zip(*others)):
        z, a = z + _pick(rest[role], index), a * _pick(have_bm, index)
      number = a.sum(1, keepdims=True)
      z = self.g.hidden(z, train=train, where=where)
      total = jnp.einsum('bg,bgd->bd', a, z, precision=self.num.precision)
      mean = total / (number + _EPS)
      mask = self.g.last(mean, number / (number + _EPS))
      out.append(self._gate(name, experts[m], mask, train, where))
      if self.sequential and m + 1 < count:
        rest = {
          r: x.at[:, m].set(self.g_in.part(out[m], r)) for r, x in rest.items()
        }
    return out

  def _partners(self, m, count):
    """Index tuples that expert m is related to, in upstream's order."""
    everyone = range(count)
    if self.kind == 'triplet':
      if self.include_self:
        return list(itertools.product(everyone, repeat=2))
      others = [q for q in everyone if q != m]
      return list(itertools.permutations(others, 2))
    keep_self = self.include_self and self.kind != 'legacy_2019'
    return [(q,) for q in everyone if keep_self or q != m]

  def _star(self, experts, have_bm, train, where):
    """Every expert related to the mean of the available ones."""
    e_bmd = jnp.stack(experts, 1)
    have = have_bm[..., None]
    mean = (e_bmd * have).sum(1) / have.sum(1)
    if self.kind == 'pairwise_star':
      z = self.g_in.part(mean, 1)[:, None] + self.g_in.offset()
      z = self.g_in.part(e_bmd, 0) + z
    elif self.kind == 'pairwise_star_tensor':
      left, right = self.reduce(e_bmd), self.reduce(mean)
      outer = left[..., :, None] * right[:, None, None, :]
      z = self.g_in(outer.reshape(*left.shape[:2], -1))
    else:
      act = activation(self.activation)
      z = jnp.stack(
        [
          mid(act(first.part(e, 0) + first.part(mean, 1) + first.offset()))
          for e, first, mid in zip(experts, self.g_in, self.g_mid)
        ],
        axis=1,
      )
    masks = self.g(z, train=train, where=where) * have
    return [
      self._gate(n, e, masks[:, m], train, where)
      for m, (n, e) in enumerate(zip(self.names, experts))
    ]

  def _gate(self, name, expert, mask, train, where):
    if self.kind == 'legacy_2019':
      mask = self.h_in(mask)
    mask = self.h(mask[:, None], train=train, where=where)[:, 0]
    return self.units[name](expert, mask, train=train, where=where)


def _pick(x: Array, index: tuple[int, ...]) -> Array:
  """x[:, index]; the common case of all in order costs nothing."""
  if index == tuple(range(x.shape[1])):
    return x
  return x[:, np.array(index)]
