# SPDX-License-Identifier: Apache-2.0
"""Similarities pushed to their ends, and held within their bounds.

Of the objective of S2VS (Kordopatis-Zilos et al., 2023,
https://github.com/gkordo/s2vs), which HAP-VR keeps (Liu et al., ACM MM 2024,
https://arxiv.org/abs/2407.15566).
"""

import jax
import jax.numpy as jnp

from vidret_jax.ops import masks

Array = jax.Array

# What upstream takes for the hardest negative of a row that has none.
_NO_NEGATIVE = -100.0


def sshn(
  sim_qv: Array,
  labels_qv: Array,
  *,
  eps: float = 1e-3,
  where: Array | None = None,
) -> tuple[Array, Array]:
  """Self-similarity to one, and the hardest negative to zero.

    hard = mean_i -log max(1 - max_{j in N_i} S_ij, eps)
    self = mean_i -log max(S_ii, eps)

  The hardest negative is one entry, of equal ones the first; at eps there is
  still a gradient. `SSHNLoss` of S2VS.

  Args:
    sim_qv: [n, n], from 0 to 1, queries are rows.
    labels_qv: [n, n], above zero where a column is no negative of the row.
    eps: what the logarithms stop at.
    where: bool [n], valid clips; others influence nothing.

  Returns:
    Both parts, scalars; zero where no clip is valid. A row without a negative
    adds -log 101 to the first, as upstream.

  Raises:
    ValueError: if the shapes do not fit together.
  """
  n = sim_qv.shape[0]
  if sim_qv.shape != (n, n) or labels_qv.shape != (n, n):
    raise ValueError(
      'sshn needs a square matrix of similarities and labels of the same '
      f'shape, found {tuple(sim_qv.shape)} and {tuple(labels_qv.shape)}.'
    )
  if where is None:
    where = jnp.ones((n,), bool)
  pairs = masks.pair_mask(where)
  sim_qv = sim_qv.astype(jnp.promote_types(sim_qv.dtype, jnp.float32))
  sim_qv = jnp.where(pairs, sim_qv, 0)
  negative = pairs & ~(labels_qv > 0)
  held = jnp.where(negative, sim_qv, _NO_NEGATIVE)
  hardest = jnp.take_along_axis(held, held.argmax(1)[:, None], 1)[:, 0]
  parts = (1 - hardest, jnp.diagonal(sim_qv))
  return tuple(masks.masked_mean(_cost(x, eps), where, 0) for x in parts)


def _cost(x: Array, eps: float) -> Array:
  """-log x, which stops at eps; as PyTorch's `clamp`, with a slope there."""
  return -jnp.log(jnp.where(x >= eps, x, eps))


def overshoot(z: Array, where: Array | None = None) -> Array:
  """How far similarities lie outside of -1 to 1, summed: not a mean.

    sum max(0, -1 - z) + max(0, z - 1)

  `SimilarityRegularizationLoss` of S2VS.

  Args:
    z: any shape.
    where: bool, broadcast to z: places that count.

  Returns:
    A scalar.
  """
  z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
  if where is not None:
    z = jnp.where(where, z, 0)
  return (jax.nn.relu(-1 - z) + jax.nn.relu(z - 1)).sum()
