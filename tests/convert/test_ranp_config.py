# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/ranp_config.py without golden files."""

import copy

import pytest

from vidret_jax.convert import ranp_config
from vidret_jax.convert.ranp_config import ConfigMismatch
from vidret_jax.models import ranp

_TEXT = dict(
  num_words=9,
  dim_word=5,
  fix_word_embed=False,
  rnn_type='gru',
  bidirectional=True,
  rnn_hidden_size=8,
  num_layers=1,
  dropout=0.2,
)
_GRAPH = dict(
  num_roles=16, gcn_num_layers=1, gcn_attention=True, gcn_dropout=0.5
)
_VIDEO = dict(dim_embed=8, num_levels=3, share_enc=False, dropout=0.1)
_LOSS = dict(margin=0.2, max_violation=True, hard_topk=1, loss_direction='bi')
_TOKENS = dict(dim_embed=8, token_projection='gated', use_positional_embed=True)
BASES = dict(
  hgr=dict(
    _LOSS,
    subcfgs=dict(video_encoder=_VIDEO, text_encoder=dict(_TEXT, **_GRAPH)),
    attn_fusion='embed',
    simattn_sigma=4,
  ),
  vse=dict(
    _LOSS,
    subcfgs=dict(
      video_encoder=dict(dim_embed=8, dropout=0), text_encoder=_TEXT
    ),
  ),
  eao=dict(
    _LOSS,
    subcfgs=dict(
      video_encoder=dict(_TOKENS, dropout=0.2),
      text_encoder=dict(_TOKENS, num_words=9, dim_word=5, fix_word_embed=True),
      fusion=dict(
        dim_embed=8,
        projection_dim=6,
        projection='gated',
        individual_projections=True,
        use_positional_embed=False,
        max_frames_in_video=4,
        max_words_in_sent=3,
        fusion_params=dict(
          embed_dim=8,
          depth=1,
          num_heads=2,
          mlp_ratio=1.0,
          qkv_bias=True,
          drop_rate=0.0,
          attn_drop_rate=0.0,
          drop_path_rate=0.0,
          norm_layer=None,
          act_layer=None,
          use_cls_token=False,
        ),
      ),
    ),
  ),
)


def config(kind, **changes):
  """A config with changes by dotted name."""
  out = copy.deepcopy(BASES[kind])
  for key, value in changes.items():
    *path, last = key.split('.')
    node = out
    for part in path:
      node = node[part]
    node[last] = value
  return out


def mining(kind, **changes):
  options = ranp_config.model_config(config(kind, **changes))
  return ranp.make(**options).mining


@pytest.mark.parametrize('kind', BASES)
def test_a_model_is_built(kind):
  options = ranp_config.model_config(config(kind))
  assert options['backbone'] == ranp_config.family(config(kind)) == kind
  model = ranp.make(**options)
  assert model.dim == 8 and model.word_dim == 5
  assert ranp_config.differences(config(kind), model) == []


def test_options_of_hgr():
  text, video = 'subcfgs.text_encoder', 'subcfgs.video_encoder'
  changes = {
    'attn_fusion': 'sim',
    'simattn_sigma': 9,
    'loss_weights': [1, 0.2, 0.3, 0.4],
    f'{video}.share_enc': True,
    f'{text}.rnn_type': 'lstm',
    f'{text}.num_layers': 2,
    f'{text}.num_roles': 0,
    f'{text}.gcn_attention': False,
    f'{text}.num_words': 0,
  }
  options = ranp_config.model_config(config('hgr', **changes))
  assert options['num_words'] is None
  model = ranp.make(**{**options, 'num_words': 3})
  assert (model.fusion, model.sigma) == ('sim', 9.0)
  assert dict(model.level_weights) == dict(
    fused=1.0, sentence=0.2, verb=0.3, noun=0.4
  )
  assert model.share_video and not model.graph_attention
  assert (model.rnn, model.rnn_layers, model.num_roles) == ('lstm', 2, 0)
  dropout = model.word_dropout, model.video_dropout, model.graph_dropout
  assert dropout == (0.2, 0.1, 0.5)


def test_words_of_eao():
  ids = ranp_config.model_config(config('eao'))
  vectors = ranp_config.model_config(config('eao', use_word2vec=True))
  assert (ids['words'], ids['num_words']) == ('ids', 9)
  assert (vectors['words'], vectors['num_words']) == ('vectors', None)
  # The encoders' own flag is read by nothing.
  assert not ids['positions']


@pytest.mark.parametrize(
  'changes,expected',
  [
    ({}, dict(threshold=None, positives=False, hardest=True)),
    (dict(threshold_pos=1.0), dict(threshold=None)),
    (dict(threshold_pos=0.3), dict(threshold=0.3, positives=False)),
    (dict(max_violation=False), dict(hardest=False)),
    # Never handed to the loss.
    (dict(semi_hard_neg=True), dict(semi_hard=False, hardest=True)),
    (
      dict(mine_hard_positives=True, threshold_pos=0.3, margin_pos=0.1),
      dict(threshold=0.3, positives=True, negatives=True, margin_pos=0.1),
    ),
    (
      dict(mine_hard_positives=True, threshold_pos=0.3, rap_only=True),
      dict(positives=True, negatives=False),
    ),
    (dict(rap_only=True), dict(positives=False, negatives=True)),
    (dict(loss_direction='i2t'), dict(direction='v2t')),
    (dict(loss_direction='t2i', hard_topk=3), dict(direction='t2v', topk=3)),
  ],
)
def test_losses_of_hgr(changes, expected):
  got = mining('hgr', **changes)
  assert got.loss == 'triplet'
  assert {k: getattr(got, k) for k in expected} == expected


_W = dict(use_word2vec=True)
_P = dict(mine_hard_positives=True, threshold_pos=0.3)
_N, _NP = dict(use_normsoftmax=True), dict(use_normsoftmax_ranp=True)
_TRIPLET = dict(loss='triplet', positives=False, threshold=None)
_RAN = dict(loss='triplet', positives=False, threshold=0.3)
_RANP = dict(loss='triplet', positives=True, threshold=0.3)
_NCE = dict(loss='softmax', positives=False, threshold=None)
_NCE_RANP = dict(loss='softmax', positives=True, threshold=0.3)


@pytest.mark.parametrize(
  'changes,expected',
  [
    ({}, _TRIPLET),
    (_P, _RANP),
    (_N, _NCE),
    (_P | _N, _NCE),
    (_W, _TRIPLET),
    (_W | dict(threshold_pos=0.3), _RAN),
    (_W | _N, _NCE),
    (_W | _N | dict(threshold_pos=0.3), _NCE),
    (_W | _P, _RANP),
    (_W | _P | _N, _RANP),
    (_W | _NP | dict(threshold_pos=0.3), _NCE_RANP),
    (_W | _P | _NP, _NCE_RANP),
    (_W | _P | _N | _NP, _NCE_RANP),
    (_W | dict(semi_hard_neg=True), dict(semi_hard=True, hardest=True)),
    (_W | _N | dict(temperature=0.1), dict(temperature=0.1)),
    (_W | _P | _NP, dict(pairing='published', temperature=0.05)),
  ],
)
def test_losses_of_eao(changes, expected):
  got = mining('eao', **changes)
  assert {k: getattr(got, k) for k in expected} == expected


@pytest.mark.parametrize(
  'kind,changes,message',
  [
    ('hgr', dict(mine_hard_positives=True), 'threshold_pos.*less than 1'),
    ('eao', _W | _NP, 'threshold_pos.*less than 1'),
    ('eao', _W | _P | dict(rap_only=True), 'upstream does not have'),
    ('hgr', {'subcfgs.video_encoder.num_levels': 2}, 'num_levels is .2.'),
    ('hgr', {'subcfgs.text_encoder.rnn_hidden_size': 9}, 'rnn_hidden_size'),
    ('hgr', {'subcfgs.text_encoder.rnn_type': 'rnn'}, "'gru', 'lstm'"),
    ('hgr', {'subcfgs.text_encoder.num_layers': True}, 'expected a number'),
    ('hgr', {'subcfgs.text_encoder.num_layers': 1.5}, 'a whole number'),
    ('hgr', {'subcfgs.text_encoder.num_layers': 0}, 'at least 1'),
    ('hgr', {'subcfgs.text_encoder.bidirectional': 1}, 'true or false'),
    ('hgr', dict(margin=float('nan')), 'margin'),
    ('hgr', dict(attn_fusion=['embed']), 'attn_fusion'),
    ('hgr', dict(loss_weights=[1, 2]), 'four weights'),
    ('hgr', dict(loss_weights=[1, 2, 3, 'x']), 'loss_weights.noun'),
    ('hgr', {'subcfgs.video_encoder.dim_embed': 10**400}, 'no huge number'),
    ('hgr', dict(subcfgs=[]), 'expected an object'),
    ('hgr', {'subcfgs.text_encoder': None}, 'expected an object'),
    ('eao', {'subcfgs.text_encoder.dim_embed': 4}, 'dim_embed'),
    ('eao', {'subcfgs.text_encoder.token_projection': ''}, 'another network'),
    ('eao', {'subcfgs.fusion.fusion_params.qkv_bias': False}, 'qkv_bias'),
    ('eao', {'subcfgs.fusion.fusion_params.drop_rate': 0.1}, 'drop_rate'),
    ('eao', {'subcfgs.fusion.fusion_params.act_layer': 'relu'}, 'act_layer'),
  ],
)
def test_other_networks(kind, changes, message):
  with pytest.raises(ConfigMismatch, match=message):
    ranp_config.model_config(config(kind, **changes))


@pytest.mark.parametrize('kind', BASES)
def test_missing_keys(kind):
  def paths(node, at=()):
    for key, value in node.items():
      yield (*at, key)
      if isinstance(value, dict):
        yield from paths(value, (*at, key))

  # What may be absent, or tells the family.
  free = {'num_words', 'gcn_num_layers', 'fusion', 'norm_layer', 'act_layer'}
  free |= {'drop_rate', 'attn_drop_rate', 'drop_path_rate'}
  unread = {'use_positional_embed', 'num_levels', 'share_enc', 'dropout'}
  for path in paths(BASES[kind]):
    broken = copy.deepcopy(BASES[kind])
    node = broken
    for part in path[:-1]:
      node = node[part]
    del node[path[-1]]
    if path[-1] in free or (kind != 'hgr' and path[-1] in unread):
      continue
    with pytest.raises(ConfigMismatch, match=f"'{path[-1]}' is missing"):
      ranp_config.model_config(broken)


def test_differences():
  model = ranp.make(**ranp_config.model_config(config('hgr')))
  (note,) = ranp_config.differences(config('hgr', simattn_sigma=9), model)
  assert note.startswith('sigma: the checkpoint was trained with 9.0')
  (note,) = ranp_config.differences(config('vse'), model)
  assert "backbone 'vse'" in note and 'Hgr' in note
  # Of training only.
  assert not ranp_config.differences(config('hgr', margin=0.5), model)
