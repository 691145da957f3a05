# SPDX-License-Identifier: Apache-2.0
"""EERCF checkpoints, and models that start from CLIP4Clip or from CLIP.

Upstream (`adxcreative/EERCF`) saves plain state dicts. Its initialisation
from a plain CLIP (`EERCF.from_pretrained`) is applied to files that lack what
EERCF adds. What upstream only logs, a shape that does not fit, is an error.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping
import dataclasses
import os
import re

import jax
import numpy as np

from vidret_jax.convert import clip as clip_convert
from vidret_jax.convert import clip_file, clip_hf, torch_write
from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.rules import CheckpointMismatch, Rule
from vidret_jax.models.eercf import Eercf

VIDEO_MAP, FRAME_MAP = 'global_mat_weight', 'frame_logit_weight'
PLACES, TEMPORAL = 'frame_position_embeddings.weight', 'transformerClip'
_CONV1, _CONV2 = 'clip.visual.conv1.weight', 'clip.visual.conv2.weight'
# All else at the top of a checkpoint belongs to heads that EERCF has not.
_OURS = (VIDEO_MAP, FRAME_MAP, PLACES, f'{TEMPORAL}.', 'clip.')
# Of the blocks that the text tower is too short to give.
SEED = 0


def rules(model: Eercf) -> tuple[Rule, ...]:
  """The table of the whole model, in state-dict order."""
  temporal = 'params/temporal'
  return (
    Rule(VIDEO_MAP, 'params/video_map'),
    Rule(FRAME_MAP, 'params/frame_map'),
    *clip_convert.rules(
      model.sizes, linear_patch=model.linear_patch, key='clip.'
    ),
    Rule(PLACES, f'{temporal}/positional_embedding'),
    *clip_convert.blocks(TEMPORAL, temporal, model.temporal_layers),
  )


def variable_shapes(model: Eercf) -> dict:
  """Shapes and types of the model's variables, without computing any."""
  s, frames = model.sizes, model.max_frames
  spec = jax.ShapeDtypeStruct
  batch = dict(
    text=spec((2, s.context), np.int32),
    frames=spec((2, frames, s.image_size, s.image_size, 3), np.uint8),
    frame_mask=spec((2, frames), np.bool_),
  )
  key = jax.eval_shape(lambda: jax.random.key(0))

  def init(key, batch):
    return model.init(key, batch, step=0, train=False, method='loss')

  return jax.eval_shape(init, key, batch)


# ------------------------------------------------------------------- reading


def load(
  path: str | os.PathLike, model: Eercf
) -> tuple[dict, rules_lib.Report]:
  """Reads an EERCF, CLIP4Clip or CLIP file into variables of `model`.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: it belongs to another model.
  """
  state, source = clip_file.read(path), os.fspath(path)
  variables, report = to_flax(state, model, source=source)
  notes = (*report.notes, *clip_hf.beside(path))
  return variables, dataclasses.replace(report, notes=notes)


def kind(state: Mapping[str, np.ndarray]) -> str:
  """What a state dict was saved by: 'eercf', 'clip4clip' or 'clip'."""
  if VIDEO_MAP in state or FRAME_MAP in state:
    return 'eercf'
  return 'clip4clip' if any(k.startswith('clip.') for k in state) else 'clip'


def to_flax(
  state: Mapping[str, np.ndarray],
  model: Eercf,
  *,
  source: str = 'checkpoint',
) -> tuple[dict, rules_lib.Report]:
  """A state dict of any `kind` as variables of `model`, and a report.

  Missing from files of CLIP and CLIP4Clip, and filled in as upstream does: both
  maps are the identity; positions and blocks of the temporal transformer are
  those of the text tower, and further blocks are drawn, always the same. A
  model with linear_patch='3d' starts from conv1 at the middle frame.
  """
  which = kind(state)
  if which == 'clip':
    state = {f'clip.{k}': v for k, v in state.items()}
  state, ignored, notes = _drop(state, model)
  towers = {
    k.removeprefix('clip.'): v
    for k, v in state.items()
    if k.startswith('clip.')
  }
  towers, resampled = clip_convert.fit(
    towers, model.sizes, source, _differences(state, model)
  )
  state.update({f'clip.{k}': v for k, v in towers.items()})
  clip_convert.check_numbers(state, source)
  origins = {}
  if model.linear_patch == '3d' and _CONV2 not in state:
    state[_CONV2] = _inflate(state.pop(_CONV1))
    origins[_CONV2] = 'conv1, zeros around'
    notes.append(f'{_CONV2} is absent: conv1 at the middle frame, zeros around')
  if which != 'eercf':
    origins.update(_initialise(state, model, source))
    notes += _summary(which, origins)
  variables, report = rules_lib.to_flax(
    state, rules(model), variable_shapes(model), source=source
  )
  rows = tuple((*r[:4], origins.get(r[0], r[4])) for r in report.rows)
  return variables, dataclasses.replace(
    report, rows=rows, ignored=ignored, notes=(*notes, *resampled)
  )


def _drop(state, model):
  """Leaves out what the model has no use for, by name and with a note."""
  notes, unused = [], set()
  foreign = [k for k in state if not k.startswith(_OURS)]
  if foreign:
    count = Counter(k.split('.')[0] for k in foreign)
    notes.append(
      'ignored, EERCF has no such parts: '
      + ', '.join(f'{top} ({n})' for top, n in sorted(count.items()))
    )
  scalars = {f'clip.{name}' for name in clip_convert.SCALARS}
  if model.linear_patch == '3d' and _CONV2 in state:
    unused.add(_CONV1)  # Upstream stores it and never calls it.
  gone = {*foreign, *scalars, *unused}
  kept = {k: v for k, v in state.items() if k not in gone}
  return kept, tuple(k for k in state if k in gone), notes


def _differences(state, model):
  """Options that shapes contradict: {option: (of the file, of the model)}."""
  options = {}
  frames = state.get(FRAME_MAP, np.empty(0)).shape
  if len(frames) == 2 and frames != (model.max_frames,) * 2:
    options['model.max_frames'] = frames[0], model.max_frames
  name = re.compile(TEMPORAL + r'\.resblocks\.\d+\.')
  layers = len({m.group() for m in map(name.match, state) if m})
  if layers and layers != model.temporal_layers:
    options['model.temporal_layers'] = layers, model.temporal_layers
  if model.linear_patch == '2d' and _CONV2 in state:
    options['model.linear_patch'] = '3d', '2d'
  return options


def _inflate(conv1):
  """[o, i, h, w] -> [o, i, 3, h, w], zero before and after the middle."""
  zeros = np.zeros_like(conv1)
  return np.stack([zeros, conv1, zeros], 2)


def _initialise(state, model, source):
  """Adds what a CLIP lacks; returns {key: where it comes from}."""
  s, origins = model.sizes, {}

  def add(key, value, origin):
    state[key], origins[key] = value, origin

  add(VIDEO_MAP, np.eye(s.dim, dtype=np.float32), 'identity')
  add(FRAME_MAP, np.eye(model.max_frames, dtype=np.float32), 'identity')
  blocks = any(k.startswith(f'{TEMPORAL}.') for k in state)
  if PLACES in state and blocks:
    return origins
  if s.text_width != s.dim:
    raise CheckpointMismatch(
      f'{source}: clip.text_width={s.text_width} and clip.dim={s.dim}. The '
      'temporal transformer starts as a copy of the text tower, so both must '
      'be equal; start from a CLIP where they are, or from an EERCF checkpoint.'
    )
  if PLACES not in state:
    add(PLACES, state['clip.positional_embedding'], 'text positions')
  for index in range(0 if blocks else model.temporal_layers):
    if index < s.text_layers:
      text = f'clip.transformer.resblocks.{index}.'
      names = [k.removeprefix(text) for k in state if k.startswith(text)]
      block, origin = {k: state[text + k] for k in names}, 'text block'
    else:
      block, origin = _drawn(s.dim, index), f'drawn, seed {SEED}'
    for key, value in block.items():
      add(f'{TEMPORAL}.resblocks.{index}.{key}', value, origin)
  return origins


def _drawn(width, index):
  """A temporal block as upstream leaves it where the text tower has none.

  Linear layers N(0, 0.02) with a zero bias, the packed projection uniform
  after Glorot (`torch.nn.MultiheadAttention`).
  """
  rng = np.random.default_rng([SEED, index])
  bound = (6 / (width + 3 * width)) ** 0.5
  shapes = {
    'attn.out_proj': (width, width),
    'mlp.c_fc': (4 * width, width),
    'mlp.c_proj': (width, 4 * width),
  }
  block = {
    'attn.in_proj_weight': rng.uniform(-bound, bound, (3 * width, width)),
    'attn.in_proj_bias': np.zeros(3 * width),
  }
  for name, shape in shapes.items():
    block[f'{name}.weight'] = rng.normal(0, 0.02, shape)
    block[f'{name}.bias'] = np.zeros(shape[0])
  for name in ('ln_1', 'ln_2'):
    block[f'{name}.weight'] = np.ones(width)
    block[f'{name}.bias'] = np.zeros(width)
  return {k: v.astype(np.float32) for k, v in block.items()}


def _summary(which, origins):
  what = 'plain CLIP' if which == 'clip' else 'a CLIP4Clip checkpoint'
  parts = [f'{VIDEO_MAP} and {FRAME_MAP} are the identity']
  if PLACES in origins:
    parts.append('the positions of frames are those of words')
  temporal = [o for k, o in origins.items() if k.startswith(TEMPORAL)]
  drawn = sum(o.startswith('drawn') for o in temporal)
  if temporal:
    parts.append(
      f'{len(temporal) - drawn} arrays of the temporal transformer are those '
      f'of the text tower, {drawn} are drawn'
    )
  return [f'the file is {what}, not a trained EERCF: {"; ".join(parts)}']


# ------------------------------------------------------------------- writing


def to_torch(
  variables: Mapping, model: Eercf, *, half: bool = False
) -> OrderedDict:
  """Variables as a state dict, in upstream's order.

  Args:
    variables: `params`.
    model: their model.
    half: see `convert.clip.to_torch`.
  """
  state = OrderedDict()
  for key, value in rules_lib.to_torch(variables, rules(model)).items():
    if key == 'clip.visual.ln_pre.weight' and model.linear_patch == '3d':
      # Strict loading expects it, and tools read dimensions off it.
      conv2 = rules_lib.flatten(variables)['params/clip/visual/conv2/kernel']
      state[_CONV1] = clip_convert.CONV_2D.to_torch(np.asarray(conv2)[1])
      state[_CONV1] = np.ascontiguousarray(state[_CONV1])
    state[key] = value
  if half:
    towers = {k: v for k, v in state.items() if k.startswith('clip.')}
    state.update(clip_convert.halved(towers))
  return state


def save(
  path: str | os.PathLike,
  variables: Mapping,
  model: Eercf,
  *,
  half: bool = False,
) -> rules_lib.Report:
  """Writes a `pytorch_model.bin` that upstream's --init_model loads."""
  state = to_torch(variables, model, half=half)
  torch_write.write(path, state)
  return rules_lib.report(rules(model), state, rules_lib.flatten(variables))
