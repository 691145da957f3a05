# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/reloclnet_config.py."""

import math

import pytest

from tests.convert import test_reloclnet as small
from vidret_jax.convert import reloclnet_config as config
from vidret_jax.models import reloclnet

XML_ONLY = ('merge_two_stream', 'cross_att', 'use_self_attention')


def stored(name=small.PAIR, **changes):
  """The `model_cfg` of a small model."""
  return {**config.upstream_config(small.make(name), small.SIZES), **changes}


@pytest.mark.parametrize('name', small.MODELS)
@pytest.mark.parametrize('tef', ['', '_tef'])
def test_there_and_back(name, tef):
  model = small.make(name)
  context = '_'.join(config.NAMES[s] for s in model.streams) + tef
  found = config.upstream_config(model, small.SIZES, context)
  assert reloclnet.make(**config.model_options(found)) == model
  assert found['ctx_mode'] == context
  xml = model.variant == 'xml'
  assert all((key in found) == xml for key in XML_ONLY)
  assert ('lw_fcl' in found) != xml


@pytest.mark.parametrize(
  'context,streams',
  [
    ('video_sub_tef', ('video', 'subtitle')),
    ('sub_tef', ('subtitle',)),
    ('video', ('video',)),
    ('tef', ('video',)),
  ],
)
def test_streams(context, streams):
  assert config.streams(context) == streams


def test_hard_negatives_are_on_or_off():
  for value, epoch in ((True, 0), (False, -1)):
    options = config.model_options(stored(use_hard_negative=value))
    assert options['hard_start_epoch'] == epoch


@pytest.mark.parametrize(
  'change,told',
  [
    (dict(ctx_mode='audio'), 'ctx_mode'),
    (dict(hidden_size=0), 'hidden_size'),
    (dict(n_heads=2.5), 'n_heads'),
    (dict(max_ctx_l=2**40), 'max_ctx_l'),
    (dict(margin=math.nan), 'margin'),
    (dict(lw_vcl=-1), 'lw_vcl'),
    (dict(lw_vcl=None), 'lw_vcl'),
    (dict(conv_stride=2), 'conv_stride'),
    (dict(ranking_loss_type='mse'), 'ranking_loss_type'),
    (dict(use_hard_negative='no'), 'use_hard_negative'),
  ],
)
def test_strange_values(change, told):
  with pytest.raises(config.ConfigMismatch, match=f'model_cfg.{told} is'):
    config.model_options(stored(**change))


@pytest.mark.parametrize(
  'change',
  [
    dict(encoder_type='gru'),
    dict(span_predictor_type='cat_linear'),
    dict(stack_conv_predictor_conv_kernel_sizes=[3, 5]),
    dict(no_modular=True),
    dict(use_self_attention=False),
    dict(cross_att=False),
    dict(merge_two_stream=False),
  ],
)
def test_networks_of_xml_that_we_have_not(change):
  (key,) = change
  with pytest.raises(config.ConfigMismatch, match=f'{key}.*another network'):
    config.model_options(stored(small.XML, **change))


def test_missing_keys():
  whole = stored()
  del whole['n_heads']
  with pytest.raises(config.ConfigMismatch, match="'n_heads' is missing"):
    config.model_options(whole)
  with pytest.raises(config.ConfigMismatch, match='expected an object'):
    config.model_options([])


# ------------------------------------------------------------------- opt.json


def test_an_opt():
  found = config.run_config(small.opt())
  options = found['model']
  assert options['variant'] == 'reloclnet' and options['loss']['frame'] == 0.03
  assert found['data']['sampling'] == 'mean'
  assert found['search']['end_offset'] == 0
  assert config.feature_sizes(small.opt()) == dict(query=5, video=7, subtitle=6)
  sizes = config.feature_sizes(small.opt(ctx_mode='sub'))
  assert sizes == dict(query=5, subtitle=4)
  assert config.feature_sizes(small.opt(ctx_mode='tef')) == dict(
    query=5, video=2
  )


def test_an_opt_of_xml():
  found = config.run_config(small.xml_opt())
  assert found['model']['variant'] == 'xml'
  assert found['model']['hard_start_epoch'] == 20
  assert found['model']['loss']['frame'] == 0
  assert found['data']['sampling'] == 'first'
  assert found['search']['end_offset'] == 1
  # XML turns crossing off by itself where there is one stream.
  found = config.run_config(small.xml_opt(ctx_mode='sub', no_cross_att=False))
  assert found['model']['streams'] == ('subtitle',)
  for key in ('no_cross_att', 'no_merge_two_stream', 'no_self_att'):
    with pytest.raises(config.ConfigMismatch, match=f'opt.json.{key} is'):
      config.run_config(small.xml_opt(**{key: True}))


def test_missing_keys_of_an_opt():
  for key in ('q2c_alpha', 'clip_length', 'hard_negative_start_epoch'):
    whole = small.opt()
    del whole[key]
    with pytest.raises(config.ConfigMismatch, match=f"opt.json: key '{key}'"):
      config.run_config(whole)
