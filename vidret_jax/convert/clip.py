# SPDX-License-Identifier: Apache-2.0
"""CLIP weights: OpenAI's archives, state dicts, Hugging Face's layout.

Names in tables and messages are those of the public CLIP code
(`visual.conv1.weight`, `transformer.resblocks.0.attn.in_proj_weight`, ...).
"""

from collections import OrderedDict
from collections.abc import Mapping
import dataclasses
import json
import os
import re

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from vidret_jax.convert import (
  clip_file,
  clip_hf,
  clip_sizes,
  resample,
  safetensors_file,
  torch_write,
)
from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.rules import CheckpointMismatch, Form, Rule
from vidret_jax.models import clip as clip_lib
from vidret_jax.models.clip import Sizes

# In official files beside the weights, which say the same.
SCALARS = ('input_resolution', 'context_length', 'vocab_size')
# What upstream's `convert_weights` stores in half precision.
_HALF = re.compile(
  r'(.*\.)?(conv[12]\.weight|attn\..*|mlp\..*|visual\.proj|text_projection)'
)


def _permuted(name, *axes):
  """A form that permutes axes; of other ranks nothing, so that shapes tell."""

  def by(order):
    return lambda x: x.transpose(order) if x.ndim == len(order) else x

  return Form(name, by(axes), by(tuple(int(i) for i in np.argsort(axes))))


CONV_2D = _permuted('OIHW to HWIO', 2, 3, 1, 0)
CONV_3D = _permuted('OITHW to THWIO', 2, 3, 4, 1, 0)


def rules(
  sizes: Sizes,
  *,
  linear_patch: str = '2d',
  key: str = '',
  leaf: str = 'params/clip',
) -> tuple[Rule, ...]:
  """The table of both towers, in the order of the public state dict.

  Args:
    sizes: of the towers.
    linear_patch: '2d' (conv1), or '3d' (conv2 instead).
    key: prefix of the keys, e.g. 'clip.'.
    leaf: prefix of the leaves.
  """
  seen, text = f'{leaf}/visual', f'{leaf}/text'
  conv = 'conv2' if linear_patch == '3d' else 'conv1'
  form = CONV_3D if linear_patch == '3d' else CONV_2D
  patch = Rule(f'{key}visual.{conv}.weight', f'{seen}/{conv}/kernel', form)
  flat = linear_patch == '2d'
  return (
    Rule(f'{key}positional_embedding', f'{text}/positional_embedding'),
    Rule(f'{key}text_projection', f'{text}/projection'),
    Rule(f'{key}logit_scale', f'{leaf}/logit_scale'),
    Rule(f'{key}visual.class_embedding', f'{seen}/class_embedding'),
    Rule(f'{key}visual.positional_embedding', f'{seen}/positional_embedding'),
    Rule(f'{key}visual.proj', f'{seen}/proj'),
    *([patch] if flat else []),
    *layer_norm(f'{key}visual.ln_pre', f'{seen}/ln_pre'),
    *blocks(f'{key}visual.transformer', seen, sizes.vision_layers),
    *layer_norm(f'{key}visual.ln_post', f'{seen}/ln_post'),
    *([] if flat else [patch]),
    *blocks(f'{key}transformer', text, sizes.text_layers),
    Rule(f'{key}token_embedding.weight', f'{text}/token_embedding'),
    *layer_norm(f'{key}ln_final', f'{text}/ln_final'),
  )


def layer_norm(key: str, leaf: str) -> list[Rule]:
  """torch.nn.LayerNorm <-> layers.transformer.LayerNorm; leaf with 'params'."""
  return [
    Rule(f'{key}.weight', f'{leaf}/scale'),
    Rule(f'{key}.bias', f'{leaf}/bias'),
  ]


def blocks(key: str, leaf: str, count: int) -> list[Rule]:
  """The blocks of a tower; leaf with 'params'."""
  table = []
  for i in range(count):
    k, p = f'{key}.resblocks.{i}', f'{leaf}/block_{i}'
    table += [
      Rule(
        f'{k}.attn.in_proj_weight',
        f'{p}/attn/in_proj/kernel',
        rules_lib.KERNEL,
      ),
      Rule(f'{k}.attn.in_proj_bias', f'{p}/attn/in_proj/bias'),
      *_linear(f'{k}.attn.out_proj', f'{p}/attn/out_proj'),
      *layer_norm(f'{k}.ln_1', f'{p}/ln_1'),
      *_linear(f'{k}.mlp.c_fc', f'{p}/mlp/c_fc'),
      *_linear(f'{k}.mlp.c_proj', f'{p}/mlp/c_proj'),
      *layer_norm(f'{k}.ln_2', f'{p}/ln_2'),
    ]
  return table


def _linear(key, leaf):
  return rules_lib.linear(key, leaf.removeprefix('params/'))


def fit(
  state: Mapping[str, np.ndarray],
  want: Sizes,
  source: str,
  options: Mapping[str, tuple] | None = None,
) -> tuple[dict[str, np.ndarray], list[str]]:
  """Towers of public names, for the image size of a model.

  Args:
    state: arrays by public name.
    want: sizes of the model.
    source: file name.
    options: see `clip_sizes.check`.

  Returns:
    The state dict without the scalars, and notes.

  Raises:
    CheckpointMismatch: see `clip_sizes.check`; or weights that are no reals.
  """
  state = {k: v for k, v in state.items() if k not in SCALARS}
  found = clip_sizes.sizes(state, source)
  clip_sizes.check(found, want, source, options)
  check_numbers(state, source)
  if found.grid == want.grid:
    return state, []
  key = 'visual.positional_embedding'
  state[key] = resample.positions(state[key], want.grid)
  note = (
    f'{key} was resampled (bicubic) from {found.grid}x{found.grid} to '
    f'{want.grid}x{want.grid} patches: the file is for images of '
    f'{found.image_size} px, the model takes {want.image_size}; fine-tune, or '
    'expect lower figures'
  )
  logging.warning('%s: %s', source, note)
  return state, [note]


def check_numbers(state: Mapping[str, np.ndarray], source: str) -> None:
  """Raises CheckpointMismatch where weights are integers: quantised files."""
  strange = {
    k: str(v.dtype)
    for k, v in state.items()
    if not jnp.issubdtype(v.dtype, jnp.floating)
  }
  if strange:
    raise CheckpointMismatch(
      f'{source}: expected floating-point weights, found '
      f'{dict(list(strange.items())[:6])}; take the file before quantisation.'
    )


def variable_shapes(sizes: Sizes) -> dict:
  """Shapes of the towers' variables: {'params': {'clip': ...}}."""
  model = clip_lib.Clip(sizes)
  pixels = (1, 1, sizes.image_size, sizes.image_size, 3)

  def init(key, frames, ids):
    def both(clip, frames, ids):
      return clip.encode_image(frames), clip.encode_text(ids)

    return model.init(key, frames, ids, method=both)

  params = jax.eval_shape(
    init,
    jax.eval_shape(lambda: jax.random.key(0)),
    jax.ShapeDtypeStruct(pixels, np.uint8),
    jax.ShapeDtypeStruct((1, sizes.context), np.int32),
  )['params']
  return {'params': {'clip': params}}


def load(path: str | os.PathLike, want: Sizes) -> tuple[dict, rules_lib.Report]:
  """Reads a CLIP file, of any layout, into {'params': {'clip': ...}}.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: it holds another architecture.
  """
  source, raw = os.fspath(path), clip_file.read(path)
  state, notes = fit(raw, want, source)
  variables, report = rules_lib.to_flax(
    state, rules(want), variable_shapes(want), source=source
  )
  ignored = tuple(k for k in raw if k in SCALARS)
  return variables, dataclasses.replace(
    report, ignored=ignored, notes=(*notes, *clip_hf.beside(path))
  )


def is_half(key: str) -> bool:
  """Whether upstream keeps a key's array in half precision."""
  return bool(_HALF.fullmatch(key))


def to_torch(
  variables: Mapping,
  sizes: Sizes,
  *,
  scalars: bool = False,
  half: bool = False,
) -> OrderedDict:
  """The towers in `variables` as a public state dict.

  Args:
    variables: with `params/clip`; the rest is not looked at.
    sizes: of the towers.
    scalars: add the three numbers of official files.
    half: matrices in float16, as official files have them; exact for what was
      read from one, lossy for weights trained since.
  """
  towers = variables['params']['clip']
  if 'conv2' in towers['visual']:
    raise CheckpointMismatch(
      "these towers have linear_patch='3d', which public CLIP has not; write "
      'the whole model with convert.eercf instead.'
    )
  state = rules_lib.to_torch({'params': {'clip': towers}}, rules(sizes))
  state = OrderedDict(halved(state) if half else state)
  if scalars:
    values = (sizes.image_size, sizes.context, sizes.vocab)
    for name, value in zip(SCALARS, values):
      state[name] = np.array(value, np.int64)
  return state


def halved(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Casts what upstream keeps in half precision."""
  return {
    k: v.astype(np.float16) if is_half(k) else v for k, v in state.items()
  }


def save(
  path: str | os.PathLike,
  variables: Mapping,
  sizes: Sizes,
  *,
  scalars: bool = False,
  half: bool = False,
) -> None:
  """Writes the towers as a state dict that public CLIP code loads."""
  state = to_torch(variables, sizes, scalars=scalars, half=half)
  torch_write.write(path, state)


def save_hf(
  folder: str | os.PathLike,
  variables: Mapping,
  sizes: Sizes,
  *,
  half: bool = False,
  safetensors: bool = True,
) -> None:
  """Writes the towers as a folder that `CLIPModel.from_pretrained` loads.

  Args:
    folder: is made; gets config.json and the weights.
    variables: with `params/clip`.
    sizes: of the towers.
    half: see `to_torch`.
    safetensors: model.safetensors, or else pytorch_model.bin.
  """
  state = clip_hf.from_public(to_torch(variables, sizes, half=half))
  os.makedirs(folder, exist_ok=True)
  name = clip_file.IN_FOLDERS[0 if safetensors else 1]
  write = safetensors_file.write if safetensors else torch_write.write
  write(os.path.join(folder, name), state)
  with open(os.path.join(folder, 'config.json'), 'w', encoding='utf-8') as file:
    json.dump(clip_hf.config(sizes), file, indent=2)
    file.write('\n')
