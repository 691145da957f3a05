# SPDX-License-Identifier: Apache-2.0
"""Models and weights of the golden files of HAP-VR."""

from collections.abc import Mapping
import json
import pathlib

import numpy as np
import pytest

from vidret_jax.models import hap_vr, hap_vr_model

# The golden README's allowances.
FORWARD = dict(rtol=1e-5, atol=2e-5)
PARAMETER = dict(rtol=0, atol=1e-6)
# Of binary regions while training, which erf makes steep.
SOFT_BITS = dict(rtol=0, atol=2e-2)
# Share of bits whose sign may be another one.
FLIPS = 1e-3
# Upstream's names of poolings -> ours.
POOLS = dict(
  TopKChamfer='topk', Chamfer='chamfer', Max='max', Average='average'
)
# What the published commands have, for files that do not say.
PUBLISHED = dict(frame_rate=0.1, video_rate=0.03)
# Upstream's names of the parts of the loss -> ours.
TERMS = dict(
  inner='frame',
  ap='video',
  nce='nce',
  hardneg='hardneg',
  self='self',
  reg='reg',
)
# Upstream's module -> ours, and the axes of upstream's weight in our order.
_MODULES = {
  'attention.transform': ('attention/transform', (1, 0)),
  'attention.context_vector': ('attention/context', (1, 0)),
  'comparator_module.conv1': ('comparator/conv1', (2, 3, 1, 0)),
  'comparator_module.conv2': ('comparator/conv2', (2, 3, 1, 0)),
  'comparator_module.conv3': ('comparator/conv3', (2, 3, 1, 0)),
  'comparator_module.fconv': ('comparator/head', (2, 3, 1, 0)),
  'binarization': ('binarization', (0, 1)),
}


def gradient(want: np.ndarray) -> dict[str, float]:
  """What a gradient may differ by."""
  return dict(rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(want).max())))


def folder(golden_root: pathlib.Path) -> pathlib.Path:
  """The files of this system."""
  return golden_root / 'hap_vr'


def present(path: pathlib.Path) -> pathlib.Path:
  """The path; skips the test where nothing is there."""
  if not path.exists():
    pytest.skip(f'{path} is absent')
  return path


def from_torch(state: Mapping[str, np.ndarray]) -> dict:
  """Our tree of parameters from upstream's names."""
  out = {}
  for key, value in state.items():
    module, leaf = key.rsplit('.', 1)
    path, axes = _MODULES[module]
    node = out
    for part in path.split('/'):
      node = node.setdefault(part, {})
    kernel = leaf in ('weight', 'W')
    node['kernel' if kernel else 'bias'] = np.asarray(
      value.transpose(axes) if kernel else value
    )
  return out


def to_torch(params: Mapping) -> dict[str, np.ndarray]:
  """Undoes `from_torch`."""
  out = {}
  for module, (path, axes) in _MODULES.items():
    node = params
    for part in path.split('/'):
      node = node.get(part, {})
    if 'kernel' in node:
      name = 'W' if module == 'binarization' else 'weight'
      kernel = np.asarray(node['kernel'])
      out[f'{module}.{name}'] = kernel.transpose(np.argsort(axes))
    if 'bias' in node:
      out[f'{module}.bias'] = np.asarray(node['bias'])
  return out


def sizes(state: Mapping[str, np.ndarray]) -> dict:
  """Options of a model that a state dict decides."""
  attention = 'attention.transform.weight' in state
  out = dict(attention=attention)
  if attention:
    out['dim'] = len(state['attention.transform.weight'])
  if 'binarization.W' in state:
    out['dim'], out['bits'] = state['binarization.W'].shape
  return out


def make(state: Mapping[str, np.ndarray], **options):
  """Model and variables of a state dict."""
  model = hap_vr.make(**{**PUBLISHED, **sizes(state), **options})
  return model, {'params': from_torch(state)}


def pooling(name: str) -> dict:
  """Options of a mode 'f2f|v2v|f_topk_rate|v_topk_rate'."""
  frame, video, frame_rate, video_rate = name.split('|')
  return dict(
    frame_pool=POOLS[frame],
    video_pool=POOLS[video],
    frame_rate=float(frame_rate),
    video_rate=float(video_rate),
  )


def config(cfg: str) -> dict:
  """Upstream's options of a run, stored as JSON."""
  return json.loads(str(cfg))


def training_options(cfg: Mapping) -> dict:
  """Those of the model, from upstream's options."""
  return dict(
    dim=cfg['dims'],
    attention=cfg['attention'],
    bits=cfg['binary_bits'] if cfg['binarization'] else None,
    frame_pool=POOLS[cfg['f2f_sim_module']],
    video_pool=POOLS[cfg['v2v_sim_module']],
    frame_rate=cfg['f_topk_rate'],
    video_rate=cfg['v_topk_rate'],
    video_sigma=cfg['qlap_sigma'],
    video_rho=cfg['qlap_rho'],
    frame_sigma=cfg['innerAP_qlap_sigma'],
    frame_rho=cfg['innerAP_qlap_rho'],
    top_rate=cfg['pseudo_label_top_rate'],
    bottom_rate=cfg['pseudo_label_bottom_rate'],
    temperature=cfg['temperature'],
    # Upstream's 4 is in its code.
    loss=dict(
      frame=cfg['inner_parameter'],
      video=4.0,
      nce=1.0,
      sshn=cfg['lambda_parameter'],
      reg=cfg['r_parameter'],
    ),
  )


def schedule(cfg: Mapping) -> dict:
  """Upstream's learning rate, over its `iter_epochs` updates."""
  return dict(
    decay='warmup_cosine',
    decay_steps=cfg['iter_epochs'],
    warmup=cfg['warmup_iters'] / cfg['iter_epochs'],
    start=cfg['warmup_lr_init'],
    final=cfg['final_lr'],
  )


def videos(features: list[np.ndarray], frames: int) -> dict:
  """Videos of any lengths as a padded batch; padding is not zero."""
  _, regions, dim = features[0].shape
  out = np.full((len(features), frames, regions, dim), 7.0, np.float32)
  for row, x in zip(out, features):
    row[: len(x)] = x
  length = np.asarray([len(x) for x in features], np.int32)
  return dict(regions=out, length=length)


def evaluate(model: hap_vr_model.HapVr, queries, items):
  """[q, v]: what an evaluation gives a batch of queries and one of items."""
  return model.fine(model.encode_query(queries), model.encode_item(items))
