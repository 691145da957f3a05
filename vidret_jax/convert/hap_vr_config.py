# SPDX-License-Identifier: Apache-2.0
"""Options of upstream's HAP-VR as ours, and back.

A checkpoint carries `args`, the command line of its training; what evaluation
reads of it are sizes and poolings. Checkpoints of S2VS and DnS say less, or
nothing, and were trained with Chamfer similarity.
"""

from collections.abc import Mapping
from typing import Any

from vidret_jax.convert import fields, hap_vr_rules
from vidret_jax.convert.hap_vr_files import Checkpoint
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models.hap_vr_model import HapVr

# Upstream's names of the poolings.
POOLS = dict(
  TopKChamfer='topk', Chamfer='chamfer', Max='max', Average='average'
)
# Ours -> upstream's, of the objective; numbers.
_OBJECTIVE = dict(
  video_sigma='qlap_sigma',
  video_rho='qlap_rho',
  frame_sigma='innerAP_qlap_sigma',
  frame_rho='innerAP_qlap_rho',
  top_rate='pseudo_label_top_rate',
  bottom_rate='pseudo_label_bottom_rate',
  temperature='temperature',
)
# Weights of the loss; that of `video` is a constant of upstream's code.
_WEIGHTS = dict(
  frame='inner_parameter', sshn='lambda_parameter', reg='r_parameter'
)
_LOSSES = 'loss_selected'
_FRAME_LOSS = 'TBInnerQuadLinearAP'
# Upstream's default where a command line does not say it.
_RATE = 0.1


class ConfigMismatch(CheckpointMismatch):
  """Options of upstream that describe a network we do not have."""


class _Fields(fields.Fields):
  error = ConfigMismatch
  hint = 'Take args as upstream stores them in its checkpoints.'


def shape_options(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
  """Options of `models.hap_vr.make` that shapes by upstream's key tell."""
  out: dict[str, Any] = {}
  weight = shapes.get('attention.transform.weight', ())
  bits = shapes.get('binarization.W', ())
  if len(weight) == 2:
    out['dim'] = weight[1]
  if len(bits) == 2:
    out['dim'] = bits[0]
  if any(k.startswith(f'{hap_vr_rules.COMPARATOR}.') for k in shapes):
    attention = any(k.startswith('attention.') for k in shapes)
    out.update(attention=attention, bits=bits[1] if len(bits) == 2 else None)
  return out


def model_options(checkpoint: Checkpoint) -> dict[str, Any]:
  """Keyword arguments of `models.hap_vr.make` that a checkpoint tells.

  Raises:
    ConfigMismatch: its args describe another network than its arrays, or one
      that we do not have.
  """
  shapes = {k: tuple(v.shape) for k, v in checkpoint.state.items()}
  found = shape_options(shapes)
  pools = dict(frame_pool='chamfer', video_pool='chamfer')
  if checkpoint.args is None:
    return dict(found, **pools) if checkpoint.visil else found
  root = _Fields(checkpoint.args, 'args')
  told = _network(root)
  wrong = [
    f'{k}: {v!r} and {told[k]!r}'
    for k, v in found.items()
    if k in told and told[k] != v
  ]
  if wrong:
    raise ConfigMismatch(
      '\n  '.join(['the arrays of the checkpoint and its args differ:', *wrong])
    )
  if not checkpoint.visil or 'f2f_sim_module' in root:
    pools = _pools(root)
  return {**told, **found, **pools, **_objective(root)}


def _network(root):
  if 'similarity_network' in root:
    root.only('similarity_network', 'ViSiL')
  out = {}
  if 'dims' in root:
    out['dim'] = root.whole('dims')
  if 'attention' in root:
    out['attention'] = root.flag('attention')
  if 'binarization' in root:
    binary = root.flag('binarization')
    out['bits'] = root.whole('binary_bits', 512) if binary else None
    if binary and 'attention' in out:
      # Where both are asked for, the first DnS takes codes; others refuse it.
      out['attention'] = False
  return out


def _pools(root):
  out = {}
  for name, key in (('frame', 'f'), ('video', 'v')):
    module = f'{key}2{key}_sim_module'
    pool = 'TopKChamfer'
    if module in root:
      pool = root.choice(module, tuple(POOLS))
    out[f'{name}_pool'] = POOLS[pool]
    if POOLS[pool] == 'topk':
      out[f'{name}_rate'] = root.number(f'{key}_topk_rate', _RATE)
  return out


def _objective(root):
  out = {k: root.number(v) for k, v in _OBJECTIVE.items() if v in root}
  loss = {k: root.number(v) for k, v in _WEIGHTS.items() if v in root}
  if _LOSSES in root and _FRAME_LOSS not in str(root.any(_LOSSES)):
    loss['frame'] = 0.0
  return dict(out, loss=loss) if loss else out


def differences(told: Mapping[str, Any], model: HapVr) -> list[str]:
  """Notes about options that no shape shows: how similarities are pooled."""
  pooling = model.pooling
  have = dict(
    frame_pool=pooling.frame,
    video_pool=pooling.video,
    frame_rate=pooling.frame_rate,
    video_rate=pooling.video_rate,
  )
  return [
    f'trained with {name}={told[name]!r}, the model has {value!r}: another '
    f'similarity; set model.{name}={told[name]!r} for that of the file'
    for name, value in have.items()
    if name in told and told[name] != value
  ]


def upstream_args(model: HapVr) -> dict[str, Any]:
  """The command line of a model, as far as upstream's evaluation reads it."""
  names = {ours: theirs for theirs, ours in POOLS.items()}
  pooling, ap, weights = model.pooling, model.ap, model.weights
  losses = ['QuadLinearAP', 'InfoNCE', 'SSHN']
  return dict(
    similarity_network='ViSiL',
    backbone='resnet',
    dims=model.dim,
    attention=model.attention,
    binarization=bool(model.bits),
    binary_bits=model.bits or 512,
    f2f_sim_module=names[pooling.frame],
    v2v_sim_module=names[pooling.video],
    f_topk_rate=pooling.frame_rate,
    v_topk_rate=pooling.video_rate,
    loss_selected=','.join([_FRAME_LOSS] * bool(weights.frame) + losses),
    use_pseudo_label=bool(weights.frame),
    qlap_sigma=ap.video_sigma,
    qlap_rho=ap.video_rho,
    innerAP_qlap_sigma=ap.frame_sigma,
    innerAP_qlap_rho=ap.frame_rho,
    pseudo_label_top_rate=ap.top,
    pseudo_label_bottom_rate=ap.bottom,
    temperature=model.temperature,
    inner_parameter=weights.frame,
    lambda_parameter=weights.sshn,
    r_parameter=weights.reg,
  )
