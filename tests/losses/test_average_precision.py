# SPDX-License-Identifier: Apache-2.0
"""Tests of losses/average_precision.py against loops in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.losses import average_precision, frame_labels

pytestmark = pytest.mark.usefixtures('quick_compiler')

RNG = np.random.default_rng(0)
N, T, SIGMA, RHO = 6, 7, 0.1, 0.3
SIMS = RNG.uniform(0, 1, (N, N)).astype('f')
SIMS[2, 4] = SIMS[2, 1]  # A tie of two positives.
LABELS = np.eye(N, dtype='f')
for pair in ((0, 3), (1, 4), (2, 5), (2, 1), (2, 4)):
  LABELS[pair] = LABELS[pair[::-1]] = 1
WHERE = np.array([True, False, True, True, True, True])
FRAMES = RNG.uniform(0.3, 0.5, (N, N, T, T)).astype('f')
FEATURES = RNG.normal(size=(N, T, 4)).astype('f')
SHARES = dict(top=0.4, bottom=0.3)


@functools.cache
def slope(loss, **options):
  options = dict(sigma=SIGMA, rho=RHO) | options
  return jax.jit(jax.value_and_grad(functools.partial(loss, **options)))


def bound(x):
  if x > 0:
    return 2 * x / SIGMA + 1
  return (1 + x / SIGMA) ** 2 if x > -SIGMA else 0.0


def precision(scores, positives, negatives):
  """Average precision of one query."""
  scores, terms = np.float64(scores), []
  for j in positives:
    better = 1 + RHO * sum(scores[k] > scores[j] for k in positives)
    worse = sum(bound(scores[k] - scores[j]) for k in negatives)
    terms.append(better / (better + worse))
  return np.mean(terms)


def over_videos(sims, labels):
  return 1 - np.mean(
    [
      precision(row, np.flatnonzero(y), np.flatnonzero(y == 0))
      for row, y in zip(sims, labels)
    ]
  )


def over_frames(sims, positive, negative):
  return 1 - np.mean(
    [
      precision(row, p, sorted(set(n) - set(p)))
      for frames in zip(sims, positive, negative)
      for row, p, n in zip(*frames)
    ]
  )


@functools.cache
def chosen_frames():
  """(positive, negative) of all pairs of clips of FEATURES, [n, n, t, k]."""
  rows, columns = np.divmod(np.arange(N * N), N)
  found = frame_labels.frame_labels(FEATURES, rows, columns, **SHARES)
  return [np.asarray(x).reshape(N, N, T, -1) for x in found]


def over_batch(sims, labels):
  pairs = np.nonzero(labels)
  return over_frames(sims[pairs], *(x[pairs] for x in chosen_frames()))


def test_quad_linear():
  x = np.array([-1, -0.11, -0.1, -0.04, 0, 1e-6, 0.3], 'f')
  got, grad = jax.vmap(
    jax.value_and_grad(lambda x: average_precision.quad_linear(x, SIGMA))
  )(x)
  np.testing.assert_allclose(got, [bound(v) for v in x], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(grad, [0, 0, 0, 12, 20, 20, 20], atol=1e-4)


def test_quad_linear_ap():
  loss, grad = slope(average_precision.quad_linear_ap)(SIMS, LABELS)
  np.testing.assert_allclose(loss, over_videos(SIMS, LABELS), rtol=1e-6)
  for at in ((0, 0), (2, 3), (5, 1)):
    step = np.zeros((N, N))
    step[at] = 1e-6
    up, down = (over_videos(SIMS + s, LABELS) for s in (step, -step))
    np.testing.assert_allclose(grad[at], (up - down) / 2e-6, rtol=1e-3)


def test_a_few_queries_at_a_time(monkeypatch):
  want = slope(average_precision.quad_linear_ap)(SIMS, LABELS)
  # Four queries, then the two that are left.
  monkeypatch.setattr(average_precision, '_HELD', 4 * N * N)
  got = slope(average_precision.quad_linear_ap, sigma=SIGMA)(SIMS, LABELS)
  for x, y in zip(got, want):
    np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8)


def test_excluded_videos_influence_nothing():
  loss = slope(average_precision.quad_linear_ap)
  pairs = WHERE[:, None] & WHERE
  got, grad = loss(np.where(pairs, SIMS, np.nan), LABELS, where=WHERE)
  small = np.ix_(WHERE, WHERE)
  np.testing.assert_allclose(
    got, over_videos(SIMS[small], LABELS[small]), rtol=1e-6
  )
  want = np.zeros_like(SIMS)
  want[small] = loss(SIMS[small], LABELS[small])[1]
  np.testing.assert_allclose(grad, want, rtol=1e-5, atol=1e-8)
  assert loss(SIMS, LABELS, where=WHERE & False)[0] == 0


def test_a_row_without_a_positive_does_not_count():
  labels = np.where(WHERE[:, None], LABELS, 0)
  loss = slope(average_precision.quad_linear_ap)
  want = over_videos(SIMS[WHERE], labels[WHERE])
  np.testing.assert_allclose(loss(SIMS, labels)[0], want, rtol=1e-6)
  assert loss(SIMS, 0 * labels)[0] == 0


ROWS, COLUMNS = np.array([0, 2, 3, 2]), np.array([0, 1, 0, 5])
POSITIVE = RNG.permuted(np.tile(np.arange(T), (4, T, 1)), axis=2)[:, :, :3]
NEGATIVE = RNG.permuted(np.tile(np.arange(T), (4, T, 1)), axis=2)[:, :, :4]


def test_frame_ap():
  """Also of frames that are both positive and negative."""
  sims = FRAMES[ROWS, COLUMNS]
  assert (NEGATIVE[..., None] == POSITIVE[..., None, :]).any()
  loss = slope(average_precision.frame_ap)
  got, grad = loss(sims, POSITIVE, NEGATIVE)
  want = over_frames(sims, POSITIVE, NEGATIVE)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  step = RNG.normal(size=sims.shape)
  up, down = (
    over_frames(sims + s * step, POSITIVE, NEGATIVE) for s in (1e-7, -1e-7)
  )
  np.testing.assert_allclose((grad * step).sum(), (up - down) / 2e-7, rtol=1e-3)
  real = np.array([True, False, True, True])
  held = np.where(real[:, None, None], sims, np.nan)
  got, grad = loss(held, POSITIVE, NEGATIVE, where=real)
  want = over_frames(sims[real], POSITIVE[real], NEGATIVE[real])
  np.testing.assert_allclose(got, want, rtol=1e-6)
  assert np.isfinite(grad).all() and not np.asarray(grad)[1].any()
  assert loss(held, POSITIVE, NEGATIVE, where=real & False)[0] == 0


def test_frames_of_a_batch():
  """Five pairs at a time: several parts, and places for many more."""
  loss = slope(average_precision.batch_frame_ap, held=5, **SHARES)
  got, grad = loss(FRAMES, FEATURES, LABELS)
  np.testing.assert_allclose(got, over_batch(FRAMES, LABELS), rtol=1e-6)
  step = RNG.normal(size=FRAMES.shape)
  up, down = (over_batch(FRAMES + s * step, LABELS) for s in (1e-7, -1e-7))
  np.testing.assert_allclose((grad * step).sum(), (up - down) / 2e-7, rtol=1e-3)
  assert not np.asarray(grad)[LABELS == 0].any()


def test_any_number_of_labelled_pairs():
  loss = slope(average_precision.batch_frame_ap, held=5, **SHARES)
  everything, nothing = np.ones((N, N), 'f'), np.zeros((N, N), 'f')
  got, _ = loss(FRAMES, FEATURES, everything)
  want = over_batch(FRAMES, everything)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  got, grad = loss(FRAMES, FEATURES, nothing)
  assert got == 0 and not grad.any()


def test_excluded_frames_influence_nothing():
  loss = slope(average_precision.batch_frame_ap, held=5, **SHARES)
  where = WHERE[::-1].copy()
  where[0] = False  # The clip that fills unused places.
  pairs = (where[:, None] & where)[:, :, None, None]
  got, grad = loss(
    np.where(pairs, FRAMES, np.nan),
    np.where(where[:, None, None], FEATURES, np.nan),
    LABELS,
    where=where,
  )
  want = over_batch(FRAMES, LABELS * pairs[..., 0, 0])
  np.testing.assert_allclose(got, want, rtol=1e-6)
  assert np.isfinite(grad).all()
  assert not np.where(pairs, 0, grad).any()


def test_half_precision_is_summed_in_float32():
  half = jnp.asarray(SIMS, jnp.bfloat16)
  got, _ = slope(average_precision.quad_linear_ap)(half, LABELS)
  want = over_videos(np.asarray(half, np.float64), LABELS)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, rtol=1e-5)
  half = jnp.asarray(FRAMES, jnp.bfloat16)
  loss = slope(average_precision.batch_frame_ap, held=512, **SHARES)
  got, grad = loss(half, FEATURES, LABELS)
  want = over_batch(np.asarray(half, np.float64), LABELS)
  assert got.dtype == jnp.float32 and grad.dtype == jnp.bfloat16
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_groups_of_a_batch():
  """Each group of its own pairs, however many they are."""
  labels = np.stack([LABELS, np.ones_like(LABELS)])
  sims, features = np.stack([FRAMES, FRAMES[::-1]]), np.stack([FEATURES] * 2)
  loss = functools.partial(
    average_precision.batch_frame_ap, sigma=SIGMA, rho=RHO, held=5, **SHARES
  )
  groups = jax.jit(jax.vmap(jax.value_and_grad(loss)))
  for got, *alone in zip(zip(*groups(sims, features, labels)), sims, labels):
    want = slope(average_precision.batch_frame_ap, held=5, **SHARES)(
      alone[0], FEATURES, alone[1]
    )
    for x, y in zip(got, want):
      np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-8)


def test_wrong_shapes_are_named():
  with pytest.raises(ValueError, match=r'found \(6, 5\) and \(6, 6\)'):
    average_precision.quad_linear_ap(SIMS[:, :5], LABELS)
  with pytest.raises(ValueError, match=r'\[n, tq, k\], found .*\(3, 7, 3\)'):
    average_precision.frame_ap(FRAMES[ROWS, COLUMNS], POSITIVE[:3], NEGATIVE)
  with pytest.raises(ValueError, match=r'expected \(6, 6, 7, 7\) and \(6, 6\)'):
    average_precision.batch_frame_ap(FRAMES[:5], FEATURES, LABELS)
