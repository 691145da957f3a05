# SPDX-License-Identifier: Apache-2.0
"""Ranger, RAdam and Adam as the original systems wrote them.

They differ from optax's in places that change results: where epsilon stands,
when the rectification sets in, what the weight decay is applied to, and where
the slow weights live. Each is an ordinary `optax.GradientTransformation`;
`learning_rate` is a number or a function of the number of updates done.

Each tensor is read and written once per step: with donated buffers XLA fuses
a whole rule into passes over memory without temporaries.
"""

from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax


class RangerState(NamedTuple):
  """Moments and slow weights; `count` is the number of updates done."""

  count: jax.Array
  m: Any
  v: Any
  slow: Any


class RAdamState(NamedTuple):
  count: jax.Array
  m: Any
  v: Any


class AdamState(NamedTuple):
  """`v_max` is None without amsgrad."""

  count: jax.Array
  m: Any
  v: Any
  v_max: Any


def ranger(
  learning_rate,
  b1: float = 0.95,
  b2: float = 0.999,
  eps: float = 1e-5,
  weight_decay: float = 0.0,
  alpha: float = 0.5,
  k: int = 6,
  threshold: float = 5.0,
) -> optax.GradientTransformation:
  """RAdam with Lookahead, the optimiser of Collaborative Experts (2020).

  Every k-th step the weights move back to `slow + alpha * (p - slow)`, and the
  slow weights follow. They start as the weights given to `init`, so `init`
  must get the weights that training starts from. (`optax.lookahead` keeps
  them beside the parameters instead, where everything that reads parameters
  would have to know.)

  Args:
    learning_rate: number, or function of the number of updates done.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the uncorrected second moment.
    weight_decay: decoupled, times the learning rate, on every tensor.
    alpha: how far the slow weights move.
    k: steps between moves of the slow weights.
    threshold: rectify once the length of the averaged tail exceeds this.
  """
  scale, first = _rectification(b1, b2, lambda rho: rho > threshold)

  def init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    # Copies all: a donated buffer must not appear twice in the state.
    return RangerState(
      jnp.int32(0),
      zeros,
      jax.tree.map(jnp.zeros_like, params),
      jax.tree.map(lambda p: jnp.array(p, copy=True), params),
    )

  def update(grads, state, params):
    t = state.count + 1
    m, v = _moments(grads, state.m, state.v, b1, b2)
    rule = _rectified(
      rate(learning_rate, state.count), scale, first, t, eps, weight_decay
    )
    sync = t % k == 0

    def step(p, m, v, slow):
      fast = rule(p, m, v)
      return jnp.where(sync, alpha * fast + (1 - alpha) * (slow - p), fast)

    updates = jax.tree.map(step, params, m, v, state.slow)
    # Reading the slow weights at every step is cheaper than the temporary of
    # the size of the model that a conditional update would need; writing them
    # is left out on the other steps.
    slow = lax.cond(
      sync,
      lambda new, old: new,
      lambda new, old: old,
      optax.apply_updates(params, updates),
      state.slow,
    )
    return updates, RangerState(t, m, v, slow)

  return optax.GradientTransformation(init, update)


def radam(
  learning_rate,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  threshold: float = 5.0,
) -> optax.GradientTransformation:
  """Rectified Adam as TeachText uses it (Liu et al. 2020, their code).

  Before the rectification sets in, the step is that of momentum without a
  second moment. See `ranger` for the arguments; the threshold is inclusive.
  """
  scale, first = _rectification(b1, b2, lambda rho: rho >= threshold)

  def init(params):
    return RAdamState(
      jnp.int32(0),
      jax.tree.map(jnp.zeros_like, params),
      jax.tree.map(jnp.zeros_like, params),
    )

  def update(grads, state, params):
    t = state.count + 1
    m, v = _moments(grads, state.m, state.v, b1, b2)
    rule = _rectified(
      rate(learning_rate, state.count), scale, first, t, eps, weight_decay
    )
    return jax.tree.map(rule, params, m, v), RAdamState(t, m, v)

  return optax.GradientTransformation(init, update)


def adam(
  learning_rate,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  amsgrad: bool = False,
) -> optax.GradientTransformation:
  """`torch.optim.Adam`, the optimiser of the 2019 systems.

  Args:
    learning_rate: number, or function of the number of updates done.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the corrected second moment.
    weight_decay: added to the gradient, as torch does.
    amsgrad: divide by the largest second moment so far; torch takes the
      maximum before the bias correction, optax after it.
  """

  def init(params):
    v_max = jax.tree.map(jnp.zeros_like, params) if amsgrad else None
    return AdamState(
      jnp.int32(0),
      jax.tree.map(jnp.zeros_like, params),
      jax.tree.map(jnp.zeros_like, params),
      v_max,
    )

  def update(grads, state, params):
    t = state.count + 1
    lr = rate(learning_rate, state.count)
    if weight_decay:
      grads = jax.tree.map(lambda g, p: g + weight_decay * p, grads, params)
    m, v = _moments(grads, state.m, state.v, b1, b2)
    v_max = jax.tree.map(jnp.maximum, state.v_max, v) if amsgrad else None
    root = jnp.sqrt(_one_minus_power(b2, t))
    scale = lr / _one_minus_power(b1, t)

    def step(m, v):
      return -scale * m / (jnp.sqrt(v) / root + eps)

    updates = jax.tree.map(step, m, v_max if amsgrad else v)
    return updates, AdamState(t, m, v, v_max)

  return optax.GradientTransformation(init, update)


def rate(learning_rate, count):
  """The learning rate after `count` updates; it may be a plain number."""
  return learning_rate(count) if callable(learning_rate) else learning_rate


def _moments(grads, m, v, b1, b2):
  """Moving averages of the gradient and of its square."""
  m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, grads)
  v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * (g * g), v, grads)
  return m, v


def _rectified(lr, scale, first, t, eps, weight_decay):
  """The RAdam step of one tensor at update t."""
  size = lr * jnp.asarray(scale)[jnp.minimum(t, len(scale) - 1)]
  rectify = t >= first

  def rule(p, m, v):
    direction = m / jnp.where(rectify, jnp.sqrt(v) + eps, 1.0)
    return -lr * weight_decay * p - size * direction

  return rule


def _rectification(b1, b2, holds):
  """Step sizes of RAdam, worked out once in double precision.

  In float32 the length of the averaged tail, a small difference of numbers
  near 2000, would have an error of 1e-4 in the steps where it matters.

  Args:
    b1: decay of the first moment.
    b2: decay of the second moment.
    holds: function of that length: is the second moment usable?

  Returns:
    (float32 [n + 1]: factor on the learning rate by update, from 1 on and
    constant from n on; the first update with a second moment).
  """
  n = int(np.ceil(-26 * np.log(2) / np.log(max(b1, b2))))
  t = np.arange(1, n + 1, dtype=np.float64)
  limit = 2 / (1 - b2) - 1
  rho = limit - 2 * t * b2**t / (1 - b2**t)
  usable = holds(rho)
  never = np.iinfo(np.int32).max
  first = int(np.argmax(usable)) + 1 if usable.any() else never
  r = np.maximum(rho, 4.0)  # The root below is of no use before `first`.
  root = np.sqrt(
    (1 - b2**t)
    * ((r - 4) / (limit - 4))
    * ((r - 2) / r)
    * (limit / (limit - 2))
  )
  scale = np.where(t >= first, root, 1.0) / (1 - b1**t)
  return np.concatenate([[0.0], scale]).astype(np.float32), first


def _one_minus_power(b, t):
  """1 - b ** t, without the cancellation of small t."""
  return -jnp.expm1(t * np.log(b))
