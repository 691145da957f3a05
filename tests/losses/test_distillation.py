# SPDX-License-Identifier: Apache-2.0
"""Tests of losses/distillation.py against the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.losses import distillation

RNG = np.random.default_rng(0)


def test_teacher_similarity():
  text, video = RNG.normal(size=(2, 4, 3, 6)).astype('f')
  got = distillation.teacher_similarity(jnp.asarray(text), jnp.asarray(video))
  want = sum(text[:, t] @ video[:, t].T for t in range(3)) / 3
  np.testing.assert_allclose(got, want, atol=1e-5)
  grad = jax.grad(
    lambda x: distillation.teacher_similarity(x, jnp.asarray(video)).sum()
  )(jnp.asarray(text))
  assert not grad.any()


@pytest.mark.parametrize('beta', [1.0, 0.5])
def test_smooth_l1(beta):
  a, b = 2 * RNG.normal(size=(2, 5, 5)).astype('f')
  d = np.abs(a - b)
  want = np.where(d < beta, d * d / (2 * beta), d - beta / 2).mean()
  got = distillation.smooth_l1(jnp.asarray(a), jnp.asarray(b), beta=beta)
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_smooth_l1_ignores_padding():
  a, b = RNG.normal(size=(2, 5, 5)).astype('f')
  where = np.array([True, True, False, True, False])
  padded = np.where(where[:, None] & where, a, np.nan)
  loss, grad = jax.value_and_grad(distillation.smooth_l1)(
    jnp.asarray(padded), jnp.asarray(b), where=jnp.asarray(where)
  )
  pick = np.ix_(where, where)
  np.testing.assert_allclose(
    loss,
    distillation.smooth_l1(jnp.asarray(a[pick]), jnp.asarray(b[pick])),
    rtol=1e-6,
  )
  assert np.isfinite(grad).all()


def test_shapes_are_checked():
  with pytest.raises(ValueError, match='teacher_text'):
    distillation.teacher_similarity(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3, 5)))
