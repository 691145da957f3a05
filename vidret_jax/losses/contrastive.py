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
  n = logits_qv.shape[0]
  if logits_qv.shape != (n, n):
    raise ValueError(
      'symmetric_cross_entropy needs matched pairs on a diagonal: expected a '
      f'square matrix, found {tuple(logits_qv.shape)}.'
    )
  if where is None:
    where = jnp.ones((n,), bool)
  # An excluded pair meets only itself, at zero: nothing that is not finite
  # reaches the gradient.
  alone = jnp.where(jnp.eye(n, dtype=bool), 0.0, -jnp.inf)
  logits_qv = jnp.where(masks.pair_mask(where), logits_qv, alone)
  own = jnp.diagonal(logits_qv)
  cost = jax.nn.logsumexp(logits_qv, 1) + jax.nn.logsumexp(logits_qv, 0)
  return masks.masked_mean(cost - 2 * own, where, 0) / 2


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
