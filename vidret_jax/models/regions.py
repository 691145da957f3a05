# SPDX-License-Identifier: Apache-2.0
"""Region vectors of frames: L3-iRMAC on a ResNet, PCA-whitened.

The features of ViSiL (arXiv 1908.07410), DnS (arXiv 2106.13266), S2VS and
HAP-VR: maxima of overlapping windows of all stages of an ImageNet ResNet-50,
nine regions of a frame of 224 x 224 pixels (upstream `model/extractor.py`).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Numerics
from vidret_jax.models import frozen, resnet
from vidret_jax.ops import similarity

Array = jax.Array

# Windows of upstream, for frames of 224 pixels; strides are half of them.
KERNELS = (28, 14, 6, 3)


def pool(maps: Sequence[Array], kernels: Sequence[int]) -> Array:
  """Region vectors of the maps of a network.

  Each map is max-pooled, and normalised over channels; where this leaves
  another grid than that of the last map, it is max-pooled to that one. Then
  the maps are joined, and the vectors are normalised.

  Args:
    maps: [n, h_i, w_i, c_i] each.
    kernels: side of the window of each map; its stride is half of it, rounded
      up.

  Returns:
    Unit vectors [n, r, sum of c_i], regions row by row.

  Raises:
    ValueError: a window is larger than its map.
  """
  pooled = []
  for i, (x, side) in enumerate(zip(maps, kernels, strict=True)):
    least = min(x.shape[1:3])
    if least < side:
      raise ValueError(
        f'backbone.kernels[{i}]={side} is larger than the map of its stage, '
        f'{x.shape[1]} x {x.shape[2]}: the frames are too small for these '
        'windows. Take windows of half a side of each map, here '
        f'kernels={tuple(max(min(m.shape[1:3]) // 2, 1) for m in maps)}.'
      )
    stride = -(-side // 2)
    x = nn.max_pool(x, (side, side), (stride, stride))
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    pooled.append(similarity.l2_normalize(x))
  grid = pooled[-1].shape[1:3]
  pooled = [similarity.l2_normalize(adaptive_max(x, grid)) for x in pooled]
  x = jnp.concatenate(pooled, -1)
  return similarity.l2_normalize(x.reshape(len(x), -1, x.shape[-1]))


def adaptive_max(x: Array, grid: tuple[int, int]) -> Array:
  """Maxima of about equal bins: `torch.nn.functional.adaptive_max_pool2d`.

  Bin i of g covers floor(i n / g) to ceil((i + 1) n / g) - 1.

  Args:
    x: [n, h, w, c].
    grid: bins along h and w.

  Returns:
    [n, *grid, c].
  """
  for axis, bins in enumerate(grid, 1):
    size = x.shape[axis]
    if size == bins:
      continue
    parts = [
      jax.lax.slice_in_dim(
        x, i * size // bins, -(-(i + 1) * size // bins), 1, axis
      ).max(axis)
      for i in range(bins)
    ]
    x = jnp.stack(parts, axis)
  return x


class Pca(nn.Module):
  """Whitening: (x - mean) @ kernel, then unit vectors.

  Attributes:
    dims: that are kept.
    num: numerics.
  """

  dims: int
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., c] -> [..., dims]."""
    c, wide = x.shape[-1], self.num.wide
    mean = self.param('mean', nn.initializers.zeros, (c,), wide)
    init = nn.initializers.normal(1.0)
    kernel = self.param('kernel', init, (c, self.dims), wide)
    y = self.num.dot(x.astype(wide) - mean, kernel).astype(wide)
    return similarity.l2_normalize(y)


class Regions(nn.Module):
  """Frames to region vectors; frozen.

  Attributes:
    stages: see `resnet.ResNet`.
    width: see `resnet.ResNet`.
    dims: of a region vector after whitening; None: no whitening.
    kernels: side of the window on each stage's map; the published ones fit
      frames of at least 224 pixels.
    chunk: frames at a time, over all devices.
    dtype: operands of convolutions and products; norms are float32.
    precision: of convolutions and products.
  """

  stages: tuple[int, ...] = (3, 4, 6, 3)
  width: int = 64
  dims: int | None = 512
  kernels: tuple[int, ...] = KERNELS
  chunk: int = 512
  dtype: str = 'float32'
  precision: str | None = 'highest'

  def __post_init__(self):
    for name in ('stages', 'kernels'):
      values = frozen.wholes(f'backbone.{name}', getattr(self, name))
      object.__setattr__(self, name, values)
    if len(self.stages) != len(self.kernels):
      raise ValueError(
        f'backbone.kernels={self.kernels}: expected a window for each of the '
        f'{len(self.stages)} stages.'
      )
    for name in ('width', 'chunk'):
      frozen.whole(f'backbone.{name}', getattr(self, name))
    if self.dims is not None:
      frozen.whole('backbone.dims', self.dims)
      width = sum(resnet.channels(self.stages, self.width))
      if self.dims > width:
        raise ValueError(
          f'backbone.dims={self.dims}: region vectors have {width} dimensions '
          'before whitening, which cannot add any.'
        )
    Numerics(self.dtype, self.precision)  # Raises ValueError.
    super().__post_init__()

  @property
  def num(self) -> Numerics:
    """Numerics of all blocks."""
    return Numerics(self.dtype, self.precision)

  @nn.compact
  def __call__(self, frames: Array) -> Array:
    """Extracts.

    Args:
      frames: uint8 [n, H, W, 3] of RGB, or floats in [0, 1].

    Returns:
      float32 unit vectors [n, r, dims]; no gradient. r is 9 for square frames
      and the published options.
    """
    frozen.check_frames(frames, 'backbone')
    body = _Body(
      self.stages, self.width, self.dims, self.kernels, self.num, name='body'
    )
    nn.share_scope(self, body)
    return frozen.in_chunks(body, frames, self.chunk)


class _Body(nn.Module):
  """A chunk of frames to region vectors; see `Regions`."""

  stages: tuple[int, ...]
  width: int
  dims: int | None
  kernels: tuple[int, ...]
  num: Numerics

  @nn.compact
  def __call__(self, frames: Array) -> Array:
    net = resnet.ResNet(self.stages, self.width, self.num, name='resnet')
    maps = net(frozen.imagenet(frames, self.num.wide))
    x = pool(maps, self.kernels)
    return x if self.dims is None else Pca(self.dims, self.num, name='pca')(x)
