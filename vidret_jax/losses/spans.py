# SPDX-License-Identifier: Apache-2.0
"""Objectives of the place of a moment in its video."""

import jax
import jax.numpy as jnp

from vidret_jax.ops import masks

Array = jax.Array


def boundary_cross_entropy(
  logits: Array, index: Array, where: Array | None = None
) -> Array:
  """Cross entropy of one boundary of a moment over the clips of its video.

  Called once for starts and once for ends; the sum of both is the localisation
  loss of XML (Lei et al., ECCV 2020, https://arxiv.org/abs/2001.09099) and
  ReLoCLNet.

  Args:
    logits: [b, t], very low (-1e10) where there is no clip.
    index: int [b], the clip of the boundary, from 0.
    where: bool [b], valid rows; the others influence nothing.

  Returns:
    A scalar, the mean over valid rows, zero where there is none.

  Raises:
    ValueError: if the shapes do not fit together.
  """
  if logits.ndim != 2 or index.shape != logits.shape[:1]:
    raise ValueError(
      f'boundary_cross_entropy got logits {tuple(logits.shape)} and index '
      f'{tuple(index.shape)}: expected [b, t] and [b].'
    )
  if where is None:
    where = jnp.ones(index.shape, bool)
  logits = masks.zero_rows(logits, where)
  index = masks.zero_rows(index, where)
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  own = jnp.take_along_axis(logits, index[:, None], 1)[:, 0]
  cost = jax.nn.logsumexp(logits, 1) - own
  return masks.masked_mean(cost, where, 0)
