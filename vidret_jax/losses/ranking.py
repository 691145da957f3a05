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


def sampled(
  sim_qv: Array,
  ranks: Array,
  *,
  kind: str = 'hinge',
  margin: float = 0.1,
  where: Array | None = None,
) -> Array:
  """Each row's pair against one negative, chosen by its rank in the row.

    hinge: 1/n sum_i max(0, margin + S_ij - S_ii)
    lse:   1/n sum_i log(1 + exp(S_ij - S_ii))

  with j the column of rank r_i in row i by decreasing score, where the true
  pair always has rank 0. The order takes no gradient; other queries of the
  same video are negatives. For the other direction call it with the transpose.
  A hinge passes a gradient of one at zero. `get_neg_scores` and
  `get_ranking_loss` of XML (Lei et al., ECCV 2020,
  https://arxiv.org/abs/2001.09099) and ReLoCLNet.

  Args:
    sim_qv: [n, n], matched pairs on the diagonal.
    ranks: int [n], from 1, the hardest negative, to the number of valid rows
      less one; see `draw_ranks`.
    kind: 'hinge' or 'lse'.
    margin: of the hinge.
    where: bool [n], valid rows; the others influence nothing.

  Returns:
    A scalar; zero where fewer than two rows are valid (upstream fails).

  Raises:
    ValueError: on an unknown kind or arrays of other shapes.
  """
  n = sim_qv.shape[0]
  if kind not in ('hinge', 'lse'):
    raise ValueError(f"sampled: kind={kind!r}, expected 'hinge' or 'lse'.")
  if sim_qv.shape != (n, n) or ranks.shape != (n,):
    raise ValueError(
      'sampled needs matched pairs on a diagonal and a rank per row: expected '
      f'a square matrix, found {tuple(sim_qv.shape)}, and [{n}], found '
      f'{tuple(ranks.shape)}.'
    )
  if where is None:
    where = jnp.ones((n,), bool)
  sim_qv = sim_qv.astype(jnp.promote_types(sim_qv.dtype, jnp.float32))
  # So that nothing that is not finite reaches the gradient.
  sim_qv = jnp.where(masks.pair_mask(where), sim_qv, 0)
  values = jnp.where(where, jax.lax.stop_gradient(sim_qv), -jnp.inf)
  values = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, values)
  order = jnp.argsort(-values, axis=1)
  rows = where.sum()
  # One valid row has no negative: its rank is clipped to that of itself.
  ranks = jnp.minimum(ranks, jnp.maximum(rows - 1, 0))
  chosen = jnp.take_along_axis(order, ranks[:, None], 1)
  gap = jnp.take_along_axis(sim_qv, chosen, 1)[:, 0] - jnp.diagonal(sim_qv)
  if kind == 'hinge':
    cost = jnp.where(margin + gap >= 0, margin + gap, 0)
  else:
    cost = jax.nn.softplus(gap)
  return masks.masked_mean(cost, where & (rows > 1), 0)


def draw_ranks(
  key: Array, where: Array, pool: Array | int | None = None
) -> Array:
  """Ranks of the negatives of `sampled`, uniform among those of valid rows.

  Args:
    key: of the draw.
    where: bool [n], valid rows; all of them are negatives of each other.
    pool: draw only among so many hardest negatives; None: among all. It may be
      traced, for a schedule, and larger than there are negatives.

  Returns:
    int32 [n], 1 to min(pool, valid rows - 1), and 1 where that is empty.
  """
  last = where.sum().astype(jnp.int32) - 1
  if pool is not None:
    last = jnp.minimum(last, pool)
  last = jnp.maximum(last, 1)
  return jax.random.randint(key, where.shape, 1, last + 1, jnp.int32)
