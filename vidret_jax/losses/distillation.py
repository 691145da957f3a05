# SPDX-License-Identifier: Apache-2.0
"""Learning from the similarities of other models (TeachText, ICCV 2021)."""

import jax
import jax.numpy as jnp

from vidret_jax.ops import masks

Array = jax.Array


def teacher_similarity(text: Array, video: Array, *, precision=None) -> Array:
  """Mean over teachers of text . video, summed over experts.

  Neither mixture weights nor availability enter (upstream trainer).

  Args:
    text: [q, t, e], teacher t's expert embeddings of each caption, side by
      side.
    video: [v, t, e].
    precision: of the product.

  Returns:
    [q, v], without a gradient.
  """
  if text.ndim != 3 or text.shape[1:] != video.shape[1:]:
    raise ValueError(
      f'teacher_text {tuple(text.shape)} and teacher_video '
      f'{tuple(video.shape)}: expected [b, teachers, width] in both.'
    )
  total = jnp.einsum('qte,vte->qv', text, video, precision=precision)
  return jax.lax.stop_gradient(total / text.shape[1])


def smooth_l1(
  sim_qv: Array,
  target_qv: Array,
  *,
  beta: float = 1.0,
  where: Array | None = None,
) -> Array:
  """Huber-like distance of two similarity matrices, mean over valid pairs.

  0.5 d^2 / beta within beta, |d| - beta / 2 beyond: `torch.nn.SmoothL1Loss`.

  Args:
    sim_qv: [n, n] of the student.
    target_qv: [n, n] of the teachers.
    beta: where the square ends.
    where: bool [n], valid rows and columns.

  Returns:
    A scalar.
  """
  pairs = None if where is None else masks.pair_mask(where)
  gap = sim_qv - target_qv
  if pairs is not None:
    gap = jnp.where(pairs, gap, 0)
  size = jnp.abs(gap)
  cost = jnp.where(size < beta, 0.5 * gap * gap / beta, size - 0.5 * beta)
  return masks.masked_mean(cost, pairs, (0, 1))
