# SPDX-License-Identifier: Apache-2.0
"""Ranking objectives on a square similarity matrix."""

import jax
import jax.numpy as jnp

from vidret_jax.ops import masks

Array = jax.Array


def max_margin(
  sim_qv: Array,
  margin: float,
  *,
  fix_norm: bool = True,
  where: Array | None = None,
) -> Array:
  """Bidirectional max-margin loss over all negatives.

    1 / (2 n (n-1)) sum_{i != j} relu(mu - S_ii + S_ij) + relu(mu - S_ii + S_ji)

  No mining and no temperature; true matches off the diagonal are negatives.
  Upstream `MaxMarginRankingLoss`.

  Args:
    sim_qv: [n, n], matched pairs on the diagonal.
    margin: mu.
    fix_norm: leave the diagonal out, as above. False: the original MoEE form,
      with the diagonal (a constant) and a mean over 2 n^2 terms.
    where: bool [n], valid rows; the others influence nothing.

  Returns:
    A scalar; zero where no pair is left (upstream: NaN).
  """
  n = sim_qv.shape[0]
  if sim_qv.shape != (n, n):
    raise ValueError(
      f'max_margin needs matched pairs on a diagonal: expected a square '
      f'matrix, found {tuple(sim_qv.shape)}.'
    )
  if where is None:
    where = jnp.ones((n,), bool)
  pairs = masks.pair_mask(where)
  # Masked here, too, so that nothing non-finite reaches the gradient.
  sim_qv = jnp.where(pairs, sim_qv, 0)
  matched = jnp.diagonal(sim_qv)
  cost = jax.nn.relu(margin - matched[:, None] + sim_qv) + jax.nn.relu(
    margin - matched[None, :] + sim_qv
  )
  if fix_norm:
    pairs = pairs & ~jnp.eye(n, dtype=bool)
  return masks.masked_mean(cost, pairs, (0, 1)) / 2
