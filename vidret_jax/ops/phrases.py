# SPDX-License-Identifier: Apache-2.0
"""Similarity of phrases and videos, the phrase choosing among the frames.

The weighted sum of frames is never formed: its product with the phrase is the
weighted sum of products that the weights came from, and its length follows
from the Gram matrix of the frames. Per phrase and video that is f + f^2
multiplications in place of f d, and no array of width d.
"""

import jax
import jax.numpy as jnp

from vidret_jax.ops import similarity

Array = jax.Array

FUSIONS = ('embed', 'sim')
# Upstream's `l2norm` and the square in its `cosine_sim`.
EPS, EPS_SQUARE = 1e-10, 1e-18


def unit(x: Array) -> Array:
  """x / sqrt(|x|^2 + 1e-18): the factor of x in upstream's cosine."""
  return x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + EPS_SQUARE)


def gram(frames: Array, precision=None) -> Array:
  """Inner products of the frames of each video: [v, t, d] -> [v, t, t]."""
  return jnp.einsum(
    'vtd,vsd->vts',
    frames,
    frames,
    precision=precision,
    preferred_element_type=jnp.promote_types(frames.dtype, jnp.float32),
  )


def similarities(
  phrases: Array,
  phrase_mask: Array,
  frames: Array,
  frame_mask: Array,
  frame_gram: Array,
  *,
  sigma: float,
  fusion: str = 'embed',
  dtype=None,
  precision=None,
) -> Array:
  """Mean similarity of a caption's phrases with a video.

    c_t = cos(frame_t, phrase);  w = softmax_t(sigma * unit([c_t]_+))
    embed: cos(sum_t w_t frame_t, phrase);  sim: sum_t w_t c_t

  The frames that a mask excludes have no weight, a caption without phrases has
  similarity zero. HGR (Chen et al., CVPR 2020), section 3.3; upstream
  `MultilevelEncoder.generate_phrase_scores`.

  Args:
    phrases: [q, p, d], made by `unit`.
    phrase_mask: bool [q, p].
    frames: [v, t, d].
    frame_mask: bool [v, t].
    frame_gram: [v, t, t], `gram` of the frames.
    sigma: sharpness of the choice.
    fusion: 'embed' or 'sim'.
    dtype: operand type of the large product.
    precision: of the products.

  Returns:
    [q, v].
  """
  if fusion not in FUSIONS:
    raise ValueError(f'fusion={fusion!r}: expected one of {FUSIONS}.')
  v, t, d = frames.shape
  flat = frames.reshape(v * t, d)
  square = jnp.diagonal(frame_gram, axis1=1, axis2=2)
  inverse = jax.lax.rsqrt(square + EPS_SQUARE)[..., None]
  real = frame_mask[..., None]

  def slot(phrase):
    # Queries are the last axis: sums over frames then run along them.
    dots = similarity.dot_all(flat, phrase, dtype=dtype, precision=precision)
    dots = dots.reshape(v, t, -1)
    cosines = dots * inverse
    chosen = jnp.where(real, jax.nn.relu(cosines), 0)
    chosen = similarity.l2_normalize(chosen, axis=1, eps=EPS)
    highest = jax.lax.stop_gradient(chosen.max(1, keepdims=True))
    weights = jnp.where(real, jnp.exp(sigma * (chosen - highest)), 0)
    if fusion == 'sim':
      total = jnp.maximum(weights.sum(1), jnp.finfo(weights.dtype).tiny)
      return jnp.sum(weights * cosines, 1) / total
    # The sum of the weights cancels.
    mixed = jnp.einsum('vst,vtq->vsq', frame_gram, weights, precision=precision)
    length = jnp.sum(mixed * weights, 1)
    return jnp.sum(weights * dots, 1) * jax.lax.rsqrt(
      jnp.maximum(length, EPS * EPS)
    )

  def add(total, xs):
    phrase, real = xs
    # Slots that no query of the block fills cost nothing.
    new = jax.lax.cond(
      real.any(),
      lambda: jnp.where(real, slot(phrase), 0),
      lambda: jnp.zeros_like(total),
    )
    return total + new, None

  count = phrase_mask.sum(1)
  start = jnp.zeros((v, len(phrases)), frame_gram.dtype)
  slots = (jnp.moveaxis(phrases, 1, 0), phrase_mask.T)
  total, _ = jax.lax.scan(add, start, slots)
  return (total / jnp.maximum(count, 1)).T
