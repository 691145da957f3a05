# SPDX-License-Identifier: Apache-2.0
"""Names of arrays in checkpoints of RANP, HGR and EAO, and ours.

A key is 'submodule.parameter' of upstream's {submodule: {parameter: tensor}}.
"""

import numpy as np

from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.rules import KERNEL, LEADING_ONE, Form, Rule
from vidret_jax.models import eao, hgr, mined, vse

WORDS = 'text_encoder.embedding.we.weight'
# What the map of clip features is called; its input is as wide as they are.
FEATURE_MAPS = (
  'params/video/level_0/kernel',
  'params/video/token/fc/kernel',
  'params/video/token/kernel',
  'params/video/map/kernel',
)


def _first_of_two(x: np.ndarray) -> np.ndarray:
  return x[0, 0] if x.shape[:2] == (1, 1) else x


def _two_before(x: np.ndarray) -> np.ndarray:
  return x[None, None]


LEADING_ONES = Form('squeezed', _first_of_two, _two_before)


def rules(model: mined.Mined) -> tuple[Rule, ...]:
  """The table of a model, in state-dict order."""
  for kind, build in ((hgr.Hgr, _hgr), (eao.Eao, _eao), (vse.Vse, _vse)):
    if isinstance(model, kind):
      return tuple(build(model))
  raise TypeError(f'{type(model).__name__} is no model of the system ranp')


def _hgr(model):
  video, text = 'video_encoder', 'text_encoder'
  table = []
  for k in range(1 if model.share_video else len(hgr.LEVELS)):
    table += rules_lib.linear(f'{video}.level_embeds.{k}', f'video/level_{k}')
  table += rules_lib.linear(f'{video}.ft_attn', 'video/frame_attn')
  table += _words(model)
  table += rules_lib.linear(f'{text}.ft_attn', 'text/word_attn')
  if model.num_roles:
    table += [Rule(f'{text}.role_embedding.weight', 'params/text/roles')]
  for k in range(model.graph_layers):
    key, leaf = f'{text}.gcn.layers.{k}', f'text/graph/layer_{k}'
    table += [
      Rule(f'{key}.ctx_layer.weight', f'params/{leaf}/context/kernel', KERNEL),
      *_layer_norm(f'{key}.layernorm', f'{leaf}/norm'),
    ]
    for name in ('query', 'key') if model.graph_attention else ():
      table += rules_lib.linear(f'{key}.edge_attn_{name}', f'{leaf}/{name}')
  return table


def _words(model):
  """The embedding and the GRU or LSTM of hgr and vse."""
  table = [Rule(WORDS, 'params/text/embedding')]
  directions = dict(forward='', backward='_reverse')
  for k in range(model.rnn_layers):
    for name in list(directions)[: 1 + model.bidirectional]:
      leaf, end = f'params/text/rnn/layer_{k}/{name}', directions[name]
      for upstream, ours, form in (
        ('weight_ih', 'input_kernel', KERNEL),
        ('weight_hh', 'hidden_kernel', KERNEL),
        # Merged, the two biases would move half as fast under Adam.
        ('bias_ih', 'input_bias', rules_lib.SAME),
        ('bias_hh', 'hidden_bias', rules_lib.SAME),
      ):
        key = f'text_encoder.rnn.{upstream}_l{k}{end}'
        table.append(Rule(key, f'{leaf}/{ours}', form))
  return table


def _eao(model):
  table = []
  for side in ('video', 'text'):
    if side == 'text' and model.words == 'ids':
      table += [Rule(WORDS, 'params/text/embedding')]
    table += _layer_norm(f'{side}_encoder.norm_layer', f'{side}/norm')
    table += _projection(
      f'{side}_encoder.token_proj', f'{side}/token', model.token_projection
    )
  if model.positions:
    for key, leaf in (('vid', 'video'), ('txt', 'text')):
      leaf = f'params/positions/{leaf}'
      table.append(Rule(f'fusion.{key}_pos_embed', leaf, LEADING_ONE))
  for side in ('video', 'text') if model.individual else ('shared',):
    key = 'proj' if side == 'shared' else f'{side}_proj'
    table += _projection(
      f'fusion.{key}', f'projection/{side}', model.projection
    )
  key, leaf = 'fusion.fusion', 'params/fusion'
  if model.cls_token:
    table.append(Rule(f'{key}.cls_token', f'{leaf}/cls_token', LEADING_ONES))
  table.append(Rule(f'{key}.masking_token', f'{leaf}/masking_token'))
  for k in range(model.depth):
    table += _block(f'{key}.blocks.{k}', f'fusion/block_{k}')
  # Stored and never applied, there and here.
  return table + _layer_norm(f'{key}.norm', 'fusion/norm')


def _block(key, leaf):
  return [
    *_layer_norm(f'{key}.norm1', f'{leaf}/ln_1'),
    *rules_lib.linear(f'{key}.attn.qkv', f'{leaf}/attn/in_proj'),
    *rules_lib.linear(f'{key}.attn.proj', f'{leaf}/attn/out_proj'),
    *_layer_norm(f'{key}.norm2', f'{leaf}/ln_2'),
    *rules_lib.linear(f'{key}.mlp.fc1', f'{leaf}/mlp/c_fc'),
    *rules_lib.linear(f'{key}.mlp.fc2', f'{leaf}/mlp/c_proj'),
  ]


def _projection(key, leaf, kind):
  if kind == 'gated':
    return [
      *rules_lib.linear(f'{key}.fc', f'{leaf}/fc'),
      *rules_lib.linear(f'{key}.cg.fc', f'{leaf}/gate'),
    ]
  return rules_lib.linear(key, leaf) if kind == 'minimal' else []


def _layer_norm(key, leaf):
  return [
    Rule(f'{key}.weight', f'params/{leaf}/scale'),
    Rule(f'{key}.bias', f'params/{leaf}/bias'),
  ]


def _vse(model):
  return [
    *rules_lib.linear('video_encoder.ft_embed', 'video/map'),
    *_words(model),
  ]
