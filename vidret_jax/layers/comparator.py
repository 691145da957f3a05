# SPDX-License-Identifier: Apache-2.0
"""The video comparator: a small CNN over a frame-to-frame matrix.

ViSiL, ICCV 2019, https://arxiv.org/abs/1908.07410, section 3.2; upstream
`model/similarities.py` `VideoComperator`. It rewards diagonals (frames alike in
the same order) and fades isolated likenesses. Both sides shrink to a quarter.

Matrices of a batch may be padded: whatever lies beyond the lengths is zero
before every convolution, as the zeros around an unpadded matrix, so each has
the output it would have alone. The quarter of an odd length is rounded down
twice.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Numerics

Array = jax.Array

SHRINK = 4
CHANNELS = (32, 64, 128)
# Rows around a strip that its output depends on: 7, in steps of SHRINK.
HALO = 8


class Conv(nn.Module):
  """A convolution of odd width with zeros around; NHWC.

  Attributes:
    channels: in and out.
    width: of the kernel in both directions.
    num: numerics.
  """

  channels: tuple[int, int]
  width: int = 3
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param(
      'kernel',
      nn.initializers.xavier_uniform(),
      (self.width, self.width, *self.channels),
      self.num.wide,
    )
    bias = self.param(
      'bias', nn.initializers.zeros, (self.channels[1],), self.num.wide
    )
    x, kernel = x.astype(self.num.dtype), kernel.astype(self.num.dtype)
    y = _convolve(x, kernel, self.num.precision)
    return y + bias.astype(y.dtype)


class Comparator(nn.Module):
  """Three convolutions, two of them with pooling, and a weighted sum.

  Attributes:
    num: numerics.
  """

  num: Numerics = Numerics()

  def setup(self):
    channels = (1, *CHANNELS)
    self.conv1, self.conv2, self.conv3 = (
      Conv((channels[i], channels[i + 1]), num=self.num) for i in range(3)
    )
    self.head = Conv((CHANNELS[-1], 1), width=1, num=self.num)

  def __call__(
    self, x: Array, rows: Array, columns: Array, first: Array | int = 0
  ) -> Array:
    """Compares.

    Args:
      x: [n, tq, tt]; a side that is no multiple of 4 loses its rest.
      rows: int [n] (or one for all), true lengths.
      columns: int [n] (or one for all).
      first: number of the first row of x in its matrix, a multiple of 4; below
        zero, rows of padding come before it.

    Returns:
      [n, tq // 4, tt // 4], not yet clipped to [-1, 1]; zero beyond a quarter
      of the lengths.
    """
    rows, columns, first = (jnp.asarray(a) for a in (rows, columns, first))
    x = _inside(x[..., None], rows, columns, first)
    for conv in (self.conv1, self.conv2):
      rows, columns, first = rows // 2, columns // 2, first // 2
      x = _inside(nn.relu(_pool(conv(x))), rows, columns, first)
    x = self.head(nn.relu(self.conv3(x)))
    return _inside(x, rows, columns, first)[..., 0].astype(self.num.wide)

  def in_strips(
    self, x: Array, rows: Array, columns: Array, strip: int
  ) -> Array:
    """The same for long queries, `strip` rows at a time, in bounded memory.

    Args:
      x: [n, tq, tt].
      rows: as above.
      columns: as above.
      strip: a multiple of 4.
    """
    tall = x.shape[1] // SHRINK * SHRINK
    if tall <= strip:
      return self(x, rows, columns)
    count = -(-tall // strip)
    # Rows of the rest have no output, but what is above them sees them.
    spare = (HALO, HALO + count * strip - x.shape[1])
    x = jnp.pad(x, ((0, 0), spare, (0, 0)))

    def one(start):
      part = jax.lax.dynamic_slice_in_dim(x, start, strip + 2 * HALO, 1)
      part = self(part, rows, columns, start - HALO)
      return part[:, HALO // SHRINK : -HALO // SHRINK]

    parts = jax.lax.map(one, strip * jnp.arange(count))
    out = jnp.moveaxis(parts, 0, 1)
    return out.reshape(out.shape[0], -1, out.shape[-1])[:, : tall // SHRINK]


def _plain(x, kernel, precision):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(1, 1),
    padding='SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=precision,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x, kernel, precision):
  """`_plain` with gradients that are fast on CPUs.

  XLA's CPU backend is slow in the convolutions that differentiation makes, over
  long windows and with dilation. The gradient of the input is a convolution
  like the first; that of the kernel a product of patches. Elsewhere patches
  would be nine copies of the input, and the library knows better ways.
  """
  return _plain(x, kernel, precision)


def _convolve_forward(x, kernel, precision):
  if jax.default_backend() == 'cpu':
    return _plain(x, kernel, precision), (x, kernel)
  return jax.vjp(lambda x, kernel: _plain(x, kernel, precision), x, kernel)


def _convolve_backward(precision, kept, grad):
  if jax.default_backend() != 'cpu':
    return kept(grad)
  x, kernel = kept
  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  patches = _patches(x, kernel.shape[0])
  d_kernel = jnp.dot(
    patches.reshape(-1, patches.shape[-1]).T,
    grad.reshape(-1, grad.shape[-1]),
    precision=precision,
  )
  return _plain(grad, turned, precision), d_kernel.reshape(kernel.shape)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _patches(x: Array, width: int) -> Array:
  """[n, h, w, c] -> [n, h, w, width * width * c], zeros around."""
  if width == 1:
    return x
  around = width // 2
  _, h, w, _ = x.shape
  x = jnp.pad(x, ((0, 0), (around, around), (around, around), (0, 0)))
  parts = [
    x[:, i : i + h, j : j + w] for i in range(width) for j in range(width)
  ]
  return jnp.concatenate(parts, -1)


def _pool(x: Array) -> Array:
  """The largest of 2 x 2 cells; a tie's gradient goes to the first of them."""
  n, h, w, c = x.shape
  x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
  out = x[:, :, 0, :, 0]
  for i, j in ((0, 1), (1, 0), (1, 1)):
    other = x[:, :, i, :, j]
    out = jnp.where(other > out, other, out)
  return out


def _inside(x: Array, rows: Array, columns: Array, first: Array) -> Array:
  """Zeros where a cell lies outside of its matrix."""
  row = jnp.arange(x.shape[1]) + first
  inside = (row >= 0) & (row < rows[..., None])
  inside = inside[..., :, None] & (
    jnp.arange(x.shape[2]) < columns[..., None, None]
  )
  return jnp.where(inside[..., None], x, 0)
