# SPDX-License-Identifier: Apache-2.0
"""Message passing against loops over nodes."""

import jax
import numpy as np
import pytest

from vidret_jax.layers.graph import Graph


def problem(attention, layers=2, b=3, n=5, d=6):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((b, n, d)).astype(np.float32)
  edges = rng.random((b, n, n)) < 0.4
  edges[:, 0] = False  # Like the sentence node, which receives from none.
  net = Graph(d, layers, attention)
  variables = net.init(jax.random.key(0), x, edges, train=False)
  leaves, tree = jax.tree.flatten(variables)
  leaves = [rng.standard_normal(a.shape).astype(np.float32) for a in leaves]
  return net, jax.tree.unflatten(tree, leaves), x, edges


def naive(layer, x, edges):
  out = np.zeros_like(x)
  for b, n in np.ndindex(x.shape[:2]):
    senders = np.flatnonzero(edges[b, n])
    message = np.zeros(x.shape[-1])
    if len(senders):
      weights = np.ones(len(senders))
      if 'query' in layer:
        query, key = (
          z @ layer[k]['kernel'] + layer[k]['bias']
          for z, k in ((x[b, n], 'query'), (x[b, senders], 'key'))
        )
        weights = np.exp(key @ query / np.sqrt(len(query)))
      message = weights @ x[b, senders] / weights.sum()
    y = x[b, n] + message @ layer['context']['kernel']
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
    out[b, n] = y * layer['norm']['scale'] + layer['norm']['bias']
  return out


@pytest.mark.parametrize('attention', [True, False])
def test_against_loops(attention):
  net, variables, x, edges = problem(attention)
  want = x.astype(np.float64)
  for k in range(net.layers):
    want = naive(variables['params'][f'layer_{k}'], want, edges)
  got = net.apply(variables, x, edges, train=False)
  np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize('attention', [True, False])
def test_a_node_that_nobody_hears_changes_nothing(attention):
  net, variables, x, edges = problem(attention)
  edges[:, :, 3] = False
  other = x.copy()
  other[:, 3] = 1e4
  here = np.arange(x.shape[1]) != 3
  np.testing.assert_array_equal(
    net.apply(variables, x, edges, train=False)[:, here],
    net.apply(variables, other, edges, train=False)[:, here],
  )


def test_dropout_of_messages():
  net, variables, x, edges = problem(True)
  net = net.copy(dropout=0.5)
  a, b = (
    net.apply(
      variables, x, edges, train=True, rngs={'dropout': jax.random.key(k)}
    )
    for k in range(2)
  )
  assert np.abs(a - b).max() > 1e-3
