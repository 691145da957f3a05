# SPDX-License-Identifier: Apache-2.0
"""Tests of losses/contrastive.py against the formulas in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.losses import contrastive

pytestmark = pytest.mark.usefixtures('quick_compiler')

RNG = np.random.default_rng(0)
LOGITS = (10 * RNG.normal(size=(6, 6))).astype('f')
TEXT, VIDEO = RNG.normal(size=(2, 6, 7)).astype('f')
WHERE = np.array([True, False, True, True, False, True])


@functools.cache
def slope(loss, argnums=0):
  return jax.jit(jax.value_and_grad(loss, argnums=argnums))


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


def both_ways(s):
  s, total = np.float64(s), 0.0
  for i in range(len(s)):
    together = np.concatenate([s[i], s[:, i]])
    total += np.log(np.exp(together).sum()) - s[i, i]
  return total / len(s)


SQUARE = {
  contrastive.symmetric_cross_entropy: symmetric,
  contrastive.both_ways: both_ways,
}


def test_symmetric_cross_entropy():
  got = contrastive.symmetric_cross_entropy(jnp.asarray(LOGITS))
  np.testing.assert_allclose(got, symmetric(LOGITS), rtol=1e-5)


def test_large_logits_stay_finite():
  s = 1e4 * LOGITS
  for objective in SQUARE:
    loss, grad = slope(objective)(s)
    assert np.isfinite(loss) and np.isfinite(grad).all()


@pytest.mark.parametrize('objective', SQUARE)
def test_excluded_pairs_influence_nothing(objective):
  rest = np.where(WHERE[:, None] & WHERE, LOGITS, np.nan)
  small = LOGITS[np.ix_(WHERE, WHERE)]
  loss = slope(objective)
  got, grad = loss(jnp.asarray(rest), jnp.asarray(WHERE))
  want, want_grad = loss(jnp.asarray(small))
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_allclose(got, SQUARE[objective](small), rtol=1e-5)
  full = np.zeros_like(LOGITS)
  full[np.ix_(WHERE, WHERE)] = want_grad
  np.testing.assert_allclose(grad, full, atol=1e-7)


def test_no_pair_is_no_loss():
  none = np.zeros(6, bool)
  for loss, args in (
    (contrastive.symmetric_cross_entropy, (LOGITS,)),
    (contrastive.both_ways, (LOGITS,)),
    (contrastive.pearson, (TEXT, VIDEO)),
  ):
    value, grads = slope(loss)(*args, where=none)
    assert np.isfinite(value)
    assert not np.asarray(grads).any()
  for objective in SQUARE:
    assert not objective(LOGITS, none)


@pytest.mark.parametrize('objective', SQUARE)
def test_not_square(objective):
  with pytest.raises(ValueError, match=r'square matrix, found \(6, 5\)'):
    objective(LOGITS[:, :5])


def test_both_ways():
  got = contrastive.both_ways(jnp.asarray(LOGITS))
  np.testing.assert_allclose(got, both_ways(LOGITS), rtol=1e-5)


def test_a_single_pair_meets_itself_twice():
  loss, grad = slope(contrastive.both_ways)(LOGITS[:1, :1])
  np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
  np.testing.assert_allclose(grad, [[0]], atol=1e-7)


def test_pearson():
  got = contrastive.pearson(jnp.asarray(TEXT), jnp.asarray(VIDEO))
  np.testing.assert_allclose(got, pearson(TEXT, VIDEO), rtol=1e-5)


def test_pearson_divides_by_all_rows():
  """As upstream: a perfect correlation is (n - 1) / n, not one."""
  got = contrastive.pearson(jnp.asarray(TEXT), jnp.asarray(TEXT))
  np.testing.assert_allclose(got, TEXT.shape[1] / 36, rtol=1e-4)


def test_excluded_rows_do_not_correlate():
  text, video = (np.where(WHERE[:, None], x, np.nan) for x in (TEXT, VIDEO))
  loss = slope(contrastive.pearson, argnums=(0, 1))
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
  loss = slope(contrastive.pearson, argnums=(0, 1))
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
  loss = slope(contrastive.pearson)
  value, grad = loss(TEXT[:1], VIDEO[:1])
  assert value == TEXT.shape[1]
  assert not np.asarray(grad).any()


CLIPS = RNG.normal(size=(6, 9, 7)).astype('f')
QUERY = RNG.normal(size=(6, 7)).astype('f')
LENGTHS = np.array([9, 4, 6, 3, 9, 1])
MASK = np.arange(9) < LENGTHS[:, None]
# Row 3 has no clip outside of its moment, row 5 only one clip.
SPANS = np.array([[2, 5], [3, 3], [0, 2], [0, 2], [7, 8], [0, 0]])
MATCH = (np.arange(9) >= SPANS[:, :1]) & (np.arange(9) <= SPANS[:, 1:])


def frame(clips, query, match, mask):
  total = 0.0
  for rows, q, inside, valid in zip(np.float64(clips), query, match, mask):
    raw = rows @ q
    positive = (np.log(2) - np.logaddexp(0, -raw))[inside]
    outside = valid & ~inside
    negative = (np.logaddexp(0, -raw) + raw - np.log(2))[outside]
    total += negative.sum() / max(outside.sum(), 1)
    total -= positive.sum() / max(inside.sum(), 1)
  return total / len(clips)


def test_frame():
  got = contrastive.frame(CLIPS, QUERY, MATCH, MASK)
  want = frame(CLIPS, QUERY, MATCH, MASK)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_frame_of_large_products_is_finite():
  loss, grads = slope(contrastive.frame, argnums=(0, 1))(
    1e3 * CLIPS, 1e3 * QUERY, MATCH, MASK
  )
  assert np.isfinite(loss) and all(np.isfinite(g).all() for g in grads)


def test_excluded_clips_and_rows_influence_no_frame():
  used = MASK & WHERE[:, None]
  clips = np.where(used[..., None], CLIPS, np.nan)
  query = np.where(WHERE[:, None], QUERY, np.inf)
  mask = MASK | ~WHERE[:, None]
  loss = slope(contrastive.frame, argnums=(0, 1))
  got, grads = loss(clips, query, MATCH, mask, WHERE)
  small = [x[WHERE] for x in (CLIPS, QUERY, MATCH, MASK)]
  want, want_grads = loss(*small)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  for grad, want_grad in zip(grads, want_grads):
    np.testing.assert_allclose(grad[WHERE], want_grad, rtol=1e-5, atol=1e-7)
    assert not np.asarray(grad)[~WHERE].any()
  assert not np.asarray(grads[0])[~used].any()


def test_no_row_has_no_frame():
  loss, grad = slope(contrastive.frame)(
    np.nan * CLIPS, QUERY, MATCH, MASK, np.zeros(6, bool)
  )
  assert loss == 0 and not grad.any()


def test_frame_in_half_precision_is_summed_in_float32():
  clips, query = (jnp.asarray(x, jnp.bfloat16) for x in (CLIPS, QUERY))
  got = contrastive.frame(clips, query, MATCH, MASK)
  assert got.dtype == jnp.float32
  clips, query = (np.asarray(x, np.float64) for x in (clips, query))
  np.testing.assert_allclose(got, frame(clips, query, MATCH, MASK), rtol=1e-5)


def test_shapes_of_frame_are_checked():
  with pytest.raises(ValueError, match=r'clips \(6, 9, 7\) with .*\(6, 8\)'):
    contrastive.frame(CLIPS, QUERY, MATCH[:, :8], MASK)


LABELS = np.eye(6, dtype='f')
LABELS[0, 2] = LABELS[2, 0] = LABELS[2, 5] = LABELS[5, 2] = 1
SIMS = RNG.uniform(0, 1, (6, 6)).astype('f')


def info_nce(s, labels, temperature):
  e, rows = np.exp(np.float64(s) / temperature), []
  for i, y in enumerate(labels):
    rest = e[i, y == 0].sum() + 1e-6
    others = [j for j in np.flatnonzero(y) if j != i]
    if others:
      rows.append(
        np.mean([-np.log(e[i, j] / (e[i, j] + rest)) for j in others])
      )
  return np.mean(rows)


@pytest.mark.parametrize('temperature', [0.03, 0.5])
def test_info_nce(temperature):
  loss = jax.jit(
    jax.value_and_grad(contrastive.info_nce), static_argnames='temperature'
  )
  got, grad = loss(SIMS, LABELS, temperature=temperature)
  np.testing.assert_allclose(got, info_nce(SIMS, LABELS, temperature), 1e-5)
  step = RNG.normal(size=SIMS.shape)
  up, down = (
    info_nce(SIMS + s * step, LABELS, temperature) for s in (1e-6, -1e-6)
  )
  np.testing.assert_allclose((grad * step).sum(), (up - down) / 2e-6, rtol=1e-3)
  assert not np.diagonal(grad).any()


def test_info_nce_without_rows_columns_or_negatives():
  loss = slope(contrastive.info_nce)
  pairs = WHERE[:, None] & WHERE
  got, grad = loss(np.where(pairs, SIMS, np.nan), LABELS, where=WHERE)
  small = np.ix_(WHERE, WHERE)
  want = info_nce(SIMS[small], LABELS[small], 0.03)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  assert np.isfinite(grad).all() and not np.asarray(grad)[~pairs].any()
  for labels in (LABELS, np.ones((6, 6), 'f')):
    got, grad = loss(SIMS, labels, where=WHERE & False)
    assert got == 0 and not grad.any()
  # A row of positives only, beside 1e-6.
  got, grad = loss(SIMS, np.ones((6, 6), 'f'))
  assert 0 <= got < 1e-5 and np.isfinite(grad).all()
  # Clips without a twin do not count.
  got, grad = loss(SIMS, np.eye(6, dtype='f'))
  assert got == 0 and not grad.any()


def test_info_nce_names_wrong_shapes():
  with pytest.raises(ValueError, match=r'found \(6, 5\) and \(6, 6\)'):
    contrastive.info_nce(SIMS[:, :5], LABELS)
