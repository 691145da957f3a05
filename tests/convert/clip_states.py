# SPDX-License-Identifier: Apache-2.0
"""State dicts of CLIP, EERCF and CLIP4Clip for tests, from written-out shapes.

The shapes are those of the original modules, not read off our tables.
"""

import numpy as np

from vidret_jax.models.clip import Sizes

SMALL = Sizes(
  vision_width=128,
  vision_layers=2,
  patch=4,
  image_size=12,
  text_width=64,
  text_layers=2,
  context=7,
  vocab=11,
  dim=64,
)


def clip_shapes(s: Sizes, linear_patch: str = '2d') -> dict:
  """{key: shape} of the public state dict."""
  w, t, p = s.vision_width, s.text_width, s.patch
  out = {
    'positional_embedding': (s.context, t),
    'text_projection': (t, s.dim),
    'logit_scale': (),
    'visual.class_embedding': (w,),
    'visual.positional_embedding': (1 + (s.image_size // p) ** 2, w),
    'visual.proj': (w, s.dim),
    'visual.conv1.weight': (w, 3, p, p),
    'token_embedding.weight': (s.vocab, t),
  }
  if linear_patch == '3d':
    out['visual.conv2.weight'] = (w, 3, 3, p, p)
  norms = {'visual.ln_pre': w, 'visual.ln_post': w, 'ln_final': t}
  for name, width in norms.items():
    out |= {f'{name}.weight': (width,), f'{name}.bias': (width,)}
  out |= block_shapes('visual.transformer', w, s.vision_layers)
  return out | block_shapes('transformer', t, s.text_layers)


def block_shapes(tower: str, width: int, count: int) -> dict:
  """{key: shape} of residual attention blocks."""
  out = {}
  for i in range(count):
    k = f'{tower}.resblocks.{i}'
    out |= {
      f'{k}.attn.in_proj_weight': (3 * width, width),
      f'{k}.attn.in_proj_bias': (3 * width,),
      f'{k}.attn.out_proj.weight': (width, width),
      f'{k}.attn.out_proj.bias': (width,),
      f'{k}.mlp.c_fc.weight': (4 * width, width),
      f'{k}.mlp.c_fc.bias': (4 * width,),
      f'{k}.mlp.c_proj.weight': (width, 4 * width),
      f'{k}.mlp.c_proj.bias': (width,),
    }
    for name in ('ln_1', 'ln_2'):
      out |= {f'{k}.{name}.weight': (width,), f'{k}.{name}.bias': (width,)}
  return out


def eercf_shapes(
  s: Sizes, frames: int, layers: int, linear_patch: str = '2d'
) -> dict:
  """{key: shape} of a trained EERCF."""
  towers = clip_shapes(s, linear_patch)
  return {
    'global_mat_weight': (s.dim, s.dim),
    'frame_logit_weight': (frames, frames),
    **{f'clip.{k}': v for k, v in towers.items()},
    'frame_position_embeddings.weight': (s.context, s.dim),
    **block_shapes('transformerClip', s.dim, layers),
  }


def draw(shapes: dict, seed: int = 0, dtype=np.float32) -> dict:
  """Random arrays of these shapes, exact in half precision."""
  rng = np.random.default_rng(seed)
  return {
    k: rng.normal(size=shape).astype(np.float16).astype(dtype)
    for k, shape in shapes.items()
  }


def empty(shapes: dict, dtype=np.float32) -> dict:
  """Arrays of these shapes that take no memory."""
  return {k: np.broadcast_to(dtype(0), shape) for k, shape in shapes.items()}


def scalars(s: Sizes) -> dict:
  """The three numbers in official files."""
  return dict(
    input_resolution=np.array(s.image_size),
    context_length=np.array(s.context),
    vocab_size=np.array(s.vocab),
  )


def hf_state(public: dict) -> dict:
  """A public state dict in Hugging Face's layout, written out by hand."""
  out = {
    'logit_scale': public['logit_scale'],
    'text_model.embeddings.position_ids': np.arange(
      len(public['positional_embedding'])
    )[None],
    'vision_model.embeddings.position_ids': np.arange(
      len(public['visual.positional_embedding'])
    )[None],
    'text_model.embeddings.token_embedding.weight': public[
      'token_embedding.weight'
    ],
    'text_model.embeddings.position_embedding.weight': public[
      'positional_embedding'
    ],
    'vision_model.embeddings.class_embedding': public['visual.class_embedding'],
    'vision_model.embeddings.patch_embedding.weight': public[
      'visual.conv1.weight'
    ],
    'vision_model.embeddings.position_embedding.weight': public[
      'visual.positional_embedding'
    ],
    'visual_projection.weight': public['visual.proj'].T,
    'text_projection.weight': public['text_projection'].T,
  }
  for ours, theirs in (
    ('visual.ln_pre', 'vision_model.pre_layrnorm'),
    ('visual.ln_post', 'vision_model.post_layernorm'),
    ('ln_final', 'text_model.final_layer_norm'),
  ):
    for end in ('weight', 'bias'):
      out[f'{theirs}.{end}'] = public[f'{ours}.{end}']
  for ours, theirs in (
    ('visual.transformer', 'vision_model'),
    ('transformer', 'text_model'),
  ):
    i = 0
    while f'{ours}.resblocks.{i}.ln_1.weight' in public:
      a, b = f'{ours}.resblocks.{i}', f'{theirs}.encoder.layers.{i}'
      for end in ('weight', 'bias'):
        packed = public[f'{a}.attn.in_proj_{end}']
        width = len(packed) // 3
        for j, name in enumerate(('q_proj', 'k_proj', 'v_proj')):
          part = packed[j * width : (j + 1) * width]
          out[f'{b}.self_attn.{name}.{end}'] = part
        for x, y in (
          ('attn.out_proj', 'self_attn.out_proj'),
          ('ln_1', 'layer_norm1'),
          ('ln_2', 'layer_norm2'),
          ('mlp.c_fc', 'mlp.fc1'),
          ('mlp.c_proj', 'mlp.fc2'),
        ):
          out[f'{b}.{y}.{end}'] = public[f'{a}.{x}.{end}']
      i += 1
  return {k: np.asarray(v, order='C') for k, v in out.items()}


def same(got: dict, want: dict) -> None:
  """Asserts equal keys and values, types aside."""
  assert sorted(got) == sorted(want)
  for key, value in want.items():
    np.testing.assert_array_equal(got[key], value, err_msg=key)
