# SPDX-License-Identifier: Apache-2.0
"""What frozen networks of single frames have in common.

They are applied to far more frames than fit into memory at once, and nothing
learns from them: frames go through in chunks, one after another.
"""

from collections.abc import Sequence
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array

# Of ImageNet, per channel of RGB in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def whole(name: str, value: object, least: int = 1) -> int:
  """An option that must be a whole number of at least `least`.

  Raises:
    ValueError: it is not; names the option.
  """
  if isinstance(value, bool) or not isinstance(value, int) or value < least:
    raise ValueError(
      f'{name}={value!r}: expected a whole number of at least {least}.'
    )
  return value


def wholes(name: str, values: object) -> tuple[int, ...]:
  """An option that must be a list of positive whole numbers.

  Raises:
    ValueError: it is not; names the option.
  """
  if not isinstance(values, Sequence) or isinstance(values, str) or not values:
    raise ValueError(f'{name}={values!r}: expected a list of whole numbers.')
  return tuple(whole(f'{name}[{i}]', n) for i, n in enumerate(values))


def check_frames(frames: Array, who: str) -> None:
  """Raises ValueError unless frames are uint8 or floats of [n, H, W, 3]."""
  real = jnp.issubdtype(frames.dtype, jnp.floating)
  if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
    raise ValueError(
      f'{who}: frames have shape {tuple(frames.shape)}, expected [n, H, W, 3].'
    )
  if frames.dtype != jnp.uint8 and not real:
    raise ValueError(
      f'{who}: frames are {frames.dtype}, expected uint8 or floats.'
    )


def imagenet(frames: Array, dtype: jnp.dtype = jnp.float32) -> Array:
  """RGB in ImageNet's statistics: uint8 is scaled to [0, 1] first.

  Args:
    frames: [..., 3], uint8, or floats in [0, 1].
    dtype: of the result.
  """
  x = frames.astype(dtype)
  if frames.dtype == jnp.uint8:
    x = x / 255
  return (x - jnp.array(MEAN, dtype)) / jnp.array(STD, dtype)


def in_chunks(module: nn.Module, frames: Array, chunk: int) -> Array:
  """module(frames), `chunk` frames at a time and without a gradient.

  A chunk is made of every k-th frame, so that frames which are split over
  devices are so within each chunk: nothing moves between devices.

  Args:
    module: maps [c, ...] to [c, ...], each frame on its own.
    frames: [n, ...].
    chunk: frames at a time, over all devices; bounds the memory.

  Returns:
    [n, ...].
  """
  n = len(frames)
  if module.is_initializing():
    # Parameters do not depend on how many frames there are.
    y = module(frames[:1])
    return jnp.broadcast_to(y, (n, *y.shape[1:]))
  if n <= chunk:
    return jax.lax.stop_gradient(module(frames))
  count = _count(n, chunk)
  size = math.ceil(n / count)
  spare = ((0, size * count - n),) + ((0, 0),) * (frames.ndim - 1)
  blocks = jnp.pad(frames, spare).reshape(size, count, *frames.shape[1:])
  run = nn.scan(
    lambda module, _, block: (None, module(block)),
    variable_broadcast='params',
    split_rngs={'params': False},
  )
  _, y = run(module, None, jnp.swapaxes(blocks, 0, 1))
  y = jnp.swapaxes(y, 0, 1)
  return jax.lax.stop_gradient(y.reshape(size * count, *y.shape[2:])[:n])


def _count(n, chunk):
  """How many chunks: a divisor of n if a near one exists, to pad nothing."""
  fewest = math.ceil(n / chunk)
  return next((k for k in range(fewest, 2 * fewest) if n % k == 0), fewest)
