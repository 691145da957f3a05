# SPDX-License-Identifier: Apache-2.0
"""What the shapes of a checkpoint of RANP, HGR or EAO tell of its network."""

from collections.abc import Mapping
from typing import Any


def options(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
  """Options of `models.ranp.make` that the shapes of a checkpoint tell.

  Args:
    shapes: by 'submodule.parameter'. Parts that are absent tell nothing, so
      that word vectors alone do not deny that there are roles.
  """
  out = {}
  text = 'text_encoder'
  table = shapes.get(f'{text}.embedding.we.weight', ())
  if len(table) == 2:
    out.update(num_words=table[0], word_dim=table[1])
  if any(k.startswith('fusion.fusion.') for k in shapes):
    return dict(out, backbone='eao', **_eao_shapes(shapes, out))
  hidden = shapes.get(f'{text}.rnn.weight_hh_l0', ())
  if len(hidden) == 2 and hidden[1]:
    gates = hidden[0] / hidden[1]
    rnn = [k.removeprefix(f'{text}.rnn.weight_hh_l') for k in shapes]
    layers = {k for k in rnn if k.isdigit()}
    out.update(
      dim=hidden[1],
      rnn={3: 'gru', 4: 'lstm'}.get(gates, f'{gates:g} gates'),
      rnn_layers=len(layers),
      bidirectional=f'{text}.rnn.weight_hh_l0_reverse' in shapes,
    )
  if 'video_encoder.ft_embed.weight' in shapes:
    out['backbone'] = 'vse'
  if 'video_encoder.level_embeds.0.weight' in shapes:
    share = 'video_encoder.level_embeds.1.weight' not in shapes
    out.update(backbone='hgr', share_video=share)
  if any(k.startswith(f'{text}.gcn.') for k in shapes):
    layers = _count(shapes, f'{text}.gcn.layers.', 3)
    roles = shapes.get(f'{text}.role_embedding.weight', (0,))
    out.update(
      backbone='hgr',
      graph_layers=layers,
      graph_attention=any('.edge_attn_' in k for k in shapes),
      num_roles=roles[0] if roles else 0,
    )
  return out


def _count(shapes, prefix, place):
  """How many numbers follow a prefix: layers, or blocks."""
  return len({k.split('.')[place] for k in shapes if k.startswith(prefix)})


def _eao_shapes(shapes, words):
  out, missing = {}, (0, 0)
  token = shapes.get('fusion.fusion.masking_token', ())
  if token:
    out['dim'] = token[0]
  blocks = _count(shapes, 'fusion.fusion.blocks.', 3)
  inner = shapes.get('fusion.fusion.blocks.0.mlp.fc1.weight', missing)
  if blocks:
    out['depth'] = blocks
  if len(inner) == 2 and inner[1]:
    out['mlp_ratio'] = inner[0] / inner[1]
  video = 'video_encoder.token_proj'
  if 'video_encoder.norm_layer.weight' in shapes:
    kinds = {f'{video}.cg.fc.weight': 'gated', f'{video}.weight': 'minimal'}
    found = [kind for key, kind in kinds.items() if key in shapes]
    out['token_projection'] = (found or [''])[0]
    out['words'] = 'ids' if words else 'vectors'
    out['positions'] = 'fusion.vid_pos_embed' in shapes
    out['cls_token'] = 'fusion.fusion.cls_token' in shapes
  for side, individual in (('proj', False), ('video_proj', True)):
    for end, kind in (('.cg.fc.weight', 'gated'), ('.weight', 'minimal')):
      shape = shapes.get(f'fusion.{side}{end}', ())
      if shape:
        out.update(projection_dim=shape[0], projection=kind)
        out['individual'] = individual
  for key, name in (('vid', 'max_frames'), ('txt', 'max_words')):
    shape = shapes.get(f'fusion.{key}_pos_embed', ())
    if len(shape) == 3:
      out[name] = shape[1]
  return out
