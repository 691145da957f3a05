# SPDX-License-Identifier: Apache-2.0
"""CLIP in the layout of Hugging Face's `CLIPModel`, by public names and back.

The layout has queries, keys and values apart, projections as (out, in), and
other names; every value is the same.
"""

from collections.abc import Mapping
import json
import os
import re

import numpy as np

from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models import clip as clip_lib

# Hugging Face -> public; ends of names such as `.weight` are kept.
_NAMES = {
  'text_model.embeddings.token_embedding.': 'token_embedding.',
  'text_model.embeddings.position_embedding.weight': 'positional_embedding',
  'text_model.final_layer_norm.': 'ln_final.',
  'vision_model.embeddings.class_embedding': 'visual.class_embedding',
  'vision_model.embeddings.patch_embedding.': 'visual.conv1.',
  'vision_model.embeddings.position_embedding.weight': (
    'visual.positional_embedding'
  ),
  # Sic.
  'vision_model.pre_layrnorm.': 'visual.ln_pre.',
  'vision_model.post_layernorm.': 'visual.ln_post.',
}
_PROJECTIONS = {
  'visual_projection.weight': 'visual.proj',
  'text_projection.weight': 'text_projection',
}
_TOWERS = {
  'text_model.encoder.layers.': 'transformer.resblocks.',
  'vision_model.encoder.layers.': 'visual.transformer.resblocks.',
}
_PARTS = {
  'layer_norm1.': 'ln_1.',
  'layer_norm2.': 'ln_2.',
  'mlp.fc1.': 'mlp.c_fc.',
  'mlp.fc2.': 'mlp.c_proj.',
  'self_attn.out_proj.': 'attn.out_proj.',
}
_QKV = tuple(f'self_attn.{x}_proj' for x in 'qkv')
# Numbers 0, 1, 2, ... that older files carry.
_COUNTERS = r'(text|vision)_model\.embeddings\.position_ids'


def is_hf(state: Mapping) -> bool:
  """Whether a state dict has Hugging Face's names."""
  return any(k.startswith(('text_model.', 'vision_model.')) for k in state)


def to_public(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Public names; what has no public name keeps its own.

  Raises:
    CheckpointMismatch: queries, keys and values that do not belong together.
  """
  out, packed = {}, {}
  for key, value in state.items():
    tower = next((t for t in _TOWERS if key.startswith(t)), None)
    if re.fullmatch(_COUNTERS, key):
      continue
    if key in _PROJECTIONS:
      out[_PROJECTIONS[key]] = value.T
    elif tower:
      number, _, name = key.removeprefix(tower).partition('.')
      base = f'{_TOWERS[tower]}{number}.'
      part, _, kind = name.rpartition('.')
      if part in _QKV:
        packed.setdefault(f'{base}attn.in_proj_{kind}', {})[part] = value
      else:
        out[base + _renamed(name, _PARTS)] = value
    else:
      out[_renamed(key, _NAMES)] = value
  for key, parts in packed.items():
    out[key] = _pack(key, parts)
  return out


def _renamed(key, names):
  for start, public in names.items():
    if key.startswith(start):
      return public + key.removeprefix(start)
  return key


def _pack(key, parts):
  shapes = {name: tuple(x.shape) for name, x in parts.items()}
  if sorted(parts) != sorted(_QKV) or len(set(shapes.values())) != 1:
    raise CheckpointMismatch(
      f'{key} needs {", ".join(_QKV)} of one shape; the file has {shapes}.'
    )
  if () in shapes.values():
    raise CheckpointMismatch(f'{key}: scalars, expected arrays.')
  return np.concatenate([parts[name] for name in _QKV])


def from_public(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The other direction of `to_public`, for a whole state dict."""
  names = {public: hf for hf, public in _NAMES.items()}
  parts = {public: hf for hf, public in _PARTS.items()}
  projections = {public: hf for hf, public in _PROJECTIONS.items()}
  out = {}
  for key, value in state.items():
    hf, tower = next(
      ((h, t) for h, t in _TOWERS.items() if key.startswith(t)), (None, None)
    )
    if key in projections:
      out[projections[key]] = np.ascontiguousarray(value.T)
    elif tower:
      number, _, name = key.removeprefix(tower).partition('.')
      if name.startswith('attn.in_proj_'):
        kind = name.removeprefix('attn.in_proj_')
        for part, third in zip(_QKV, np.split(value, 3)):
          out[f'{hf}{number}.{part}.{kind}'] = third
      else:
        out[f'{hf}{number}.{_renamed(name, parts)}'] = value
    else:
      out[_renamed(key, names)] = value
  return out


def beside(path: str | os.PathLike) -> tuple[str, ...]:
  """Notes about what only the config.json of a Hugging Face folder tells."""
  path = os.fspath(path)
  folder = path if os.path.isdir(path) else os.path.dirname(path)
  try:
    with open(os.path.join(folder, 'config.json'), encoding='utf-8') as file:
      found = json.loads(file.read(1 << 20))
    towers = {t: found[t] for t in ('text_config', 'vision_config')}
    acts = {t: c.get('hidden_act', 'quick_gelu') for t, c in towers.items()}
  except (
    *(OSError, ValueError, KeyError),
    *(TypeError, AttributeError, RecursionError),
  ):
    return ()  # Another program's config, or none.
  strange = {t: a for t, a in acts.items() if a != 'quick_gelu'}
  if not strange:
    return ()
  return (
    f'config.json beside the file has hidden_act {strange!s:.100}; the model '
    'computes quick_gelu, as CLIP of OpenAI does, and will embed differently',
  )


def config(sizes: clip_lib.Sizes) -> dict:
  """The config.json that belongs beside the weights."""
  common = dict(
    hidden_act='quick_gelu',
    layer_norm_eps=1e-5,
    attention_dropout=0.0,
    projection_dim=sizes.dim,
  )

  def tower(width, layers):
    return dict(
      hidden_size=width,
      intermediate_size=4 * width,
      num_hidden_layers=layers,
      num_attention_heads=width // 64,
      **common,
    )

  return dict(
    architectures=['CLIPModel'],
    model_type='clip',
    projection_dim=sizes.dim,
    text_config=dict(
      model_type='clip_text_model',
      max_position_embeddings=sizes.context,
      vocab_size=sizes.vocab,
      # 2 tells the library to read sentences off at the largest id.
      bos_token_id=0,
      eos_token_id=2,
      pad_token_id=1,
      **tower(sizes.text_width, sizes.text_layers),
    ),
    vision_config=dict(
      model_type='clip_vision_model',
      image_size=sizes.image_size,
      patch_size=sizes.patch,
      **tower(sizes.vision_width, sizes.vision_layers),
    ),
  )
