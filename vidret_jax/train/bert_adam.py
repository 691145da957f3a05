# SPDX-License-Identifier: Apache-2.0
"""BertAdam, in single and in half precision.

The optimiser of CLIP4Clip and of the systems built on it, EERCF among them
(`modules/optimization.py`, class BertAdam). Upstream keeps the matrices of
CLIP as float16 and gives the optimiser these very tensors, so that moments,
and every number between two operations, are float16 as well. At the learning
rate of the papers this makes another optimiser of it:

                     float32                     half
  second moment v    0.02 g^2                    0 while |g| < 1.2e-3, which is
                                                 usual: all gradients together
                                                 are clipped to norm 1
  denominator        sqrt(v) + 1e-6              1.0133e-6, the float16 of 1e-6
  step               Adam: about lr, whatever    momentum: lr / 1e-6 * m, so in
                     the size of g               proportion to g
  smallest step      none to speak of            half a spacing of float16: a
                                                 weight of 0.02 moves by 1.5e-5
                                                 or not at all
  scale of the loss  without effect              a factor on the learning rate

An isolated large gradient, of a bias for instance, does give a second moment
to its element, which then follows a coarse Adam. In a synthetic run with
lr=1e-7 half weights ended 19 times as far from their start as single ones.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vidret_jax.train import optimizers


class BertAdamState(NamedTuple):
  """Moments, uncorrected; `count` is the number of updates done."""

  count: jax.Array
  m: Any
  v: Any


def bert_adam(
  learning_rate,
  b1: float = 0.9,
  b2: float = 0.98,
  eps: float = 1e-6,
  weight_decay: float = 0.0,
  max_grad_norm: float = 1.0,
  half: bool = False,
  round_params: bool = True,
) -> optax.GradientTransformation:
  """Adam without bias correction, after clipping every tensor by itself.

  The number of updates done starts at 0, so a schedule with a warm-up from 0
  leaves the parameters alone in the first update, but not the moments.

  With `half`, gradients, moments and all between are float16 values, rounded
  where PyTorch's CPU kernels round. Moments are stored as float16; parameters
  stay float32 arrays, which hold float16 values from the first update on.
  (Upstream's gradients leave the backward pass as float16; ours are rounded
  here, after a global clip.)

  Args:
    learning_rate: number, or function of the number of updates done.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: times the parameter, added to the direction, so that it is
      scaled with the learning rate; on every tensor.
    max_grad_norm: largest norm of the gradient of one tensor; 0: any.
    half: compute as PyTorch does on float16 tensors.
    round_params: only with `half`: False keeps the float32 parameters and the
      step unrounded, so that small steps add up.
  """
  rounded = to_half if half else lambda x: x
  coarse = half and round_params
  dtype = jnp.float16 if half else None
  # Of the numbers in its formulas, PyTorch rounds those of `x + number` and
  # `add_(x, alpha=number)`, no others.
  share, small = 1 - b1, eps
  if half:
    share, small = float(np.float16(share)), float(np.float16(small))

  def init(params):
    def zeros(p):
      return jnp.zeros_like(p, dtype=dtype)

    return BertAdamState(
      jnp.int32(0), jax.tree.map(zeros, params), jax.tree.map(zeros, params)
    )

  def update(grads, state, params):
    lr = optimizers.rate(learning_rate, state.count)

    # One rounding per PyTorch operation; `add_`, `addcmul_` are one.
    def rule(g, m, v, p):
      kept, r = m.dtype, rounded
      g = r(g)
      m, v = m.astype(g.dtype), v.astype(g.dtype)
      if max_grad_norm > 0:
        norm = r(jnp.sqrt(jnp.sum(jnp.square(g))))
        most = r(r(1 / r(norm + 1e-6)) * max_grad_norm)
        g = r(g * jnp.minimum(most, 1.0))
      m = r(r(b1 * m) + share * g)
      v = r(r(b2 * v) + (1 - b2) * (g * g))
      step = r(m / r(r(jnp.sqrt(v)) + small))
      if weight_decay:
        step = r(step + r(weight_decay * r(p)))
      # The difference of two float16 values is a float32: nothing is lost
      # between here and the sum that the caller forms.
      change = r(r(p) - r(lr * step)) - p if coarse else -lr * step
      return change, m.astype(kept), v.astype(kept)

    out = jax.tree.map(rule, grads, state.m, state.v, params)
    updates, m, v = jax.tree.transpose(
      jax.tree.structure(grads), jax.tree.structure((0, 0, 0)), out
    )
    return updates, BertAdamState(state.count + 1, m, v)

  return optax.GradientTransformation(init, update)


def to_half(x):
  """Rounds to the nearest float16 value, and gives it as float32.

  By hand: XLA may drop a conversion to float16 and back as excess precision,
  and `lax.reduce_precision` makes zero of what float16 holds as a subnormal,
  such as the epsilon above.

  Args:
    x: array of floats, of 32 bits or fewer.

  Returns:
    float32 array; ties go to even, 65520 and more to infinity.
  """
  x = x.astype(jnp.float32)
  bits = jax.lax.bitcast_convert_type(x, jnp.int32)
  # The power of two at or below |x|, but that of the smallest normal float16.
  exponent = jnp.clip((bits >> 23) & 0xFF, 127 - 14, 254 - 10)
  spacing = jax.lax.bitcast_convert_type((exponent - 10) << 23, jnp.float32)
  inverse = jax.lax.bitcast_convert_type(
    (254 + 10 - exponent) << 23, jnp.float32
  )
  near = jnp.round(x * inverse) * spacing
  return jnp.where(jnp.abs(near) > 65504, jnp.sign(x) * jnp.inf, near)
