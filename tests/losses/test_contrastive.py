# SPDX-License-Identifier: Apache-2.0
"""Tests of losses/contrastive.py against the formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.losses import contrastive

RNG = np.random.default_rng(0)
LOGITS = (10 * RNG.normal(size=(6, 6))).astype('f')
TEXT, VIDEO = RNG.normal(size=(2, 6, 7)).astype('f')
WHERE = np.array([True, False, True, True, False, True])


def cross_entropy(s):
  s = np.float64(s)
  total = 0.0
  for i in range(len(s)):
    total -= s[i, i] - np.log(np.exp(s[i]).sum())
  return total / len(s)


def symmetric(s):
  return (cross_entropy(s) + cross_entropy(s.T)) / 2


def pearson(text, video):
  text, video = np.float64(text), np.float64(video)
  total = 0.0
  for d in range(text.shape[1]):
    z = [(x - x.mean()) / x.std(ddof=1) for x in (text[:, d], video[:, d])]
    total += (z[0] @ z[1] / len(text) - 1) ** 2
  return total


def test_symmetric_cross_entropy():
  got = contrastive.symmetric_cross_entropy(jnp.asarray(LOGITS))
  np.testing.assert_allclose(got, symmetric(LOGITS), rtol=1e-5)


def test_large_logits_stay_finite():
  s = 1e4 * LOGITS
  loss, grad = jax.value_and_grad(contrastive.symmetric_cross_entropy)(s)
  assert np.isfinite(loss) and np.isfinite(grad).all()


def test_excluded_pairs_influence_nothing():
  rest = np.where(WHERE[:, None] & WHERE, LOGITS, np.nan)
  small = LOGITS[np.ix_(WHERE, WHERE)]
  loss = jax.value_and_grad(contrastive.symmetric_cross_entropy)
  got, grad = loss(jnp.asarray(rest), jnp.asarray(WHERE))
  want, want_grad = loss(jnp.asarray(small))
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_allclose(got, symmetric(small), rtol=1e-5)
  full = np.zeros_like(LOGITS)
  full[np.ix_(WHERE, WHERE)] = want_grad
  np.testing.assert_allclose(grad, full, atol=1e-7)


def test_no_pair_is_no_loss():
  none = np.zeros(6, bool)
  for loss, args in (
    (contrastive.symmetric_cross_entropy, (LOGITS,)),
    (contrastive.pearson, (TEXT, VIDEO)),
  ):
    value, grads = jax.value_and_grad(loss)(*args, where=none)
    assert np.isfinite(value)
    assert not np.asarray(grads).any()
  assert not contrastive.symmetric_cross_entropy(LOGITS, none)


def test_not_square():
  with pytest.raises(ValueError, match=r'square matrix, found \(6, 5\)'):
    contrastive.symmetric_cross_entropy(LOGITS[:, :5])


def test_pearson():
  got = contrastive.pearson(jnp.asarray(TEXT), jnp.asarray(VIDEO))
  np.testing.assert_allclose(got, pearson(TEXT, VIDEO), rtol=1e-5)


def test_pearson_divides_by_all_rows():
  """As upstream: a perfect correlation is (n - 1) / n, not one."""
  got = contrastive.pearson(jnp.asarray(TEXT), jnp.asarray(TEXT))
  np.testing.assert_allclose(got, TEXT.shape[1] / 36, rtol=1e-4)


def test_excluded_rows_do_not_correlate():
  text, video = (np.where(WHERE[:, None], x, np.nan) for x in (TEXT, VIDEO))
  loss = jax.value_and_grad(contrastive.pearson, argnums=(0, 1))
  got, grads = loss(text, video, WHERE)
  want, want_grads = loss(TEXT[WHERE], VIDEO[WHERE])
  np.testing.assert_allclose(got, want, rtol=1e-5)
  np.testing.assert_allclose(got, pearson(TEXT[WHERE], VIDEO[WHERE]), rtol=1e-5)
  for grad, want_grad in zip(grads, want_grads):
    assert not np.asarray(grad)[~WHERE].any()
    np.testing.assert_allclose(grad[WHERE], want_grad, rtol=1e-4, atol=1e-5)


# The sums of three or six of the last two are rounded, so that the mean is
# another number than the constant.
@pytest.mark.parametrize('constant', [0.0, 0.9, 5.55])
@pytest.mark.parametrize('masked', [False, True])
def test_constant_columns_correlate_with_nothing(constant, masked):
  where = np.arange(6) < (3 if masked else 6)
  text, video = TEXT.copy(), VIDEO.copy()
  text[:, 1] = constant
  video[:, 4] = constant
  video[:, 1] = constant
  loss = jax.value_and_grad(contrastive.pearson, argnums=(0, 1))
  got, grads = loss(text, video, where)
  rest = [d for d in range(text.shape[1]) if d not in (1, 4)]
  want = pearson(text[where][:, rest], video[where][:, rest]) + 2
  np.testing.assert_allclose(got, want, rtol=1e-5)
  for grad in grads:
    assert np.isfinite(grad).all()
    assert not np.asarray(grad)[:, [1, 4]].any()


def test_small_deviations_still_correlate():
  """The guard of constant columns is far below what features vary by."""
  text, video = 1 + 1e-3 * TEXT, 0.5 - 1e-4 * VIDEO
  got = contrastive.pearson(jnp.asarray(text), jnp.asarray(video))
  np.testing.assert_allclose(got, pearson(text, video), rtol=1e-2)


def test_a_single_pair_is_finite():
  loss = jax.value_and_grad(contrastive.pearson)
  value, grad = loss(TEXT[:1], VIDEO[:1])
  assert value == TEXT.shape[1]
  assert not np.asarray(grad).any()
