# SPDX-License-Identifier: Apache-2.0
"""Nonlinearities."""

import jax
import jax.numpy as jnp

Array = jax.Array

# Beyond this point tanh(softplus(x)) is 1 even in float64, and u * u below
# still fits float32.
_SATURATED = 20.0


@jax.custom_jvp
def mish(x: Array) -> Array:
  """x * tanh(softplus(x)) (Misra, 2019), with one exponential.

  With u = exp(x) and n = u (u + 2), tanh(log(1 + u)) = n / (n + 2).
  """
  return _mish(x)[0].astype(x.dtype)


def _mish(x):
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  u = jnp.exp(jnp.minimum(x, _SATURATED))
  n = u * (u + 2)
  gate = n / (n + 2)
  # The quotient rule on n / (n + 2) cancels digits; its closed form does not.
  slope = gate + x * (4 * u * (u + 1)) / ((n + 2) * (n + 2))
  return x * gate, slope


@mish.defjvp
def _mish_jvp(primals, tangents):
  (x,), (dx,) = primals, tangents
  value, slope = _mish(x)
  return value.astype(x.dtype), slope.astype(x.dtype) * dx


ACTIVATIONS = {'mish': mish, 'relu': jax.nn.relu}


def activation(name: str):
  """The function called `name`; ValueError lists those there are."""
  if name not in ACTIVATIONS:
    raise ValueError(
      f'activation={name!r}: expected one of {sorted(ACTIVATIONS)}.'
    )
  return ACTIVATIONS[name]
