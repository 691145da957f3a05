# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/ce.py and convert/ce_config.py without golden files."""

import copy

import jax
import numpy as np
import pytest

from vidret_jax.convert import ce as convert
from vidret_jax.convert import ce_config, rules, torch_file
from vidret_jax.models import ce

EXPERTS = (
  ('audio', dict(dim=5, max_tokens=4, clusters=3)),
  ('scene.x.0', dict(dim=7)),
  ('speech', dict(dim=4, max_tokens=2, clusters=2)),
  ('ocr', dict(dim=4, max_tokens=3, clusters=2)),
)
TEXT = dict(dim=10, max_tokens=6, clusters=4, ghosts=1)


def random_variables(model, seed=0):
  rng = np.random.default_rng(seed)

  def draw(x):
    if x.dtype == np.int32:
      return rng.integers(1, 99, x.shape, dtype=np.int32)
    return rng.normal(size=x.shape).astype(np.float32)

  return jax.tree.map(draw, convert.variable_shapes(model))


@pytest.mark.parametrize('gating', ce.GATINGS)
def test_every_network_goes_both_ways(gating, tmp_path):
  model = ce.make(EXPERTS, TEXT, dim=6, gating=gating)
  variables = random_variables(model)
  convert.save(tmp_path / 'x.pth', variables, model)
  got, report = convert.load(tmp_path / 'x.pth', model)
  jax.tree.map(np.testing.assert_array_equal, got, variables)
  assert not report.notes


def test_keys_are_in_upstream_s_order():
  model = ce.make(EXPERTS, TEXT, dim=6)
  keys = [r.key for r in convert.rules(model)]
  pooling = [k.split('.')[1] for k in keys if k.startswith('pooling.')]
  assert list(dict.fromkeys(pooling)) == ['ocr', 'audio', 'speech']
  tops = dict.fromkeys(
    '.'.join(k.split('.')[:2]) for k in keys if k.startswith('ce.')
  )
  assert list(tops) == [
    'ce.moe_fc',
    'ce.video_dim_reduce',
    'ce.g_reason_1',
    'ce.g_reason_shared',
    'ce.video_GU',
    'ce.text_GU',
  ]
  assert 'ce.g_reason_shared.5.weight' in keys
  plain = [
    r.key
    for r in convert.rules(
      ce.make(EXPERTS, TEXT, dim=6, g_norm=False, h_layers=1)
    )
  ]
  assert 'ce.g_reason_shared.3.weight' in plain
  assert 'ce.h_reason.1.weight' in plain


def test_expert_numbers_follow_the_sorted_names():
  model = ce.make(EXPERTS, TEXT, dim=6)
  leaves = {r.key: r.leaf for r in convert.rules(model)}
  order = [leaves[f'ce.video_dim_reduce.{i}.fc.bias'] for i in range(4)]
  assert order == [
    f'params/projection_{n}/fc/bias'
    for n in ('audio', 'ocr', 'scene_x_0', 'speech')
  ]


def test_leftovers_of_released_files_are_ignored():
  model = ce.make(EXPERTS, TEXT, dim=6)
  state = dict(convert.to_torch(random_variables(model), model))
  state['ce.moe_fc_bottleneck1.weight'] = np.zeros((2, 2), 'f')
  state['ce.moe_cg.bias'] = np.zeros(2, 'f')
  _, report = convert.to_flax(state, model)
  assert len(report.ignored) == 2


def test_another_architecture():
  model = ce.make(EXPERTS, TEXT, dim=6)
  state = convert.to_torch(random_variables(model), model)
  for other in (dict(dim=7), dict(gating='none'), dict(g_norm=False)):
    with pytest.raises(rules.CheckpointMismatch, match='another architecture'):
      convert.to_flax(state, ce.make(EXPERTS, TEXT, **{'dim': 6, **other}))


def test_not_a_state_dict():
  for value in ([1], {}, {'state_dict': {'a': 1}}, {'model': {}}):
    with pytest.raises(rules.CheckpointMismatch, match='expected a state dict'):
      convert.state_dict(value)


def test_original_moee_needs_its_experts():
  model = ce.make(EXPERTS, TEXT, gating='none')
  with pytest.raises(rules.CheckpointMismatch, match="'motion'"):
    convert.to_flax({'mee.moe_fc.bias': np.zeros(4)}, model)


def test_optimizer_slots():
  model = ce.make(EXPERTS, TEXT, dim=6)
  variables = random_variables(model)
  flat = rules.flatten(variables['params'])
  trainable = [r for r in convert.rules(model) if r.leaf.startswith('params/')]
  state = {}
  for i, r in enumerate(trainable):
    leaf = flat[r.leaf.removeprefix('params/')]
    state[i] = dict(step=i, exp_avg=2 * r.form.to_torch(leaf))
  groups = [dict(params=list(range(len(state))))]
  slots = convert.optimizer_slots(
    dict(optimizer=dict(state=state, param_groups=groups)), model
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a, 2 * b),
    slots['exp_avg'],
    variables['params'],
  )
  assert convert.optimizer_slots({}, model) == {}
  groups[0]['params'].pop()
  with pytest.raises(rules.CheckpointMismatch, match='parameters'):
    convert.optimizer_slots(
      dict(optimizer=dict(state=state, param_groups=groups)), model
    )


UPSTREAM = dict(
  experts=dict(
    modalities=['scene.x.0', 'audio', 'face', 'i3d.i3d.0'],
    drop_feats='i3d.i3d.0',
    face_dim=9,
    ce_shared_dim=6,
    text_feat='w2v',
    text_agg='vlad',
  ),
  arch=dict(
    type='CENet',
    args=dict(
      use_ce='pairwise',
      use_mish=1,
      use_bn_reason=1,
      num_g_layers=3,
      num_h_layers=0,
      include_self=1,
      l2renorm=False,
      randomise_feats='',
      vlad_clusters=dict(audio=3, text=4),
      ghost_clusters=dict(text=1),
      mimic_ce_dims=0,
      keep_missing_modalities=False,
    ),
  ),
  data_loader=dict(
    args=dict(
      max_tokens=dict(audio=4, text=6),
      trn_cat=0,
      feat_aggregation={
        'audio': dict(temporal='vlad'),
        'face': dict(temporal='avg'),
        'scene.x.0': dict(
          temporal='avg-max', type='embed', feat_dims=dict(embed=7)
        ),
      },
    )
  ),
  loss=dict(args=dict(margin=0.1, fix_norm=True)),
)


def test_model_config():
  got = ce_config.model_config(UPSTREAM)
  assert dict(got['experts']) == {
    'audio': dict(dim=128, max_tokens=4, clusters=3),
    'face': dict(dim=9),
    'scene.x.0': dict(dim=14),
  }
  assert got['text'] == dict(dim=300, max_tokens=6, clusters=4, ghosts=1)
  assert got['gating'] == 'pairwise' and got['margin'] == 0.1
  ce.make(**got)


@pytest.mark.parametrize(
  'change, gating',
  [
    (dict(use_ce=''), 'none'),
    (dict(use_ce='triplet'), 'triplet'),
    (dict(use_ce='', mimic_ce_dims=1), 'mimic'),
    (dict(use_ce='', concat_experts=True), 'concat'),
    (dict(use_ce='', concat_mix_experts=True), 'concat_mix'),
    (dict(use_ce='pairwise-star-tensor'), 'pairwise_star_tensor'),
  ],
)
def test_ablation_switches(change, gating):
  config = copy.deepcopy(UPSTREAM)
  config['arch']['args'].update(change)
  assert ce_config.model_config(config)['gating'] == gating


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(l2renorm=True), 'l2renorm'),
    (dict(use_ce='star'), 'use_ce'),
    (dict(trn_cat=1), 'trn_cat'),
  ],
)
def test_configs_outside_the_port(change, message):
  config = copy.deepcopy(UPSTREAM)
  config['arch']['args'].update(change)
  with pytest.raises(ce_config.ConfigMismatch, match=message):
    ce_config.model_config(config)


def test_incomplete_and_unknown():
  config = copy.deepcopy(UPSTREAM)
  config['experts']['text_feat'] = 'new'
  with pytest.raises(ce_config.ConfigMismatch, match="'new'"):
    ce_config.model_config(config)
  assert ce_config.model_config(config, text_dim=5)['text']['dim'] == 5
  del config['data_loader']
  with pytest.raises(ce_config.ConfigMismatch, match='data_loader'):
    ce_config.model_config(config)


def test_differences_that_no_shape_shows(tmp_path):
  kwargs = ce_config.model_config(UPSTREAM)
  model = ce.make(**kwargs)
  convert.save(
    tmp_path / 'x.pth', random_variables(model), model, config=UPSTREAM
  )
  _, report = convert.load(tmp_path / 'x.pth', model)
  assert not report.notes
  other = ce.make(
    **{**kwargs, 'activation': 'relu', 'include_self': False, 'margin': 0.9}
  )
  _, report = convert.load(tmp_path / 'x.pth', other)
  assert len(report.notes) == 2 and 'WARNING' in report.table()
  raw = torch_file.read(tmp_path / 'x.pth')
  assert ce_config.stored_config(raw) == UPSTREAM
