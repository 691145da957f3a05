# SPDX-License-Identifier: Apache-2.0
"""Boolean masks, True = valid, and reductions that obey them."""

import jax
import jax.numpy as jnp

Array = jax.Array


def zero_rows(x: Array, row_mask: Array) -> Array:
  """Sets the rows of x that the mask excludes to zero, whatever they hold.

  Args:
    x: [b, ...]; excluded rows may hold NaN (upstream marks missing experts so).
    row_mask: bool [b].
  """
  mask = row_mask.reshape(row_mask.shape + (1,) * (x.ndim - row_mask.ndim))
  return jnp.where(mask, x, jnp.zeros((), x.dtype))


def masked_mean(
  x: Array, where: Array | None, axis: int | tuple[int, ...]
) -> Array:
  """Mean of the valid entries, zero where there is none.

  Unlike `jnp.mean(where=)` it is finite, with a finite gradient, when every
  entry is excluded.
  """
  if where is None:
    return x.mean(axis)
  where = jnp.broadcast_to(where, x.shape)
  total = jnp.where(where, x, jnp.zeros((), x.dtype)).sum(axis)
  return total / jnp.maximum(where.sum(axis), 1).astype(x.dtype)


def pair_mask(row_mask: Array) -> Array:
  """bool [n, n]: both ends valid, from bool [n]."""
  return row_mask[:, None] & row_mask[None, :]
