# SPDX-License-Identifier: Apache-2.0
"""Attention blocks: heads in turn or at once, masks, fewer keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.layers import attention

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 6, 8)), jnp.float32)
OTHER = jnp.asarray(RNG.normal(size=(2, 5, 8)), jnp.float32)
MASK = jnp.arange(6) < jnp.array([[4], [2]])


def plain(params, x, other, mask, heads):
  """In numpy, one head after the other."""

  def project(name, x):
    p = params[name]
    return np.asarray(x) @ np.asarray(p['kernel']) + np.asarray(p['bias'])

  q, k, v = project('query', x), project('key', other), project('value', other)
  out = []
  for columns in np.split(np.arange(x.shape[-1]), heads):
    logits = q[..., columns] @ k[..., columns].transpose(0, 2, 1)
    # In float32, as upstream: a row that may see nothing is rounded.
    logits = np.float32(logits / np.float32(len(columns) ** 0.5))
    logits = logits + np.where(mask, np.float32(0), np.float32(-10000))
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out.append(weights @ v[..., columns])
  return np.concatenate(out, -1)


@pytest.fixture(params=[True, False], ids=['in turn', 'at once'])
def heads_at(request, monkeypatch):
  monkeypatch.setattr(attention, '_in_turn', lambda: request.param)


def test_definition(heads_at):
  block = attention.Attention(attention.Options(2, std=0.5))
  mask = jnp.asarray(RNG.random((2, 6, 5)) < 0.5).at[0, 0].set(False)
  variables = block.init(jax.random.key(0), X, OTHER, mask)
  got = block.apply(variables, X, OTHER, mask)
  want = plain(variables['params'], X, OTHER, mask, 2)
  np.testing.assert_allclose(got[0, 1:], want[0, 1:], atol=2e-6)
  np.testing.assert_allclose(got[1], want[1], atol=2e-6)
  # Of the rounding of 10000 in float32.
  np.testing.assert_allclose(got[0, 0], want[0, 0], atol=2e-3)


def test_fewer_keys_change_nothing(heads_at):
  block = attention.Encoder(attention.Options(2, std=0.5))
  variables = block.init(jax.random.key(0), X, MASK)

  def total(x, keys):
    return jnp.sum(jnp.sin(block.apply(variables, x, MASK, keys=keys)))

  for call in (total, jax.grad(total)):
    np.testing.assert_allclose(call(X, 4), call(X, None), atol=1e-6)


def test_dropout_is_for_training(heads_at):
  block = attention.Encoder(attention.Options(2, dropout=0.5, std=0.5))
  variables = block.init(jax.random.key(0), X, MASK)
  still = block.apply(variables, X, MASK)
  drawn = [
    block.apply(
      variables, X, MASK, train=True, rngs={'dropout': jax.random.key(i)}
    )
    for i in (0, 0, 1)
  ]
  assert (drawn[0] == drawn[1]).all()
  assert not (drawn[0] == drawn[2]).all() and not (drawn[0] == still).all()
