# SPDX-License-Identifier: Apache-2.0
"""Losses that choose their pairs from the batch, by score and by relevance.

Row i and column i of a matrix of scores are a pair. Other captions may fit a
clip as well: relevance says which pairs are no negatives (RAN), and which are
further positives (RANP). Falcon, Serra, Lanz, ICIAP 2022,
https://arxiv.org/abs/2203.08688; the softmax with positives is from the code
of its journal version. Hinges pass a gradient of one at zero, and whatever is
chosen by size is one entry, of equal ones the first, as in the original.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from vidret_jax.losses import contrastive
from vidret_jax.ops import masks
from vidret_jax.ops import relevance as relevance_lib

Array = jax.Array

_CHOICES = dict(
  loss=('triplet', 'softmax'),
  direction=('bi', 'v2t', 't2v'),
  pairing=('published', 'corrected'),
)


@dataclasses.dataclass(frozen=True)
class Mining:
  """Which pairs a loss is made of.

  Names of the papers: HN and NoHN are `hardest` True and False; RAN has a
  `threshold`; RANP has `positives` as well, and with `negatives=False` only
  these ("RAP only"); NCE is `loss='softmax'`.

  Attributes:
    loss: 'triplet' (hinges) or 'softmax' (cross entropy, both directions).
    hardest: hinges of the `topk` hardest negatives of each clip and caption;
      False: of all. No meaning with 'softmax'.
    semi_hard: leave out negatives that score above the true pair; of the
      hinges against further positives none is left out (as upstream).
    topk: how many are the hardest.
    direction: 'v2t' (clips choose among captions, upstream's `i2t`), 't2v'
      (upstream's `t2i`) or 'bi', their sum.
    margin: between the true pair and a negative.
    threshold: relevance from which a pair is no negative; None: relevance is
      not used and all other pairs are negatives (upstream's threshold of 1).
    positives: add the part in which pairs above the threshold are positives.
    negatives: keep the part in which only the true pair is positive.
    margin_pos: between the hardest further positive and a negative.
    temperature: of the softmax.
    pairing: which pairs the softmax takes as further positives; see `mine`.
  """

  loss: str = 'triplet'
  hardest: bool = True
  semi_hard: bool = False
  topk: int = 1
  direction: str = 'bi'
  margin: float = 0.2
  threshold: float | None = None
  positives: bool = False
  negatives: bool = True
  margin_pos: float = 0.2
  temperature: float = 0.05
  pairing: str = 'published'

  def __post_init__(self):
    for key, known in _CHOICES.items():
      self._need(getattr(self, key) in known, key, f'one of {known}')
    for key in ('hardest', 'semi_hard', 'positives', 'negatives'):
      value = getattr(self, key)
      self._need(isinstance(value, bool), key, 'True or False')
    for key in ('margin', 'margin_pos'):
      self._need(_number(getattr(self, key)), key, 'a number')
    right = _number(self.temperature) and self.temperature > 0
    self._need(right, 'temperature', 'a number above 0')
    whole = isinstance(self.topk, int) and not isinstance(self.topk, bool)
    self._need(whole and self.topk >= 1, 'topk', 'a whole number from 1')
    reach = self.threshold
    right = reach is None or (_number(reach) and 0 < reach < 1)
    wanted = 'a number between 0 and 1, or None to leave relevance unused'
    self._need(right, 'threshold', wanted)
    if self.positives:
      self._need(reach is not None, 'threshold', 'a number with positives=True')
      wanted = '1 with positives=True, where a hinge has one positive'
      self._need(self.topk == 1, 'topk', wanted)
    else:
      self._need(self.negatives, 'negatives', 'True, or positives=True')
    if self.loss == 'softmax':
      wanted = "with loss='softmax', which has all pairs and both directions"
      self._need(not self.semi_hard, 'semi_hard', f'False {wanted}')
      self._need(self.topk == 1, 'topk', f'1 {wanted}')
      self._need(self.direction == 'bi', 'direction', f"'bi' {wanted}")
      right = self.positives or reach is None
      wanted = "None with loss='softmax' unless positives=True"
      self._need(right, 'threshold', wanted)

  def _need(self, right, key, wanted):
    if not right:
      found = getattr(self, key)
      raise ValueError(f'mining.{key}={found!r}: expected {wanted}.')


def _number(x) -> bool:
  real = isinstance(x, int | float) and not isinstance(x, bool)
  return real and math.isfinite(x)


def mine(
  sim_qv: Array,
  relevance_qv: Array | None,
  options: Mining,
  where: Array | None = None,
) -> dict[str, Array]:
  """The parts of the loss; the loss is their sum.

  Triplet, for clips choosing among captions (captions among clips alike), with
  S_ij the score of clip i and caption j, R relevance, t the threshold:

    negatives: [margin     + S_ij - S_ii]+  over j != i with R_ij < t
    positives: [margin_pos + S_ij - P_i ]+  over j != i with R_ij < t,
      P_i = min of S_ij over j != i with R_ij >= t, or 1 where there is none

  reduced to the mean over clips of the largest (the mean of the `topk`
  largest), or, without `hardest`, the sum over B (B - 1). What is left out
  costs nothing but still counts in these numbers. Upstream
  `ContrastiveLoss`, `ContrastiveLossHardPositives`.

  Softmax, without positives: the cross entropies of both directions, added.
  With them, half of that and a part for pairs of the other positives:

    -1/2B sum_i (log p(caption a_i | clip i) + log p(clip i | caption b_i))

  with b_i the hardest further positive among the captions of clip i, a_j that
  among the clips of caption j. So upstream's `NormSoftmaxRANP` takes a clip's
  number for a caption's in its first term; `pairing='corrected'` has
  log p(caption i | clip a_i) there. Without any other positive, upstream picks
  an arbitrary pair, this the true one.

  Args:
    sim_qv: [b, b], captions are rows, clips columns.
    relevance_qv: [b, b] likewise; may be None without a threshold.
    options: which parts, and how.
    where: bool [b], valid pairs; others influence nothing and do not count.

  Returns:
    `negatives` and `positives`, scalars, as far as they apply. All are zero,
    and so are gradients, for a batch of one valid pair or none.
  """
  n = sim_qv.shape[0]
  if sim_qv.shape != (n, n):
    raise ValueError(
      'mining needs matched pairs on a diagonal: expected a square matrix of '
      f'scores, found {tuple(sim_qv.shape)}.'
    )
  if where is None:
    where = jnp.ones((n,), bool)
  if where.shape != (n,):
    raise ValueError(
      f'where has shape {tuple(where.shape)}, expected ({n},): one boolean '
      'per pair.'
    )
  pairs = masks.pair_mask(where)
  sim_qv = sim_qv.astype(jnp.promote_types(sim_qv.dtype, jnp.float32))
  # So that nothing that is not finite reaches the gradient.
  sim_qv = jnp.where(pairs, sim_qv, 0)
  other = pairs & ~jnp.eye(n, dtype=bool)
  positive = jnp.zeros((n, n), bool)
  if options.threshold is not None:
    if relevance_qv is None or relevance_qv.shape != (n, n):
      found = None if relevance_qv is None else tuple(relevance_qv.shape)
      raise ValueError(
        f'mining.threshold={options.threshold} needs the relevance of every '
        f'pair: expected [{n}, {n}], found {found}.'
      )
    reached = relevance_lib.at_least(relevance_qv, options.threshold)
    positive = other & reached
  if options.loss == 'softmax':
    return _softmax(sim_qv, positive, options, where)
  parts = {}
  # Rows choose among columns.
  if options.direction in ('bi', 't2v'):
    parts['t2v'] = _hinges(sim_qv, positive, other, options, where)
  if options.direction in ('bi', 'v2t'):
    parts['v2t'] = _hinges(sim_qv.T, positive.T, other, options, where)
  return jax.tree.map(lambda *x: sum(x), *parts.values())


def _hinges(sim, positive, other, options, where) -> dict[str, Array]:
  """Triplet parts of rows that choose among columns."""
  own = jnp.diagonal(sim)[:, None]
  negative = other & ~positive
  out = {}
  if options.negatives:
    kept = negative & (sim <= own) if options.semi_hard else negative
    cost = _hinge(options.margin + sim - own, kept)
    out['negatives'] = _reduce(cost, options, where)
  if options.positives:
    nearest, found = _hardest(sim, positive)
    value = jnp.take_along_axis(sim, nearest[:, None], 1)
    cost = options.margin_pos + sim - jnp.where(found[:, None], value, 1)
    out['positives'] = _reduce(_hinge(cost, negative), options, where)
  return out


def _hinge(x: Array, where: Array) -> Array:
  """max(x, 0) where valid, with a gradient of one at zero; else 0."""
  return jnp.where(where & (x >= 0), x, 0)


def _hardest(sim: Array, positive: Array) -> tuple[Array, Array]:
  """Column of each row's positive of lowest score; whether there is one."""
  masked = jax.lax.stop_gradient(jnp.where(positive, sim, jnp.inf))
  return jnp.argmin(masked, 1), positive.any(1)


def _reduce(cost: Array, options: Mining, where: Array) -> Array:
  """Mean over rows of the largest costs, or the mean over all pairs."""
  rows = where.sum().astype(cost.dtype)
  if not options.hardest:
    return cost.sum() / jnp.maximum(rows * (rows - 1), 1)
  # Never negative: columns that are not valid do not change the sum.
  largest, _ = jax.lax.top_k(cost, min(len(cost), options.topk))
  count = rows * jnp.minimum(rows, options.topk)
  return largest.sum() / jnp.maximum(count, 1)


def _softmax(sim_qv, positive, options, where) -> dict[str, Array]:
  """Cross entropies of the true pairs and of further positives."""
  logits = sim_qv / options.temperature
  cross_entropy = contrastive.symmetric_cross_entropy(logits, where)
  if not options.positives:
    return {'negatives': 2 * cross_entropy}
  diagonal = jnp.arange(len(logits))

  def pick(sim, positive):
    index, found = _hardest(sim, positive)
    return jnp.where(found, index, diagonal)

  clip = pick(sim_qv, positive)  # a_j of the formula, of each caption.
  caption = pick(sim_qv.T, positive.T)  # b_i, of each clip.
  pairs = masks.pair_mask(where)
  alone = jnp.where(jnp.eye(len(logits), dtype=bool), 0.0, -jnp.inf)
  logits = jnp.where(pairs, logits, alone)
  of_clip = jax.nn.logsumexp(logits, 0)
  of_caption = jax.nn.logsumexp(logits, 1)
  if options.pairing == 'published':
    first = logits[clip, diagonal] - of_clip
  else:
    first = logits[diagonal, clip] - of_clip[clip]
  second = logits[caption, diagonal] - of_caption[caption]
  out = {'negatives': cross_entropy} if options.negatives else {}
  cost = -(first + second) / 2
  return {**out, 'positives': masks.masked_mean(cost, where, 0)}
