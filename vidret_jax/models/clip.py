# SPDX-License-Identifier: Apache-2.0
"""CLIP's two towers with Vision Transformers (Radford et al., 2021).

https://arxiv.org/abs/2103.00020. The image tower returns all tokens: the class
token is the original's image feature, the patches are what fine-grained
retrieval compares with.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers import transformer
from vidret_jax.layers.linear import Numerics
from vidret_jax.layers.transformer import LayerNorm

Array = jax.Array

# Of the images that CLIP was trained on, per channel of RGB in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Dimensions of the two towers; heads are always 64 wide.

  Attributes:
    vision_width: of a token in the image tower.
    vision_layers: blocks there.
    patch: side of a patch in pixels.
    image_size: side of an image in pixels.
    text_width: of a token in the text tower.
    text_layers: blocks there.
    context: positions that the text tower knows.
    vocab: tokens that it knows.
    dim: of the shared space.
  """

  vision_width: int = 768
  vision_layers: int = 12
  patch: int = 32
  image_size: int = 224
  text_width: int = 512
  text_layers: int = 12
  context: int = 77
  vocab: int = 49408
  dim: int = 512

  def __post_init__(self):
    for field in dataclasses.fields(self):
      size = getattr(self, field.name)
      if not isinstance(size, int) or size < 1:
        raise ValueError(
          f'clip.{field.name}={size!r}: expected a positive integer.'
        )
    for name in ('vision_width', 'text_width'):
      if getattr(self, name) % transformer.HEAD_WIDTH:
        raise ValueError(
          f'clip.{name}={getattr(self, name)}: expected a multiple of '
          f'{transformer.HEAD_WIDTH}, the width of a head.'
        )
    if self.image_size % self.patch:
      raise ValueError(
        f'clip.image_size={self.image_size} is not a multiple of '
        f'clip.patch={self.patch}.'
      )

  @property
  def grid(self) -> int:
    """Patches along a side."""
    return self.image_size // self.patch

  @property
  def patches(self) -> int:
    """Patches of an image."""
    return self.grid**2


VARIANTS = {
  'ViT-B/32': Sizes(),
  'ViT-B/16': Sizes(patch=16),
  'ViT-L/14': Sizes(
    vision_width=1024, vision_layers=24, patch=14, text_width=768, dim=768
  ),
}


def sizes(given: str | Mapping[str, Any] | Sizes) -> Sizes:
  """Sizes from a name, from fields, or from a name with other fields.

  Args:
    given: 'ViT-B/32', or dict(name='ViT-B/32', image_size=288), or all fields.

  Raises:
    ValueError: unknown names or fields; lists the known ones.
  """
  if isinstance(given, Sizes):
    return given
  fields = {'name': given} if isinstance(given, str) else dict(given)
  name = fields.pop('name', None)
  if name is not None and name not in VARIANTS:
    raise ValueError(
      f'clip={name!r}: expected one of {", ".join(VARIANTS)}, or a mapping of '
      'sizes.'
    )
  known = [f.name for f in dataclasses.fields(Sizes)]
  unknown = sorted(set(fields) - set(known))
  absent = [] if name else sorted(set(known) - set(fields))
  if unknown or absent:
    raise ValueError(
      f'clip: unknown {unknown}, missing {absent}; the sizes are '
      f'{", ".join(known)}; a `name` fills in the others.'
    )
  return dataclasses.replace(VARIANTS.get(name, Sizes()), **fields)


def normalize(frames: Array) -> Array:
  """uint8 RGB [..., 3] to CLIP's range; floats are taken as they are.

  Raises:
    ValueError: of another type, which could be either.
  """
  if jnp.issubdtype(frames.dtype, jnp.floating):
    return frames
  if frames.dtype != jnp.uint8:
    raise ValueError(
      f'frames are {frames.dtype}: expected uint8, or floats that are '
      'normalised already.'
    )
  unit = frames.astype(jnp.float32) / 255
  return (unit - jnp.array(MEAN)) / jnp.array(STD)


def cut(images: Array, patch: int) -> Array:
  """Non-overlapping patches, row by row: [..., r, r, c] -> [..., p, patch^2 c].

  A convolution whose stride is its kernel is a product of these with the
  flattened kernel, and compiles to a faster one.
  """
  *lead, height, width, channels = images.shape
  rows, columns = height // patch, width // patch
  x = images.reshape(*lead, rows, patch, columns, patch, channels)
  x = jnp.moveaxis(x, -4, -3)
  return x.reshape(*lead, rows * columns, patch * patch * channels)


class VisionTower(nn.Module):
  """Images to tokens.

  Attributes:
    sizes: of the towers.
    linear_patch: '2d', or '3d': the patch embedding also sees the frame before
      and the frame after (CLIP4Clip's option; kernel (3, patch, patch)).
    remat: see `transformer.blocks`.
    num: numerics.
  """

  sizes: Sizes
  linear_patch: str = '2d'
  remat: bool = False
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, frames: Array) -> Array:
    """Encodes the frames of clips.

    Args:
      frames: [b, f, r, r, 3], normalised.

    Returns:
      [b, f, 1 + p, d]: class token and patches in the shared space, not
      normalised.
    """
    s, wide = self.sizes, self.num.wide
    clips, count = frames.shape[:2]
    if frames.shape[2:] != (s.image_size, s.image_size, 3):
      raise ValueError(
        f'frames have shape {tuple(frames.shape)}, expected [b, f, '
        f'{s.image_size}, {s.image_size}, 3]: set image_size of the data to '
        f'{s.image_size}, or image_size of model.clip.'
      )
    x = cut(frames, s.patch)
    if self.linear_patch == '3d':
      x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
      x = jnp.concatenate([x[:, i : i + count] for i in range(3)], -1)
      kernel = PatchKernel((3, s.patch), s.vision_width, name='conv2')(wide)
    else:
      kernel = PatchKernel((s.patch,), s.vision_width, name='conv1')(wide)
    x = self.num.dot(x, kernel.reshape(-1, s.vision_width))

    std = s.vision_width**-0.5
    normal = nn.initializers.normal(std)
    first = self.param('class_embedding', normal, (s.vision_width,), wide)
    places = self.param(
      'positional_embedding', normal, (1 + s.patches, s.vision_width), wide
    )
    x = x.reshape(clips * count, s.patches, s.vision_width)
    first = jnp.broadcast_to(
      first.astype(x.dtype), (clips * count, 1, s.vision_width)
    )
    x = jnp.concatenate([first, x], 1) + places.astype(x.dtype)
    x = LayerNorm(num=self.num, name='ln_pre')(x)
    for block in transformer.blocks(
      s.vision_layers, num=self.num, remat=self.remat
    ):
      x = block(x)
    x = LayerNorm(num=self.num, name='ln_post')(x)
    proj = self.param('proj', normal, (s.vision_width, s.dim), wide)
    x = self.num.dot(x, proj)
    return x.reshape(clips, count, 1 + s.patches, s.dim)


class PatchKernel(nn.Module):
  """The kernel of a patch embedding: [(3,) patch, patch, 3, w].

  Attributes:
    window: (patch,), or (frames, patch).
    width: of a token.
  """

  window: tuple[int, ...]
  width: int

  @nn.compact
  def __call__(self, dtype: jnp.dtype) -> Array:
    shape = (*self.window, self.window[-1], 3, self.width)
    init = nn.initializers.lecun_normal(in_axis=tuple(range(len(shape) - 1)))
    return self.param('kernel', init, shape, dtype)


class TextTower(nn.Module):
  """Token ids to sentence vectors.

  Attributes:
    sizes: of the towers.
    remat: see `transformer.blocks`.
    num: numerics.
  """

  sizes: Sizes
  remat: bool = False
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, ids: Array, *, every: bool = False) -> Array:
    """Encodes rows of ids.

    The sentence is read off at the first maximum of the ids: the end of text
    has the largest one. (So a literal end of text within a caption moves it,
    as in the original.)

    Args:
      ids: int [q, l], l at most `context`; zeros after the end of text.
      every: project all positions, [q, l, d].

    Returns:
      [q, d] in the shared space, not normalised.
    """
    s, wide = self.sizes, self.num.wide
    length = ids.shape[-1]
    if length > s.context:
      raise ValueError(
        f'text has {length} tokens, but the text tower knows {s.context} '
        f'positions: set max_words of the data to at most {s.context}.'
      )
    table = self.param(
      'token_embedding',
      nn.initializers.normal(0.02),
      (s.vocab, s.text_width),
      wide,
    )
    places = self.param(
      'positional_embedding',
      nn.initializers.normal(0.01),
      (s.context, s.text_width),
      wide,
    )
    x = (table[ids] + places[:length]).astype(self.num.dtype)
    later = jnp.triu(jnp.full((length, length), -jnp.inf, wide), 1)
    for block in transformer.blocks(
      s.text_layers, num=self.num, remat=self.remat
    ):
      x = block(x, later)
    if not every:
      end = jnp.argmax(ids, -1)
      x = jnp.take_along_axis(x, end[:, None, None], 1)[:, 0]
    x = LayerNorm(num=self.num, name='ln_final')(x)
    projection = self.param(
      'projection',
      nn.initializers.normal(s.text_width**-0.5),
      (s.text_width, s.dim),
      wide,
    )
    return self.num.dot(x, projection)


class Clip(nn.Module):
  """Both towers and the learned temperature.

  Attributes:
    sizes: of the towers.
    linear_patch: see `VisionTower`.
    remat: recompute the insides of blocks in the backward pass.
    num: numerics.
  """

  sizes: Sizes
  linear_patch: str = '2d'
  remat: bool = False
  num: Numerics = Numerics()

  def setup(self):
    self.visual = VisionTower(
      self.sizes, self.linear_patch, self.remat, self.num
    )
    self.text = TextTower(self.sizes, self.remat, self.num)
    # exp of it divides by the temperature; 0.07 as the original starts.
    self.logit_scale = self.param(
      'logit_scale',
      nn.initializers.constant(math.log(1 / 0.07)),
      (),
      self.num.wide,
    )

  def encode_image(self, frames: Array) -> Array:
    """[b, f, r, r, 3] uint8 or normalised -> [b, f, 1 + p, d]."""
    return self.visual(normalize(frames))

  def encode_text(self, ids: Array, *, every: bool = False) -> Array:
    """int [q, l] -> [q, d], or [q, l, d] with `every`."""
    return self.text(ids, every=every)

  def scale(self) -> Array:
    """What similarities are multiplied with."""
    return jnp.exp(self.logit_scale)
