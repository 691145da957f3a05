# SPDX-License-Identifier: Apache-2.0
"""Which frames of two clips show the same, told from features of the frames."""

import jax
import jax.numpy as jnp

Array = jax.Array


def frame_labels(
  features: Array,
  rows: Array,
  columns: Array,
  *,
  top: float = 0.35,
  bottom: float = 0.35,
) -> tuple[Array, Array]:
  """The frames most and least like each frame, of pairs of clips.

  By the cosine of their features; of equal ones the first. HAP-VR (Liu et al.,
  ACM MM 2024, https://arxiv.org/abs/2407.15566) has features of DINO here.

  Args:
    features: [n, t, d], of the clips; any scale.
    rows: int [p], the clips whose frames are labelled.
    columns: int [p], the clips whose frames are chosen.
    top: k = max(round(t top), 1) most similar frames are positives, half
      rounded to even.
    bottom: share of the least similar ones, the negatives, likewise. Rounding
      can make a frame both.

  Returns:
    positive int32 [p, t, k], from the most similar on, and negative int32
    [p, t, l], from the least similar on: places of frames of the column's clip
    for each frame of the row's. Without a gradient.

  Raises:
    ValueError: unless both shares are above 0 and at most 1 together.
  """
  if not (top > 0 and bottom > 0 and top + bottom <= 1):
    raise ValueError(
      f'frame labels of the top {top} and the bottom {bottom}: expected shares '
      'above 0, at most 1 together.'
    )
  t = features.shape[1]
  features = jax.lax.stop_gradient(features)
  features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
  length = jnp.linalg.norm(features, axis=-1, keepdims=True)
  features = features / jnp.maximum(length, 1e-12)
  # Rounded products make ties of frames that are not alike.
  alike = jnp.einsum(
    'pid,pjd->pij',
    features[rows],
    features[columns],
    precision=jax.lax.Precision.HIGHEST,
  )
  # `top_k` takes the first of equal values, also of negated ones.
  _, positive = jax.lax.top_k(alike, max(round(t * top), 1))
  _, negative = jax.lax.top_k(-alike, max(round(t * bottom), 1))
  return positive, negative
