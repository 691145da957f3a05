# SPDX-License-Identifier: Apache-2.0
"""layers/relation.py against the formulas, one relation at a time."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.layers.linear import Numerics
from vidret_jax.layers.relation import KINDS, CollaborativeGating

D, B, NAMES = 5, 4, ('a', 'b', 'c')
DOUBLE = Numerics('float64')


class ByHand:
  """The definition in float64: concatenate, call g, average, gate."""

  def __init__(self, variables, module):
    self.p = jax.tree.map(np.asarray, variables['params'])
    self.stats = jax.tree.map(np.array, variables['batch_stats'])
    self.m = module

  def linear(self, x, path):
    node = functools.reduce(dict.__getitem__, path.split('/'), self.p)
    return x @ node['kernel'] + node['bias']

  def norm(self, x, path):
    p, s = self.p, self.stats
    for part in path.split('/'):
      p, s = p[part], s[part]
    s['mean'] = 0.9 * s['mean'] + 0.1 * x.mean(0)
    s['var'] = 0.9 * s['var'] + 0.1 * x.var(0, ddof=1)
    s['count'] = s['count'] + 1
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * p['scale'] + p['bias']

  def act(self, x):
    if self.m.activation == 'relu':
      return np.maximum(x, 0)
    return x * np.tanh(np.log1p(np.exp(x)))

  def chain(self, x, path, layers):
    for i in range(layers):
      if self.m.norm:
        x = self.norm(x, f'{path}/norms_{i}')
      x = self.linear(self.act(x), f'{path}/linears_{i}')
    return x

  def g(self, *members):
    x = self.linear(np.concatenate(members, -1), 'g_in')
    return self.chain(x, 'g', self.m.g_layers - 1)

  def mask(self, m, e, start, have):
    kind, count = self.m.kind, len(e)
    if kind.startswith('pairwise_star'):
      mean = (
        sum(x * h[:, None] for x, h in zip(start, have)) / sum(have)[:, None]
      )
      if kind == 'pairwise_star':
        z = self.g(e[m], mean)
      elif kind == 'pairwise_star_specific':
        z = self.linear(np.concatenate([e[m], mean], -1), f'g_in_{m}')
        z = self.linear(self.act(z), f'g_mid_{m}')
        z = self.chain(z, 'g', self.m.g_layers - 1)
      else:
        left, right = (self.linear(x, 'reduce') for x in (e[m], mean))
        outer = np.einsum('bi,bj->bij', left, right).reshape(len(mean), -1)
        z = self.chain(self.linear(outer, 'g_in'), 'g', self.m.g_layers - 1)
      return z * have[m][:, None]
    if kind == 'triplet':
      others = [i for i in range(count) if i != m]
      groups = (
        itertools.product(range(count), repeat=2)
        if self.m.include_self
        else itertools.permutations(others, 2)
      )
    else:
      itself = self.m.include_self and kind != 'legacy_2019'
      groups = [(q,) for q in range(count) if itself or q != m]
    total = number = 0
    for group in groups:
      a = have[m] * np.prod([have[q] for q in group], 0)
      total = total + a[:, None] * self.g(e[m], *[e[q] for q in group])
      number = number + a
    return total / (number + 1e-11)[:, None]

  def __call__(self, experts, have):
    start, e, out = list(experts), list(experts), []
    for m, name in enumerate(self.m.names):
      source = e if self.m.sequential else start
      mask = self.mask(m, source, start, have)
      if self.m.kind == 'legacy_2019':
        mask = self.linear(mask, 'h_in')
      mask = self.chain(mask, 'h', self.m.h_layers)
      t = self.norm(mask, f'units_{name}/mask_norm') + self.norm(
        self.linear(source[m], f'units_{name}/fc'), f'units_{name}/own_norm'
      )
      x = source[m] / (1 + np.exp(-t))
      out.append(x / np.linalg.norm(x, axis=1, keepdims=True))
      e[m] = out[-1]
    return out


def problem(seed=0):
  rng = np.random.default_rng(seed)
  experts = [rng.normal(size=(B, D)) for _ in NAMES]
  have = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 1]], bool)
  return experts, have


OPTIONS = [dict(kind=k) for k in KINDS] + [
  dict(include_self=False),
  dict(kind='triplet', include_self=False),
  dict(g_layers=1),
  dict(g_layers=1, kind='pairwise_star'),
  dict(g_layers=2, h_layers=2),
  dict(norm=False, activation='relu'),
  dict(sequential=False),
  dict(kind='triplet', sequential=False),
]


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_against_the_definition(options):
  with jax.enable_x64(True):
    module = CollaborativeGating(NAMES, D, num=DOUBLE, **options)
    experts, have = problem()
    variables = module.init(jax.random.key(0), experts, have, train=False)
    # Running means away from zero, so that their order matters.
    variables['batch_stats'] = jax.tree.map(
      lambda x: x + np.linspace(0, 1, x.size).reshape(x.shape) if x.ndim else x,
      variables['batch_stats'],
    )

    @jax.jit
    def run(variables, experts):
      return module.apply(
        variables, experts, have, train=True, mutable=['batch_stats']
      )

    got, state = run(variables, experts)
    reference = ByHand(variables, module)
    want = reference(experts, have.astype(np.float64).T)
    for x, y in zip(got, want):
      np.testing.assert_allclose(x, y, atol=1e-10)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, atol=1e-10),
      dict(state['batch_stats']),
      reference.stats,
    )


@pytest.mark.parametrize('kind', KINDS)
def test_excluded_rows_influence_nothing(kind):
  with jax.enable_x64(True):
    module = CollaborativeGating(NAMES, D, kind=kind, num=DOUBLE)
    experts, have = problem()
    variables = module.init(jax.random.key(0), experts, have, train=False)
    padded = [np.concatenate([x, np.full((2, D), 7.0)]) for x in experts]
    more = np.concatenate([have, np.ones((2, 3), bool)])
    where = np.arange(B + 2) < B
    got, state = module.apply(
      variables, padded, more, train=True, where=where, mutable=['batch_stats']
    )
    want, want_state = module.apply(
      variables, experts, have, train=True, mutable=['batch_stats']
    )
    for x, y in zip(got, want):
      np.testing.assert_allclose(x[:B], y, atol=1e-12)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, atol=1e-12),
      state,
      want_state,
    )


def test_sequential_and_simultaneous_gating_differ():
  experts, have = problem()
  experts = [jnp.asarray(x, jnp.float32) for x in experts]
  module = CollaborativeGating(NAMES, D)
  variables = module.init(jax.random.key(0), experts, have, train=False)
  one = module.apply(variables, experts, have, train=False)
  two = CollaborativeGating(NAMES, D, sequential=False).apply(
    variables, experts, have, train=False
  )
  np.testing.assert_allclose(one[0], two[0], atol=1e-6)
  assert jnp.abs(one[2] - two[2]).max() > 1e-4


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(kind='pairs'), 'pairwise_star_tensor'),
    (dict(names=('a',)), 'two or more'),
    (dict(g_layers=0), 'g_layers=0'),
    (dict(activation='gelu'), 'mish'),
  ],
)
def test_bad_options(options, message):
  experts, have = problem()
  names = options.pop('names', NAMES)
  with pytest.raises(ValueError, match=message):
    CollaborativeGating(names, D, **options).init(
      jax.random.key(0),
      experts[: len(names)],
      have[:, : len(names)],
      train=False,
    )
