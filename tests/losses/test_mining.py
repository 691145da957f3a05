# SPDX-License-Identifier: Apache-2.0
"""Tests of losses/mining.py against loops over pairs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.losses import contrastive, mining, ranking
from vidret_jax.losses.mining import Mining

N = 6
RNG = np.random.default_rng(0)
SIMS = RNG.uniform(-0.4, 0.95, (N, N)).astype('f')
# With values at the thresholds used below, and a clip (a caption) to which no
# other caption (clip) is relevant.
RELEVANCE = RNG.choice([0, 0.1, 0.25, 0.5, 0.75], (N, N)).astype('f')
np.fill_diagonal(RELEVANCE, 1)
RELEVANCE[:, 1] = np.eye(N)[1]
RELEVANCE[2] = np.eye(N)[2]

TRIPLETS = [
  dict(hardest=hardest, semi_hard=semi, direction=direction, **more)
  for hardest, semi, direction, more in itertools.product(
    (True, False),
    (True, False),
    ('bi', 'v2t', 't2v'),
    (
      dict(),
      dict(threshold=0.5),
      dict(threshold=0.1, positives=True, margin_pos=0.3),
      dict(threshold=0.5, positives=True, negatives=False),
    ),
  )
] + [
  dict(topk=3),
  dict(topk=2, threshold=0.25, semi_hard=True, direction='v2t'),
  dict(topk=99, margin=0.5),
]
SOFTMAXES = [
  dict(loss='softmax'),
  dict(loss='softmax', temperature=0.3),
  dict(loss='softmax', threshold=0.25, positives=True),
  dict(loss='softmax', threshold=0.5, positives=True, pairing='corrected'),
  dict(loss='softmax', threshold=0.5, positives=True, negatives=False),
]


def by_hand(sim_qv, relevance_qv, o, size=N):
  """The formulas, with clips as rows, in float64."""
  s, r = sim_qv.T.astype(np.float64), relevance_qv.T
  tau = 2.0 if o.threshold is None else o.threshold
  if o.loss == 'softmax':
    return softmax_by_hand(s, r, tau, o)
  parts = dict(negatives=0.0, positives=0.0)
  for way in ('v2t', 't2v'):
    if o.direction not in ('bi', way):
      continue
    if way == 't2v':
      s, r = s.T, r.T
    costs = dict(
      negatives=np.zeros((size, size)), positives=np.zeros((size, size))
    )
    for i in range(size):
      others = [j for j in range(size) if j != i]
      fit = [s[i, j] for j in others if r[i, j] >= tau]
      for j in others:
        if r[i, j] >= tau:
          continue
        if not o.semi_hard or s[i, j] <= s[i, i]:
          costs['negatives'][i, j] = max(0, o.margin + s[i, j] - s[i, i])
        hardest = min(fit) if fit else 1
        costs['positives'][i, j] = max(0, o.margin_pos + s[i, j] - hardest)
    for name, cost in costs.items():
      if o.hardest:
        k = min(o.topk, size)
        parts[name] += np.sort(cost, 1)[:, -k:].sum() / (k * size)
      else:
        parts[name] += cost.sum() / (size * (size - 1))
  return {k: v for k, v in parts.items() if getattr(o, k)}


def softmax_by_hand(s, r, tau, o):
  size = len(s)
  p = s / o.temperature
  p, q = (p - np.log(np.exp(p).sum(a, keepdims=True)) for a in (1, 0))
  cross = -(np.trace(p) + np.trace(q)) / size
  if not o.positives:
    return dict(negatives=cross)
  first = second = 0.0
  for i in range(size):
    clips = [k for k in range(size) if k != i and r[k, i] >= tau]
    captions = [k for k in range(size) if k != i and r[i, k] >= tau]
    a = min(clips, key=lambda k: s[k, i]) if clips else i
    b = min(captions, key=lambda k: s[i, k]) if captions else i
    first += p[i, a] if o.pairing == 'published' else p[a, i]
    second += q[i, b]
  parts = dict(negatives=cross / 2, positives=-(first + second) / (2 * size))
  return {k: v for k, v in parts.items() if getattr(o, k)}


def total(sim, relevance, options, where=None):
  return sum(mining.mine(sim, relevance, options, where).values())


def loss_and_grad(sim, relevance, options, where=None):
  sim, relevance = jnp.asarray(sim), jnp.asarray(relevance)
  return jax.value_and_grad(total)(sim, relevance, options, where)


@pytest.mark.parametrize('kind', ['triplet', 'softmax'])
def test_loops_over_pairs(kind):
  for given in TRIPLETS if kind == 'triplet' else SOFTMAXES:
    options = Mining(**given)
    got = mining.mine(jnp.asarray(SIMS), jnp.asarray(RELEVANCE), options)
    want = by_hand(SIMS, RELEVANCE, options)
    assert got.keys() == want.keys(), given
    for name in want:
      np.testing.assert_allclose(
        got[name], want[name], rtol=2e-6, err_msg=str((name, given))
      )


@pytest.mark.parametrize('given', TRIPLETS[6:10] + TRIPLETS[-3:] + SOFTMAXES)
def test_gradient_is_the_slope(given):
  options = Mining(**given)
  _, grad = loss_and_grad(SIMS, RELEVANCE, options)
  want, step = np.zeros((N, N)), 1e-5
  for at in np.ndindex(N, N):
    moved = np.zeros((N, N))
    moved[at] = step
    up, down = (
      sum(by_hand(SIMS + d, RELEVANCE, options).values())
      for d in (moved, -moved)
    )
    want[at] = (up - down) / (2 * step)
  np.testing.assert_allclose(grad, want, atol=1e-5 * (1 + np.abs(want).max()))


@pytest.mark.parametrize('given', TRIPLETS[2::7] + TRIPLETS[-3:] + SOFTMAXES)
def test_excluded_pairs_influence_nothing(given):
  options = Mining(**given)
  where = np.array([True, False, True, True, False, True])
  valid = where[:, None] & where
  kept = np.ix_(where, where)
  got, grad = loss_and_grad(
    np.where(valid, SIMS, np.nan),
    np.where(valid, RELEVANCE, np.nan),
    options,
    jnp.asarray(where),
  )
  want, want_grad = loss_and_grad(SIMS[kept], RELEVANCE[kept], options)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_allclose(grad[kept], want_grad, rtol=1e-5, atol=1e-7)
  assert np.isfinite(grad).all() and not np.asarray(grad)[~valid].any()


@pytest.mark.parametrize('given', [*TRIPLETS[2::9], dict(topk=3), *SOFTMAXES])
def test_one_pair_or_none_has_no_loss(given):
  options = Mining(**given)
  for rows in (0, 1):
    where = np.arange(N) < rows
    padded = np.where(where[:, None] & where, 0.3, np.nan).astype('f')
    loss, grad = loss_and_grad(padded, padded, options, jnp.asarray(where))
    assert loss == 0 and not grad.any()


@pytest.mark.parametrize('given', [TRIPLETS[2], TRIPLETS[26], SOFTMAXES[2]])
def test_a_batch_of_one_has_no_loss(given):
  """Upstream divides by zero where all negatives count."""
  one = np.full((1, 1), 0.3, 'f')
  loss, grad = loss_and_grad(one, one, Mining(**given))
  assert loss == 0 and not grad.any()


@pytest.mark.parametrize('given', TRIPLETS[::7] + SOFTMAXES)
def test_order_of_the_pairs_means_nothing(given):
  options = Mining(**given)
  order = np.random.default_rng(1).permutation(N)
  moved = np.ix_(order, order)
  want, want_grad = loss_and_grad(SIMS, RELEVANCE, options)
  got, grad = loss_and_grad(SIMS[moved], RELEVANCE[moved], options)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_allclose(grad, want_grad[moved], rtol=1e-5, atol=1e-7)


def test_of_equal_scores_the_first_is_chosen():
  equal, rows = np.full((4, 4), 0.5, 'f'), np.arange(4)
  first = np.array([1, 0, 0, 0])
  _, grad = loss_and_grad(equal, equal, Mining(direction='t2v'))
  want = -np.eye(4) / 4
  want[rows, first] += 0.25
  np.testing.assert_allclose(grad, want)
  # Two of three: not split over the three.
  _, grad = loss_and_grad(equal, equal, Mining(direction='t2v', topk=2))
  want = -np.eye(4) / 4
  for row, chosen in zip(rows, ((1, 2), (0, 2), (0, 1), (0, 1))):
    want[row, list(chosen)] += 0.125
  np.testing.assert_allclose(grad, want)
  # The hardest of equal positives: captions 0, 1, 2 fit the same clips.
  fit = np.zeros((4, 4), 'f')
  fit[:3, :3] = 1
  options = Mining(
    direction='t2v', threshold=0.5, positives=True, negatives=False
  )
  _, grad = loss_and_grad(equal, fit, options)
  want = np.zeros((4, 4))
  want[:3, 3] = 0.25
  want[rows[:3], first[:3]] = -0.25
  # Caption 3 fits no other clip: its fallback of 1 is out of reach.
  np.testing.assert_allclose(grad, want)
  options = Mining(
    loss='softmax', threshold=0.5, positives=True, pairing='corrected'
  )
  _, grad = loss_and_grad(equal, fit, options)
  assert grad[0, 1] < 0 < grad[1, 2]


def test_the_edge_of_a_hinge_has_the_slope_of_its_upper_side():
  """Unlike that of `relu`: PyTorch's `clamp` is not flat at its bound."""
  sims = np.array([[0.5, 0.25], [-2, 0.5]], 'f')
  options = Mining(margin=0.25, direction='t2v', hardest=False)
  _, grad = loss_and_grad(sims, sims, options)
  np.testing.assert_allclose(grad, [[-0.5, 0.5], [0, 0]])


def test_without_another_positive_the_hinge_is_against_one():
  sims = np.array([[0.9, 0.85], [0.1, 0.9]], 'f')
  options = Mining(threshold=0.5, positives=True, negatives=False, margin=9.0)
  parts = mining.mine(jnp.asarray(sims), jnp.eye(2), options)
  assert list(parts) == ['positives']
  # 0.2 + 0.85 - 1, once for the caption and once for the clip.
  np.testing.assert_allclose(parts['positives'], 2 * 0.05 / 2, rtol=1e-5)


def test_semi_hard_leaves_the_positive_part_alone():
  given = dict(threshold=0.5, positives=True)
  hard, semi = (
    mining.mine(
      jnp.asarray(SIMS), jnp.asarray(RELEVANCE), Mining(**given, semi_hard=s)
    )
    for s in (False, True)
  )
  assert semi['positives'] == hard['positives'] > 0
  assert semi['negatives'] < hard['negatives']


def test_relevance_below_the_threshold_by_rounding_only_counts():
  sims = jnp.asarray(SIMS)
  at = jnp.where(jnp.eye(N, dtype=bool), 1, np.float32(0.8) - 1e-7)
  loss = total(sims, at, Mining(threshold=0.8))
  assert loss == 0


def test_other_losses_are_special_cases():
  sims = jnp.asarray(SIMS)
  got = total(sims, None, Mining(hardest=False, margin=0.3))
  np.testing.assert_allclose(got, 2 * ranking.max_margin(sims, 0.3), rtol=1e-6)
  got = total(sims, None, Mining(loss='softmax', temperature=0.1))
  want = 2 * contrastive.symmetric_cross_entropy(sims / 0.1)
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_scores_in_half_precision_are_mined_in_float32():
  sims = jnp.asarray(SIMS, jnp.bfloat16)
  got = total(sims, None, Mining())
  assert got.dtype == jnp.float32
  want = total(sims.astype(jnp.float32), None, Mining())
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
  'given, message',
  [
    (dict(loss='hinge'), "mining.loss='hinge': expected one of"),
    (dict(direction='i2t'), "mining.direction='i2t': expected one of"),
    (dict(pairing='right'), "mining.pairing='right'"),
    (dict(topk=0), 'mining.topk=0: expected a whole number from 1'),
    (dict(topk=1.5), 'mining.topk=1.5'),
    (dict(margin=float('nan')), 'mining.margin=nan: expected a number'),
    (dict(margin_pos='0.2'), "mining.margin_pos='0.2'"),
    (dict(temperature=0), 'mining.temperature=0: expected a number above 0'),
    (dict(hardest=None), 'mining.hardest=None: expected True or False'),
    (dict(threshold=1.0), 'mining.threshold=1.0: .* or None to leave'),
    (dict(threshold=-0.1), 'mining.threshold=-0.1'),
    (dict(positives=True), 'mining.threshold=None: .* positives=True'),
    (
      dict(positives=True, threshold=0.4, topk=2),
      'mining.topk=2: expected 1 with positives=True',
    ),
    (dict(negatives=False), 'mining.negatives=False: .* or positives=True'),
    (dict(loss='softmax', semi_hard=True), 'mining.semi_hard=True'),
    (dict(loss='softmax', topk=2), 'mining.topk=2'),
    (dict(loss='softmax', direction='v2t'), "mining.direction='v2t'"),
    (dict(loss='softmax', threshold=0.1), 'mining.threshold=0.1: .* positives'),
  ],
)
def test_wrong_options_are_named(given, message):
  with pytest.raises(ValueError, match=message):
    Mining(**given)


def test_wrong_arrays_are_named():
  sims, options = jnp.asarray(SIMS), Mining(threshold=0.5)
  with pytest.raises(ValueError, match=r'square matrix of scores.*\(6, 5\)'):
    mining.mine(sims[:, :5], None, Mining())
  with pytest.raises(ValueError, match=r'threshold=0.5 needs .*found None'):
    mining.mine(sims, None, options)
  with pytest.raises(ValueError, match=r'expected \[6, 6\], found \(5, 6\)'):
    mining.mine(sims, sims[:5], options)
  with pytest.raises(ValueError, match=r'where has shape \(4,\), expected'):
    mining.mine(sims, None, Mining(), jnp.ones(4, bool))
