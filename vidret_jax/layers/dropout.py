# SPDX-License-Identifier: Apache-2.0
"""Dropout whose random bits cost next to nothing.

`flax.linen.Dropout` draws its bits with a cipher: on a CPU a tenth of a second
for every 20 million elements, on all devices an array to be written and read.
Here the bits of an element are a hash of its place and the key (the mixing
function of MurmurHash3, twice), which compilers fuse with their use; an element
gets the same bits on however many devices the array lies.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Dropout(nn.Module):
  """Zeroes elements with probability `rate`, and scales the others.

  Reads the random stream 'dropout'.

  Attributes:
    rate: in [0, 1).
  """

  rate: float

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """x in training, thinned; else x."""
    if not train or not self.rate:
      return x
    return drop(x, self.make_rng('dropout'), self.rate)


def drop(x: Array, key: Array, rate: float) -> Array:
  """x with elements zeroed at `rate`, and the others scaled."""
  kept = hashed_bits(key, x.shape) >= np.uint32(round(rate * 2**32))
  return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))


def hashed_bits(key: Array, shape: tuple[int, ...]) -> Array:
  """uint32 of a shape, a hash of place and key.

  Args:
    key: of `jax.random`.
    shape: with less than 2^32 elements, beyond which bits repeat.
  """
  first, second = jax.random.bits(key, (2,), jnp.uint32)
  place = jnp.zeros(shape, jnp.uint32)
  stride = 1
  for axis in reversed(range(len(shape))):
    place += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(
      stride & 0xFFFFFFFF
    )
    stride *= shape[axis]
  return _mixed(_mixed(place * np.uint32(0x9E3779B9) ^ first) + second)


def _mixed(h: Array) -> Array:
  """The finaliser of MurmurHash3, a bijection of 32 bits."""
  h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
  h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
  return h ^ (h >> 16)
