# SPDX-License-Identifier: Apache-2.0
"""Tests of ops/text_gated.py against the four-dimensional formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.ops import text_gated

SHARP, SOFT = 0.01, 0.1
RNG = np.random.default_rng(0)


def unit(*shape):
  x = RNG.normal(size=shape)
  return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype('f')


TEXT, PARTS, CONTENT = unit(3, 16), unit(4, 5, 16), unit(4, 5, 16)
MIX = (np.eye(5) + 0.2 * RNG.normal(size=(5, 5))).astype('f')
WHERE = np.array(
  [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool
)


def weights_by_hand(text, parts, temperature, where):
  """[q, v, f], with everything in where a video has nothing."""
  logits = np.einsum('qd,vfd->qvf', np.float64(text), np.float64(parts))
  logits = logits / temperature
  if where is not None:
    usable = where | ~where.any(1, keepdims=True)
    logits = np.where(usable, logits, -np.inf)
  e = np.exp(logits - logits.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def strong_by_hand(text, weights, content):
  """Forms [q, v, f, d]."""
  text, content = np.float64(text), np.float64(content)
  pooled = (weights[..., None] * content[None]).sum(2)
  pooled /= np.linalg.norm(pooled, axis=-1, keepdims=True)
  return (text[:, None] * pooled).sum(-1)


def test_similarities():
  got = text_gated.similarities(TEXT, PARTS)
  want = np.einsum('qd,vfd->qvf', np.float64(TEXT), np.float64(PARTS))
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_half_precision_parts_give_wide_similarities():
  got = text_gated.similarities(TEXT, jnp.asarray(PARTS, 'bfloat16'))
  assert got.dtype == jnp.float32
  want = np.einsum('qd,vfd->qvf', np.float64(TEXT), np.float64(PARTS))
  np.testing.assert_allclose(got, want, atol=1e-2)


@pytest.mark.parametrize('where', [None, WHERE])
@pytest.mark.parametrize('temperature', [SHARP, SOFT])
def test_gate(temperature, where):
  sims = text_gated.similarities(TEXT, PARTS)
  got = text_gated.gate(sims, temperature, where)
  want = weights_by_hand(TEXT, PARTS, temperature, where)
  np.testing.assert_allclose(got, want, atol=1e-4)
  np.testing.assert_allclose(got.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize('mix', [None, MIX])
@pytest.mark.parametrize('where', [None, WHERE])
def test_weak(where, mix):
  sims = np.einsum('qd,vfd->qvf', np.float64(TEXT), np.float64(PARTS))
  weights = weights_by_hand(TEXT, PARTS, SHARP, where)
  if mix is not None:
    weights = weights @ np.float64(mix)
  usable = np.ones_like(WHERE)
  if where is not None:
    usable = where | ~where.any(1, keepdims=True)
  want = (sims * usable * weights).sum(-1)
  got = text_gated.weak(text_gated.similarities(TEXT, PARTS), SHARP, where, mix)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_parts_left_out_influence_nothing_even_through_the_mix():
  def scores(parts):
    sims = text_gated.similarities(TEXT, parts)
    return text_gated.weak(sims, SHARP, WHERE, MIX)

  some = WHERE.any(1)
  left_out = (~WHERE & some[:, None])[..., None]
  a = scores(np.where(left_out, 0, PARTS))
  b = scores(np.where(left_out, unit(4, 5, 16), PARTS))
  np.testing.assert_array_equal(a, b)
  grad = jax.grad(lambda p: scores(p).sum())(PARTS)
  assert not np.asarray(grad)[left_out[..., 0]].any()
  assert np.asarray(grad)[WHERE].any()


@pytest.mark.parametrize(
  'strong', [text_gated.strong, text_gated.strong_of_many]
)
@pytest.mark.parametrize('where', [None, WHERE])
@pytest.mark.parametrize('temperature', [SHARP, SOFT])
def test_strong(strong, temperature, where):
  gate = text_gated.gate(
    text_gated.similarities(TEXT, PARTS), temperature, where
  )
  weights = weights_by_hand(TEXT, PARTS, temperature, where)
  want = strong_by_hand(TEXT, weights, CONTENT)
  np.testing.assert_allclose(strong(TEXT, gate, CONTENT), want, atol=2e-5)


def test_both_forms_have_the_same_gradient():
  def loss(form):
    def value(text, parts, content):
      gate = text_gated.gate(text_gated.similarities(text, parts), SOFT, WHERE)
      return jnp.sin(form(text, gate, content)).sum()

    return jax.grad(value, argnums=(0, 1, 2))(TEXT, PARTS, CONTENT)

  for a, b in zip(loss(text_gated.strong), loss(text_gated.strong_of_many)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'strong', [text_gated.strong, text_gated.strong_of_many]
)
def test_contents_that_cancel_are_finite(strong):
  text = jnp.asarray(TEXT)
  content = jnp.stack([PARTS[:, 0], -PARTS[:, 0]], 1)
  gate = jnp.full((3, 4, 2), 0.5)
  value, grads = jax.value_and_grad(
    lambda *args: strong(*args).sum(), argnums=(0, 1, 2)
  )(text, gate, content)
  assert np.isfinite(value)
  for grad in grads:
    assert np.isfinite(grad).all()


def test_everything_left_out_is_finite():
  none = np.zeros_like(WHERE)

  def value(text, parts):
    sims = text_gated.similarities(text, parts)
    gate = text_gated.gate(sims, SOFT, none)
    return (
      text_gated.weak(sims, SHARP, none, MIX)
      + text_gated.strong(text, gate, parts)
    ).sum()

  got, grads = jax.value_and_grad(value, argnums=(0, 1))(TEXT, PARTS)
  assert np.isfinite(got)
  for grad in grads:
    assert np.isfinite(grad).all()


@pytest.mark.parametrize(
  'strong', [text_gated.strong, text_gated.strong_of_many]
)
def test_no_array_of_all_pairs_and_features_is_formed(strong):
  """Or 240 captions and clips with 588 patches would need 69 GB."""
  queries, videos, parts, width = 11, 13, 7, 32
  shapes = (
    (queries, width),
    (queries, videos, parts),
    (videos, parts, width),
  )
  args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
  text = str(jax.make_jaxpr(strong)(*args))
  assert f'[{queries},{videos},{parts},{width}]' not in text
  assert f'[{queries},{videos},{width}]' not in text
  assert f'[{queries},{videos}]' in text or f'[{videos},{queries}]' in text
