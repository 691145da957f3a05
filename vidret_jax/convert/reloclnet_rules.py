# SPDX-License-Identifier: Apache-2.0
"""The table of ReLoCLNet and XML: keys of upstream, leaves of ours."""

from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.reloclnet_config import NAMES
from vidret_jax.convert.rules import KERNEL, Form, Rule
from vidret_jax.models.reloclnet_model import Reloclnet


def _taps(x):
  return x[0, 0] if x.shape[:2] == (1, 1) else x


# A convolution of one channel to one: upstream [1, 1, k], a leaf [k].
TAPS = Form('squeezed', _taps, lambda x: x[None, None])


def rules(model: Reloclnet) -> tuple[Rule, ...]:
  """The table of a model, in state-dict order."""
  pair, xml = len(model.streams) > 1, model.variant == 'xml'
  table = [
    *_position('query_pos_embed', 'query/position'),
    *_position('ctx_pos_embed', 'position'),
    *_projection('query_input_proj', 'query/proj'),
    *_encoder('query_encoder', 'query/enc_1'),
  ]
  if not xml:
    table += _encoder('query_encoder1', 'query/enc_2')
  for leaf in model.streams:
    key = NAMES[leaf]
    table += _projection(f'{key}_input_proj', f'{leaf}/proj')
    for i in range(1, 3 if xml and pair else 4):
      table += _encoder(f'{key}_encoder{i}', f'{leaf}/enc_{i}')
    if pair:
      table += _attention(f'{key}_cross_att', f'{leaf}/cross')
      table += _norm(f'{key}_cross_layernorm', f'{leaf}/cross_norm')
    table += rules_lib.linear(f'{key}_query_linear', f'span/{leaf}')
  # XML has the convolutions of a single stream among what is that stream's.
  start = 'merged' if pair else NAMES[model.streams[0]]
  spans = [
    Rule(f'{start}_{end}_predictor.weight', f'params/span/{leaf}', TAPS)
    for end, leaf in (('st', 'start'), ('ed', 'end'))
  ]
  modular = Rule(
    'modular_vector_mapping.weight', 'params/query/modular/kernel', KERNEL
  )
  table += [modular, *spans] if pair else [*spans, modular]
  return tuple(table)


def _norm(key, leaf):
  return [
    Rule(f'{key}.weight', f'params/{leaf}/scale'),
    Rule(f'{key}.bias', f'params/{leaf}/bias'),
  ]


def _position(key, leaf):
  return [
    Rule(f'{key}.position_embeddings.weight', f'params/{leaf}/embedding'),
    *_norm(f'{key}.LayerNorm', f'{leaf}/norm'),
  ]


def _projection(key, leaf):
  return [
    *_norm(f'{key}.LayerNorm', f'{leaf}/norm'),
    *rules_lib.linear(f'{key}.net.1', f'{leaf}/dense'),
  ]


def _attention(key, leaf):
  return [
    rule
    for name in ('query', 'key', 'value')
    for rule in rules_lib.linear(f'{key}.{name}', f'{leaf}/{name}')
  ]


def _encoder(key, leaf):
  return [
    *_attention(f'{key}.self', leaf),
    *rules_lib.linear(f'{key}.output.dense', f'{leaf}/out'),
    *_norm(f'{key}.output.LayerNorm', f'{leaf}/norm'),
  ]
