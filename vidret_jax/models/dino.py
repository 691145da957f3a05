# SPDX-License-Identifier: Apache-2.0
"""A Vision Transformer of DINO, frozen (Caron et al., 2021).

https://arxiv.org/abs/2104.14294. HAP-VR compares its class tokens to label
which frames of two versions of a clip show the same.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers import transformer
from vidret_jax.layers.linear import Numerics
from vidret_jax.models import clip, frozen

Array = jax.Array

# 'raw255': values 0 to 255 as they are. So upstream's training (its float16
# cast of uint8 frames) does, unlike DINO's own.
INPUTS = ('raw255', 'imagenet')
_EPS = 1e-6
_STD = 0.02


class Dino(nn.Module):
  """Frames to class tokens; frozen. The defaults are ViT-S/16.

  Attributes:
    patch: side of a patch in pixels.
    width: of a token.
    layers: blocks.
    heads: of the attention.
    image_size: side of a frame in pixels.
    input: how pixels are scaled, one of `INPUTS`; HAP-VR: 'raw255', for which
      DINO was not trained.
    chunk: frames at a time, over all devices.
    dtype: operands of products; norms and softmaxes are float32.
    precision: of products.
  """

  patch: int = 16
  width: int = 384
  layers: int = 12
  heads: int = 6
  image_size: int = 224
  input: str = 'raw255'
  chunk: int = 512
  dtype: str = 'float32'
  precision: str | None = 'highest'

  def __post_init__(self):
    for name in ('patch', 'width', 'layers', 'heads', 'image_size', 'chunk'):
      frozen.whole(f'labeller.{name}', getattr(self, name))
    for name, part in (('width', 'heads'), ('image_size', 'patch')):
      if getattr(self, name) % getattr(self, part):
        raise ValueError(
          f'labeller.{name}={getattr(self, name)}: expected a multiple of '
          f'labeller.{part}={getattr(self, part)}.'
        )
    if self.input not in INPUTS:
      raise ValueError(
        f'labeller.input={self.input!r}: expected one of {INPUTS}.'
      )
    Numerics(self.dtype, self.precision)  # Raises ValueError.
    super().__post_init__()

  @property
  def num(self) -> Numerics:
    """Numerics of all blocks."""
    return Numerics(self.dtype, self.precision)

  @nn.compact
  def __call__(self, frames: Array, *, every: bool = False) -> Array:
    """Encodes.

    Args:
      frames: uint8 [n, H, W, 3] of RGB, H = W = `image_size`; or floats, of the
        scale that `input` says ('imagenet': in [0, 1]).
      every: all tokens.

    Returns:
      float32 class tokens after the last norm, [n, width], not normalised; or
      [n, 1 + patches, width] with `every`. No gradient.

    Raises:
      ValueError: frames of another size or type.
    """
    frozen.check_frames(frames, 'labeller')
    side = self.image_size
    if frames.shape[1:3] != (side, side):
      raise ValueError(
        f'labeller: frames have {frames.shape[1]} x {frames.shape[2]} pixels, '
        f'expected {side} x {side}: set labeller.image_size to the size of '
        'the frames.'
      )
    body = _Body(
      self.patch,
      self.width,
      self.layers,
      self.heads,
      self.image_size // self.patch,
      self.input == 'imagenet',
      every,
      self.num,
      name='body',
    )
    nn.share_scope(self, body)
    return frozen.in_chunks(body, frames, self.chunk)


class _Body(nn.Module):
  """A chunk of frames to tokens; see `Dino`."""

  patch: int
  width: int
  layers: int
  heads: int
  grid: int
  normalise: bool
  every: bool
  num: Numerics

  @nn.compact
  def __call__(self, frames: Array) -> Array:
    wide, width, n = self.num.wide, self.width, len(frames)
    x = frozen.imagenet(frames, wide) if self.normalise else frames
    kernel = clip.PatchKernel((self.patch,), width, name='patch')(wide)
    zeros, normal = nn.initializers.zeros, nn.initializers.normal(_STD)
    bias = self.param('patch_bias', zeros, (width,), wide)
    x = self.num.dot(clip.cut(x, self.patch), kernel.reshape(-1, width))
    x = x + bias.astype(x.dtype)
    first = self.param('class_embedding', normal, (width,), wide)
    places = self.param(
      'positional_embedding', normal, (1 + self.grid**2, width), wide
    )
    first = jnp.broadcast_to(first.astype(x.dtype), (n, 1, width))
    x = jnp.concatenate([first, x], 1) + places.astype(x.dtype)
    style = transformer.Style(heads=self.heads, gelu='exact', std=_STD)
    for block in transformer.blocks(
      self.layers, eps=_EPS, num=self.num, style=style
    ):
      x = block(x)
    x = x if self.every else x[:, 0]
    return transformer.LayerNorm(_EPS, self.num, name='norm')(x).astype(wide)
