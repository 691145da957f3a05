# SPDX-License-Identifier: Apache-2.0
"""Which CLIP a state dict of public names is, and whether a model is it."""

from collections.abc import Mapping
import dataclasses
import math
import re

import numpy as np

from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models import clip as clip_lib
from vidret_jax.models.clip import Sizes


def sizes(state: Mapping[str, np.ndarray], source: str = 'checkpoint') -> Sizes:
  """Dimensions of the towers in a state dict of public names.

  Raises:
    CheckpointMismatch: an array that tells them is missing or of another rank,
      or they belong to no Vision Transformer.
  """

  def shape(key, rank):
    if key not in state or state[key].ndim != rank:
      found = tuple(state[key].shape) if key in state else 'no such key'
      raise CheckpointMismatch(
        f'{source}: {key}: expected an array of {rank} axes, found {found}. '
        'This is no whole CLIP with a Vision Transformer'
        + (
          ', but one with a ResNet; take a ViT.'
          if any(k.startswith('visual.attnpool.') for k in state)
          else f'; it begins with {", ".join(list(state)[:4])}.'
        )
      )
    return state[key].shape

  def layers(tower):
    name = re.compile(re.escape(tower) + r'\.resblocks\.\d+\.')
    return len({m.group() for m in map(name.match, state) if m})

  conv2 = 'visual.conv2.weight'
  conv = shape(conv2, 5) if conv2 in state else shape('visual.conv1.weight', 4)
  positions = shape('visual.positional_embedding', 2)[0]
  grid = math.isqrt(max(positions - 1, 0))
  if grid < 1 or positions != 1 + grid * grid:
    raise CheckpointMismatch(
      f'{source}: visual.positional_embedding has {positions} rows, which are '
      'not a class token and a square grid.'
    )
  context, text_width = shape('positional_embedding', 2)
  try:
    return Sizes(
      vision_width=conv[0],
      vision_layers=layers('visual.transformer'),
      patch=conv[-1],
      image_size=conv[-1] * grid,
      text_width=text_width,
      text_layers=layers('transformer'),
      context=context,
      vocab=shape('token_embedding.weight', 2)[0],
      dim=shape('text_projection', 2)[1],
    )
  except CheckpointMismatch:
    raise
  except (ValueError, ZeroDivisionError) as error:
    raise CheckpointMismatch(f'{source}: {error}') from None


def _variant(sizes):
  """(name, sizes) of the published towers that differ in images at most."""
  for name, variant in clip_lib.VARIANTS.items():
    if set(_unlike(variant, sizes)) <= {'image_size'}:
      return name, variant
  return None, None


def _unlike(a, b):
  names = [f.name for f in dataclasses.fields(Sizes)]
  return [n for n in names if getattr(a, n) != getattr(b, n)]


def describe(sizes: Sizes) -> str:
  """The published variant that sizes belong to, in words."""
  name, variant = _variant(sizes)
  if name is None:
    return 'none of the published variants'
  same = sizes.image_size == variant.image_size
  return name if same else f'{name} for {sizes.image_size} px'


def differences(found: Sizes, want: Sizes) -> list[str]:
  """Where sizes differ beyond what resampling bridges, as sentences."""
  names = _unlike(found, want)
  if names == ['image_size']:
    return []
  return [
    f'{n}: file {getattr(found, n)}, model {getattr(want, n)}' for n in names
  ]


def setting(found: Sizes, want: Sizes) -> str:
  """How a config asks for the towers of a file, at its own image size."""
  size = want.image_size if want.image_size % found.patch == 0 else None
  name, variant = _variant(found)
  fields = dict(dataclasses.asdict(found), image_size=size or found.image_size)
  if name is not None:
    if fields['image_size'] == variant.image_size:
      return f'model.clip={name!r}'
    fields = dict(name=name, image_size=fields['image_size'])
  return (
    f'model.clip=dict({", ".join(f"{k}={v!r}" for k, v in fields.items())})'
  )


def check(
  found: Sizes,
  want: Sizes,
  source: str,
  options: Mapping[str, tuple] | None = None,
) -> None:
  """Compares architectures.

  Args:
    found: of the file.
    want: of the model.
    source: file name.
    options: further differences, {option: (of the file, of the model)}.

  Raises:
    CheckpointMismatch: names every difference and what the file is.
  """
  lines, options = differences(found, want), dict(options or {})
  hints = [setting(found, want)] if lines else []
  for name, (file, model) in options.items():
    lines.append(f'{name}: file {file!r}, model {model!r}')
    hints.append(f'{name}={file!r}')
  if lines:
    every = '\n'.join(f'  {line}' for line in lines)
    raise CheckpointMismatch(
      f'{source}: weights of another architecture. The towers in the file are '
      f'{describe(found)}, those of the model {describe(want)}.\n{every}\n'
      f'Set {", ".join(hints)}, or name a file that belongs to the config.'
    )
