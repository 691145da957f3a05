# SPDX-License-Identifier: Apache-2.0
"""Contrastive objectives over the pairs of a batch; row i belongs to column i.

Rows that a mask excludes are neither positives nor negatives, whatever they
hold.
"""

import jax
import jax.numpy as jnp

from vidret_jax.ops import masks

Array = jax.Array


def symmetric_cross_entropy(
  logits_qv: Array, where: Array | None = None
) -> Array:
  """Mean of the cross entropies over rows and over columns.

    (CE(S) + CE(S^T)) / 2,  CE(S) = -mean_i log softmax_j(S_ij) at j = i

  Args:
    logits_qv: [n, n], already divided by the temperature.
    where: bool [n], valid pairs.

  Returns:
    A scalar, zero where no pair is valid.
  """
  logits_qv, where = _pairs('symmetric_cross_entropy', logits_qv, where)
  own = jnp.diagonal(logits_qv)
  cost = jax.nn.logsumexp(logits_qv, 1) + jax.nn.logsumexp(logits_qv, 0)
  return masks.masked_mean(cost - 2 * own, where, 0) / 2


def both_ways(scores_qv: Array, where: Array | None = None) -> Array:
  """One softmax over the row and the column of each pair, mean over pairs.

    mean_i [ logsumexp(R_i0 .. R_i,n-1, R_0i .. R_n-1,i) - R_ii ]

  The true pair is in both and counts twice, which the paper's formula does not
  have; other queries of the same video are negatives. VideoCL of ReLoCLNet
  (Zhang et al., SIGIR 2021, https://arxiv.org/abs/2105.06247).

  Args:
    scores_qv: [n, n], without a temperature.
    where: bool [n], valid pairs.

  Returns:
    A scalar: log 2 for a single pair, zero where no pair is valid.
  """
  scores_qv, where = _pairs('both_ways', scores_qv, where)
  own = jnp.diagonal(scores_qv)
  rows, columns = (jax.nn.logsumexp(scores_qv, axis) for axis in (1, 0))
  return masks.masked_mean(jnp.logaddexp(rows, columns) - own, where, 0)


def _pairs(name: str, scores_qv: Array, where: Array | None):
  """Scores among valid pairs, and which those are; shapes are checked.

  An excluded pair meets only itself, at zero: nothing that is not finite
  reaches the gradient.
  """
  n = scores_qv.shape[0]
  if scores_qv.shape != (n, n):
    raise ValueError(
      f'{name} needs matched pairs on a diagonal: expected a square matrix, '
      f'found {tuple(scores_qv.shape)}.'
    )
  if where is None:
    where = jnp.ones((n,), bool)
  alone = jnp.where(jnp.eye(n, dtype=bool), 0.0, -jnp.inf)
  return jnp.where(masks.pair_mask(where), scores_qv, alone), where


def info_nce(
  sim_qv: Array,
  labels_qv: Array,
  *,
  temperature: float = 0.03,
  eps: float = 1e-6,
  where: Array | None = None,
) -> Array:
  """Every further positive of a row against the row's negatives.

    p_ij = e_ij / (e_ij + sum_{k in N_i} e_ik + eps),  e = exp(S / temperature)
    mean_i mean_{j in P_i, j != i} -log p_ij

  Other positives are not in the denominator. In logarithms throughout: e
  reaches 3e14. InfoNCE of S2VS (https://github.com/gkordo/s2vs), which HAP-VR
  keeps (Liu et al., ACM MM 2024, https://arxiv.org/abs/2407.15566).

  Args:
    sim_qv: [n, n], without the temperature.
    labels_qv: [n, n], above zero where a column is a positive of the row.
    temperature: of the exponentials.
    eps: added to the denominator.
    where: bool [n], valid rows and columns.

  Returns:
    A scalar. Rows without a further positive do not count; it is zero where no
    row counts.

  Raises:
    ValueError: if the shapes do not fit together.
  """
  n = sim_qv.shape[0]
  if sim_qv.shape != (n, n) or labels_qv.shape != (n, n):
    raise ValueError(
      'info_nce needs a square matrix of similarities and labels of the same '
      f'shape, found {tuple(sim_qv.shape)} and {tuple(labels_qv.shape)}.'
    )
  pairs = jnp.ones((n, n), bool) if where is None else masks.pair_mask(where)
  wide = jnp.promote_types(sim_qv.dtype, jnp.float32)
  # Masked here, too, so that nothing non-finite reaches the gradient.
  logits = jnp.where(pairs, sim_qv.astype(wide), 0) / temperature
  positive = labels_qv > 0
  negatives = jnp.where(pairs & ~positive, logits, -jnp.inf)
  least = jnp.full((n, 1), jnp.log(eps), wide)
  rest = jax.nn.logsumexp(jnp.concatenate([negatives, least], 1), 1)
  others = pairs & positive & ~jnp.eye(n, dtype=bool)
  cost = masks.masked_mean(jax.nn.softplus(rest[:, None] - logits), others, 1)
  return masks.masked_mean(cost, others.any(1), 0)


def frame(
  clips: Array,
  query: Array,
  match: Array,
  mask: Array,
  where: Array | None = None,
) -> Array:
  """Clips inside a moment against the other clips of the same video.

  The Jensen-Shannon bound of the mutual information of a query and the clips
  of its moment, with r_l = clip_l . query, raw:

    mean_i [ mean over clips outside of ( softplus(r_l) - log 2 )
             - mean over clips inside of ( log 2 - softplus(-r_l) ) ]

  A mean over no clips is zero. FrameCL of ReLoCLNet (Zhang et al., SIGIR 2021,
  https://arxiv.org/abs/2105.06247), of one stream.

  Args:
    clips: [b, t, d].
    query: [b, d], pooled for this stream.
    match: bool [b, t], clips of the moment.
    mask: bool [b, t], valid clips; others are no negatives.
    where: bool [b], valid rows.

  Returns:
    A scalar, zero where no row is valid.

  Raises:
    ValueError: if the shapes do not fit together.
  """
  b, t = clips.shape[:2]
  found = [tuple(x.shape) for x in (query, match, mask)]
  if found != [(b, clips.shape[2]), (b, t), (b, t)]:
    raise ValueError(
      f'frame got clips {tuple(clips.shape)} with query, match and mask '
      f'{found}: expected clips [b, t, d], query [b, d], match and mask [b, t].'
    )
  if where is None:
    where = jnp.ones((b,), bool)
  match, mask = (x.astype(bool) & where[:, None] for x in (match, mask))
  clips = masks.zero_rows(clips, match | mask)
  query = masks.zero_rows(query, where)
  # A product and a sum rather than a dot: in float32 on every device.
  wide = jnp.promote_types(clips.dtype, jnp.float32)
  raw = (clips.astype(wide) * query[:, None].astype(wide)).sum(-1)
  inside = jnp.log(2.0) - jax.nn.softplus(-raw)
  outside = jax.nn.softplus(raw) - jnp.log(2.0)
  cost = masks.masked_mean(outside, mask & ~match, 1)
  cost = cost - masks.masked_mean(inside, match, 1)
  return masks.masked_mean(cost, where, 0)


def pearson(text: Array, video: Array, where: Array | None = None) -> Array:
  """How far each feature's correlation over the batch is from one.

    sum_d ( (1/n) sum_i z(text)_id z(video)_id - 1 )^2

  with z the standard score of a column over the batch by its unbiased
  deviation; upstream divides by n here although the deviation took n - 1. This
  is the diagonal of DRL's channel decorrelation (Wang et al., 2022), whose
  other part EERCF weighs with zero.

  Args:
    text: [n, d].
    video: [n, d].
    where: bool [n], valid pairs.

  Returns:
    A scalar. Columns that are constant over the batch correlate with nothing;
    so do all columns of a single pair.
  """
  if where is None:
    where = jnp.ones(text.shape[:1], bool)
  rows = jnp.maximum(where.sum(), 1).astype(text.dtype)

  def standard(x):
    x = jnp.where(where[:, None], x, 0)
    mean = x.sum(0) / rows
    x = jnp.where(where[:, None], x - mean, 0)
    var = (x * x).sum(0) / jnp.maximum(rows - 1, 1)
    # What the rounding of the mean leaves of a constant column is no deviation.
    varies = var > (rows * jnp.finfo(x.dtype).eps * mean) ** 2
    return jnp.where(varies, x / jnp.sqrt(jnp.where(varies, var, 1)), 0)

  correlation = (standard(text) * standard(video)).sum(0) / rows
  return jnp.sum((correlation - 1) ** 2)
