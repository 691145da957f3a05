# SPDX-License-Identifier: Apache-2.0
"""Similarities of all queries against all items, as plain matrix products."""

import jax
import jax.numpy as jnp

Array = jax.Array


def l2_normalize(x: Array, axis: int = -1, eps: float = 1e-12) -> Array:
  """x / max(|x|, eps), with a finite gradient at zero.

  The bound acts on the squared norm, whose gradient is defined everywhere; in
  half precision the norm is taken in float32.
  """
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  square = jnp.sum(wide * wide, axis, keepdims=True)
  return (wide / jnp.sqrt(jnp.maximum(square, eps * eps))).astype(x.dtype)


def dot_all(a: Array, b: Array, *, dtype=None, precision=None) -> Array:
  """[q, e] x [v, e] -> [q, v], accumulated in at least float32."""
  wide = jnp.promote_types(a.dtype, jnp.float32)
  return jax.lax.dot_general(
    a.astype(dtype or a.dtype),
    b.astype(dtype or b.dtype),
    (((1,), (1,)), ((), ())),
    precision=precision,
    preferred_element_type=wide,
  )


def expand(per_expert: Array, sizes: tuple[int, ...]) -> Array:
  """Repeats column m `sizes[m]` times: [..., m] -> [..., sum(sizes)]."""
  return jnp.concatenate(
    [
      jnp.broadcast_to(per_expert[..., i : i + 1], per_expert.shape[:-1] + (n,))
      for i, n in enumerate(sizes)
    ],
    axis=-1,
  )


def available_mixture(
  text: Array,
  weights: Array,
  video: Array,
  available: Array,
  sizes: tuple[int, ...],
  *,
  dtype=None,
  precision=None,
) -> Array:
  """Mixture over the experts a *candidate* has, renormalised per pair.

  S[q, v] = sum_m w[q,m] a[v,m] <t_m[q], v_m[v]> / sum_m w[q,m] a[v,m]

  Two matrix products; the [q, v, m] weights are never formed (upstream
  `sharded_cross_view_inner_product` forms them). An item without any expert
  has no score: its column is NaN.

  Args:
    text: [q, e], the experts' unit embeddings side by side, sum(sizes) = e.
    weights: [q, m] mixture weights.
    video: [v, e].
    available: bool [v, m].
    sizes: width of each expert's embedding.
    dtype: operand type of the large product.
    precision: of both products.

  Returns:
    [q, v].
  """
  have = available.astype(weights.dtype)
  num = dot_all(
    text * expand(weights, sizes),
    video * expand(have, sizes),
    dtype=dtype,
    precision=precision,
  )
  den = dot_all(weights, have, precision=precision)
  return num / den


def own_mixture(
  text: Array,
  weights: Array,
  own: Array,
  video: Array,
  sizes: tuple[int, ...],
  *,
  dtype=None,
  precision=None,
) -> Array:
  """The retired 2019 rule, which leaks the answer through the query.

  Mixture weights and text embeddings are masked by the experts of the video
  that the caption *belongs to*, and candidates are not masked at all. Numbers
  made with it are an overestimate; upstream's README says so too.

  Args:
    text: [q, e].
    weights: [q, m].
    own: bool [q, m], experts of each caption's own video.
    video: [v, e].
    sizes: width of each expert's embedding.
    dtype: operand type of the product.
    precision: of the product.

  Returns:
    [q, v].
  """
  have = own.astype(weights.dtype)
  share = weights * have
  share = share / share.sum(-1, keepdims=True)
  return dot_all(
    text * expand(share, sizes), video, dtype=dtype, precision=precision
  )
