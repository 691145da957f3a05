# SPDX-License-Identifier: Apache-2.0
"""Upstream's `model.json` as keyword arguments of `models.ranp.make`."""

from collections.abc import Mapping
from typing import Any

from vidret_jax.convert import fields
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models import mined, ranp

_DIRECTIONS = {'bi': 'bi', 'i2t': 'v2t', 't2i': 't2v'}
_LEVELS = ('fused', 'sentence', 'verb', 'noun')
# Of the code, where a run of it has not written the key.
_TEMPERATURE, _MARGIN_POS = 0.05, 0.2
# Options that no shape shows and that training does not hide either.
_COMPARED = dict(hgr=('fusion', 'sigma'), eao=('heads', 'words'), vse=())


class ConfigMismatch(CheckpointMismatch):
  """An upstream config that describes a network we do not have."""


class _Node(fields.Fields):
  """A part of a `model.json`."""

  error = ConfigMismatch
  hint = 'Take the model.json that upstream writes into the folder of a run.'


def family(config: Mapping) -> str:
  """Which driver wrote a config: 'hgr', 'eao' or 'vse'."""
  parts = _Node(config, 'model.json').node('subcfgs')
  if 'fusion' in parts:
    return 'eao'
  return 'hgr' if 'gcn_num_layers' in parts.node('text_encoder') else 'vse'


def model_config(config: Mapping) -> dict[str, Any]:
  """Keyword arguments of `models.ranp.make` for an upstream config.

  `num_words` is None where the config leaves it to the vocabulary.

  Raises:
    ConfigMismatch: a key is missing, or describes another network.
  """
  root = _Node(config, 'model.json')
  build = dict(hgr=_hgr, eao=_eao, vse=_vse)[family(config)]
  return build(root, root.node('subcfgs'))


def _hgr(root, parts):
  video, text = parts.node('video_encoder'), parts.node('text_encoder')
  video.only('num_levels', 3)
  weights = root.any('loss_weights', None)
  if weights is not None:
    if not isinstance(weights, (list, tuple)) or len(weights) != len(_LEVELS):
      raise root.bad('loss_weights', weights, 'four weights or null')
    values = _Node(dict(zip(_LEVELS, weights)), 'model.json.loss_weights')
    weights = {level: values.number(level) for level in _LEVELS}
  return dict(
    backbone='hgr',
    mining=_hgr_mining(root),
    **_recurrent(video, text),
    num_roles=text.whole('num_roles', at_least=0),
    graph_layers=text.whole('gcn_num_layers', at_least=0),
    graph_attention=text.flag('gcn_attention'),
    graph_dropout=text.number('gcn_dropout'),
    fusion=root.choice('attn_fusion', ('embed', 'sim')),
    sigma=root.number('simattn_sigma'),
    share_video=video.flag('share_enc'),
    level_weights=weights,
    # Upstream compares one kind of class together with stand-ins for the other.
    level_relevance='dummy',
  )


def _recurrent(video, text):
  dim = video.whole('dim_embed')
  text.only('rnn_hidden_size', dim)
  return dict(
    num_words=text.whole('num_words', 0, at_least=0) or None,
    dim=dim,
    word_dim=text.whole('dim_word'),
    rnn=text.choice('rnn_type', ('gru', 'lstm')),
    rnn_layers=text.whole('num_layers'),
    bidirectional=text.flag('bidirectional'),
    fix_words=text.flag('fix_word_embed'),
    word_dropout=text.number('dropout'),
    video_dropout=video.number('dropout'),
  )


def _vse(root, parts):
  video, text = parts.node('video_encoder'), parts.node('text_encoder')
  return dict(backbone='vse', mining=_triplet(root), **_recurrent(video, text))


def _eao(root, parts):
  video, text = parts.node('video_encoder'), parts.node('text_encoder')
  fusion = parts.node('fusion')
  inner = fusion.node('fusion_params')
  dim = inner.whole('embed_dim')
  for node in (video, text, fusion):
    node.only('dim_embed', dim)
  inner.only('qkv_bias', True)
  for key in ('drop_rate', 'attn_drop_rate', 'drop_path_rate'):
    inner.only(key, 0.0, 0.0)
  for key in ('norm_layer', 'act_layer'):
    inner.only(key, None, None)
  kinds = ('gated', 'minimal', '')
  tokens = video.choice('token_projection', kinds)
  text.only('token_projection', tokens)
  vectors = root.flag('use_word2vec', False)
  words = text.whole('num_words', 0, at_least=0) or None
  return dict(
    backbone='eao',
    mining=_eao_mining(root),
    num_words=None if vectors else words,
    dim=dim,
    word_dim=text.whole('dim_word'),
    heads=inner.whole('num_heads'),
    depth=inner.whole('depth'),
    mlp_ratio=inner.number('mlp_ratio'),
    projection_dim=fusion.whole('projection_dim'),
    token_projection=tokens,
    projection=fusion.choice('projection', kinds),
    individual=fusion.flag('individual_projections'),
    # The encoders have a flag of that name, too, which nothing reads.
    positions=fusion.flag('use_positional_embed'),
    cls_token=inner.flag('use_cls_token'),
    words='vectors' if vectors else 'ids',
    fix_words=text.flag('fix_word_embed'),
    max_frames=fusion.whole('max_frames_in_video'),
    max_words=fusion.whole('max_words_in_sent'),
  )


# -------------------------------------------------------------------- mining


def _triplet(root, **changes):
  """Options of the loss that every class of models has."""
  return dict(
    dict(
      loss='triplet',
      hardest=root.flag('max_violation'),
      topk=root.whole('hard_topk'),
      direction=_DIRECTIONS[root.choice('loss_direction', _DIRECTIONS)],
      margin=root.number('margin'),
    ),
    **changes,
  )


def _hgr_mining(root):
  """Upstream `multilevel_match.py`: which class of models is built.

  `semi_hard_neg` is not passed on to the loss there, and so it is not here.
  """
  if root.flag('mine_hard_positives', False):
    return _triplet(
      root,
      **_positives(root),
      negatives=not root.flag('rap_only', False),
    )
  return _triplet(root, threshold=_threshold(root))


def _eao_mining(root):
  """Upstream `eao_match.py`: a chain of tests, of which later ones win."""
  vectors = root.flag('use_word2vec', False)
  positives = root.flag('mine_hard_positives', False)
  softmax = root.flag('use_normsoftmax', False)
  semi = dict(semi_hard=root.flag('semi_hard_neg', False))
  nce = dict(
    loss='softmax', temperature=root.number('temperature', _TEMPERATURE)
  )
  if not vectors:
    if softmax:
      return nce
    return _triplet(root, **semi, **(_positives(root) if positives else {}))
  if positives and root.flag('rap_only', False):
    raise ConfigMismatch(
      'model.json: rap_only with use_word2vec names a class of models that '
      'upstream does not have; clear one of them.'
    )
  if root.flag('use_normsoftmax_ranp', False):
    return dict(
      nce,
      positives=True,
      threshold=_below_one(root),
      # Upstream's first extra term takes a clip's index for a caption's.
      pairing='published',
    )
  if positives:
    return _triplet(root, **semi, **_positives(root))
  if softmax:
    return nce
  return _triplet(root, **semi, threshold=_threshold(root))


def _positives(root):
  return dict(
    positives=True,
    threshold=_below_one(root),
    margin_pos=root.number('margin_pos', _MARGIN_POS),
  )


def _threshold(root):
  """None where every pair counts as irrelevant, which 1 says upstream."""
  value = root.number('threshold_pos', 1.0)
  return value if value < 1 else None


def _below_one(root):
  value = root.number('threshold_pos', 1.0)
  if value >= 1:
    raise root.bad('threshold_pos', value, 'less than 1 with positives')
  return value


def differences(config: Mapping, model: mined.Mined) -> list[str]:
  """Where a model departs from a run's config in ways no shape shows.

  Options that only concern training are left out.
  """
  try:
    options = model_config(config)
    options['num_words'] = options['num_words'] or 1
    other = ranp.make(**options)
  except ValueError as error:
    return [str(error)]
  if type(other) is not type(model):
    return [
      f'model.json is of the backbone {options["backbone"]!r}, the model is '
      f'{type(model).__name__}'
    ]
  return [
    f'{name}: the checkpoint was trained with {getattr(other, name)!r}, the '
    f'model has {getattr(model, name)!r}'
    for name in _COMPARED[options['backbone']]
    if getattr(other, name) != getattr(model, name)
  ]
