# SPDX-License-Identifier: Apache-2.0
"""Text-gated interaction: a sentence weighs the parts of each video.

EERCF's TIB (Tian et al., AAAI 2024, section 3.2): softmax over the similarities
of the sentence and the parts (frames or patches), a weighted sum of contents,
and the cosine with the sentence. It has no parameters, and no [q, v, d] array
is formed: with s.c_f the similarities of the contents and G the Gram matrix of
a video's contents,

  s . n(sum_f w_f c_f) = (sum_f w_f s.c_f) / sqrt(w' G w)
"""

import jax
import jax.numpy as jnp

Array = jax.Array

# Of the squared length of a pooled vector; a bound on the length of 1e-6.
_TINY = 1e-12


def similarities(text_qd: Array, parts_vfd: Array, precision=None) -> Array:
  """[q, d] x [v, f, d] -> [q, v, f], accumulated in at least float32."""
  wide = jnp.promote_types(text_qd.dtype, jnp.float32)
  # The parts come first: on CPUs XLA is up to thirty times slower at
  # qd,vfd->qvf, most of all for a single sentence.
  sim_vfq = jnp.einsum(
    'vfd,qd->vfq',
    parts_vfd,
    text_qd.astype(parts_vfd.dtype),
    precision=precision,
    preferred_element_type=wide,
  )
  return jnp.moveaxis(sim_vfq, -1, 0)


def gate(sim_qvf: Array, temperature: float, where: Array | None) -> Array:
  """softmax over the parts; `where` bool [v, f] leaves parts out.

  A video of which no part is left keeps all of them, instead of NaN.
  """
  logits = sim_qvf / temperature
  if where is not None:
    logits = jnp.where(_some(where), logits, -jnp.inf)
  return jax.nn.softmax(logits, axis=-1)


def _some(where):
  return where | ~where.any(-1, keepdims=True)


def weak(
  sim_qvf: Array,
  temperature: float,
  where: Array | None = None,
  mix: Array | None = None,
) -> Array:
  """Similarities averaged by their own softmax: [q, v].

  Args:
    sim_qvf: [q, v, f].
    temperature: of the softmax.
    where: bool [v, f], parts that take part.
    mix: [f, f], right-multiplied to the weights (`frame_logit_weight`).
  """
  weights = gate(sim_qvf, temperature, where)
  if mix is not None:
    weights = weights @ mix
  if where is not None:
    # The mix gives weight to parts that the gate leaves out.
    sim_qvf = jnp.where(_some(where), sim_qvf, 0)
  return (sim_qvf * weights).sum(-1)


def strong(
  text_qd: Array,
  weights_qvf: Array,
  content_vfd: Array,
  precision=None,
) -> Array:
  """Cosine of a sentence with the contents that it weighs: [q, v].

  Args:
    text_qd: [q, d], unit.
    weights_qvf: [q, v, f].
    content_vfd: [v, f, d].
    precision: of the products.
  """
  sims = similarities(text_qd, content_vfd, precision)
  gram = jnp.einsum(
    'vfd,vgd->vfg',
    content_vfd,
    content_vfd,
    precision=precision,
    preferred_element_type=sims.dtype,
  )
  square = jnp.einsum(
    'qvf,vfg,qvg->qv', weights_qvf, gram, weights_qvf, precision=precision
  )
  top = (weights_qvf * sims).sum(-1)
  return top * jax.lax.rsqrt(jnp.maximum(square, _TINY))


def strong_of_many(
  text_qd: Array,
  weights_qvf: Array,
  content_vfd: Array,
  precision=None,
) -> Array:
  """`strong` of many parts, as patches are: without their Gram matrix.

  Forms the pooled vectors [q, d] of one video at a time.
  """

  def one(pair):
    weights_qf, content_fd = pair
    pooled = jnp.dot(
      weights_qf,
      content_fd.astype(weights_qf.dtype),
      precision=precision,
    )
    square = (pooled * pooled).sum(-1)
    top = (text_qd * pooled).sum(-1)
    return top * jax.lax.rsqrt(jnp.maximum(square, _TINY))

  by_video = jax.lax.map(one, (jnp.moveaxis(weights_qvf, 1, 0), content_vfd))
  return by_video.T
