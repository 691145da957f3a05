# SPDX-License-Identifier: Apache-2.0
"""Tests of layers/pooling.py beyond what the golden files check."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.layers.linear import Numerics
from vidret_jax.layers.pooling import NetVLAD

RNG = np.random.default_rng(0)


def build(**kwargs):
  module = NetVLAD(4, 3, ghosts=2, **kwargs)
  x = RNG.normal(size=(5, 6, 4)).astype('f')
  mask = jnp.ones((5, 6), bool)
  variables = module.init(jax.random.key(0), x, train=False, token_mask=mask)
  return module, variables, x


def run(module, variables, x, **kwargs):
  return module.apply(
    variables, jnp.asarray(x), train=True, mutable=['batch_stats'], **kwargs
  )


def test_unit_norm_and_feature_major_layout():
  module, variables, x = build()
  out, _ = run(module, variables, x)
  np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)
  # Every cluster's residual has the same norm before the last step.
  norms = np.linalg.norm(out.reshape(5, 4, 3), axis=1)
  np.testing.assert_allclose(norms, 3**-0.5, atol=1e-6)


def test_a_missing_item_still_has_a_direction():
  module, variables, x = build()
  x[2] = 0
  out, _ = run(module, variables, x)
  np.testing.assert_allclose(np.linalg.norm(out[2]), 1, atol=1e-6)


def test_padding_counts_unless_masked():
  module, variables, x = build()
  longer = np.concatenate([x, np.zeros((5, 2, 4), 'f')], 1)
  out, _ = run(module, variables, x)
  padded, _ = run(module, variables, longer)
  assert np.abs(out - padded).max() > 1e-2

  masked = NetVLAD(4, 3, ghosts=2, masked=True)
  tokens = np.arange(8) < 6
  padded, state = run(
    masked, variables, longer, token_mask=jnp.asarray(np.tile(tokens, (5, 1)))
  )
  want, want_state = run(module, variables, x)
  np.testing.assert_allclose(padded, want, atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, want_state
  )


def test_masked_item_without_tokens_is_zero():
  masked = NetVLAD(4, 3, ghosts=2, masked=True)
  _, variables, x = build()
  mask = np.ones((5, 6), bool)
  mask[1] = False
  out, _ = run(masked, variables, x, token_mask=jnp.asarray(mask))
  assert not out[1].any() and np.isfinite(out).all()


def test_masked_pooling_needs_a_mask():
  masked = NetVLAD(4, 3, ghosts=2, masked=True)
  _, variables, x = build()
  with pytest.raises(ValueError, match='token mask'):
    run(masked, variables, x)


def test_excluded_rows_influence_nothing():
  module, variables, x = build()
  where = np.array([True, True, False, True, False])
  x[~where] = 0
  out, state = run(module, variables, x, where=jnp.asarray(where))
  want, want_state = run(module, variables, x[where])
  np.testing.assert_allclose(out[where], want, atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, want_state
  )


def test_bfloat16():
  module = NetVLAD(4, 3, ghosts=2, num=Numerics('bfloat16'))
  _, variables, x = build()
  out, _ = run(module, variables, x)
  assert out.dtype == jnp.bfloat16
  want, _ = run(NetVLAD(4, 3, ghosts=2), variables, x)
  np.testing.assert_allclose(out.astype('f'), want, atol=0.05)


def test_initialisation():
  module = NetVLAD(400, 30)
  variables = module.init(
    jax.random.key(0), jnp.zeros((2, 3, 400)), train=False
  )
  for name in ('clusters', 'centres'):
    std = variables['params'][name].std()
    np.testing.assert_allclose(std, 400**-0.5, rtol=0.05)
