# SPDX-License-Identifier: Apache-2.0
"""Every config of RANP: upstream's 51 scripts, the published networks."""

import dataclasses
import functools
import json
import pathlib
import re

import numpy as np
import pytest

from tests.configs import shipped
from tests.configs.shipped import load
from tests.parity import conftest as parity
from vidret_jax import config_lib as cl
from vidret_jax.convert import ranp_config
from vidret_jax.data.graphs import layout
from vidret_jax.losses.mining import Mining
from vidret_jax.models import ranp
from vidret_jax.train import optim, state

DOCUMENT = shipped.CONFIGS.parent / 'docs' / 'configs.md'
ROW = re.compile(r'^\| `((?:ml|eao)match_configs_\S+)` \| `(.+)` \|$', re.M)
# Folder of features -> width.
WIDTHS = {
  'TBN.pth': 3072,
  'resnet152.pth': 2048,
  'EAO_resnet152.pth': 2048,
  'EAO_resnext101.pth': 2048,
  'ViT': 1280,
  'Swin3D': 768,
}
LAYOUTS = {
  found.name: found
  for found in (
    layout.EPIC_KITCHENS,
    layout.MSRVTT,
    layout.MSVD,
    layout.CHARADES,
  )
}
WORDS = 1000  # Size of a vocabulary, where only a number is needed.
SPECS = list(shipped.RANP)
PUBLISHED = [s for s in SPECS if not s.startswith('ranp_shapes')]


def mapping():
  """Upstream's script -> (our spec, *changes), from the document."""
  out = {}
  for script, command in ROW.findall(DOCUMENT.read_text()):
    spec, *flags = command.split()
    changes = [f.removeprefix('--config.') for f in flags if '--config.' in f]
    assert script not in out
    out[f'prepare_{script}.py'] = spec, *changes
  return out


resolved = functools.cache(load)  # Locked, so nobody changes what is shared.


@pytest.fixture(scope='module')
def published(request):
  path = parity.root_of(request.config) / 'ranp' / 'configs.json'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  return json.loads(path.read_text())


@pytest.fixture(scope='module')
def scripts(published):
  """(name, family, all entries of its model, paths) of every script."""
  return [
    (name, family, {**part['common_model'], **found['model']}, found['path'])
    for family, part in published.items()
    for name, found in part['scripts'].items()
  ]


def test_the_document_has_all_scripts_and_no_other(scripts):
  assert sorted(mapping()) == sorted(name for name, *_ in scripts)


def effective(family, model):
  """The loss that upstream's drivers choose for a model file."""
  nce = [k for k in ('use_normsoftmax', 'use_normsoftmax_ranp') if model.get(k)]
  relevant = model['threshold_pos'] < 1
  positives = bool(model.get('mine_hard_positives'))
  if family == 'eaomatch':
    assert model['use_word2vec']
    # Later rules override earlier ones (eao_match.py, main).
    if nce:
      positives = nce[-1] == 'use_normsoftmax_ranp'
      return dict(
        loss='softmax',
        positives=positives,
        threshold=model['threshold_pos'] if positives else None,
        temperature=model['temperature'],
      )
  out = dict(
    loss='triplet',
    hardest=model['max_violation'],
    # multilevel_match.py never hands it on.
    semi_hard=family == 'eaomatch' and bool(model.get('semi_hard_neg')),
    topk=model['hard_topk'],
    direction={'bi': 'bi', 'i2t': 'v2t', 't2i': 't2v'}[model['loss_direction']],
    margin=model['margin'],
    threshold=model['threshold_pos'] if relevant else None,
    positives=positives,
    negatives=not model.get('rap_only', False),
  )
  if positives:
    out['margin_pos'] = model['margin_pos']
  return out


def test_the_effective_loss_is_upstreams(scripts):
  ours = mapping()
  for name, family, model, _ in scripts:
    found = resolved(*ours[name]).model.mining.to_dict()
    want = effective(family, model)
    assert {k: found[k] for k in want} == want, name
    assert found['pairing'] == 'published'


# Upstream's keys -> ours, below `model`.
SHARED = {'dim_embed': 'dim', 'dim_word': 'word_dim'}
HGR = {
  'video_encoder.share_enc': 'share_video',
  'video_encoder.dropout': 'video_dropout',
  'text_encoder.fix_word_embed': 'fix_words',
  'text_encoder.rnn_type': 'rnn',
  'text_encoder.num_layers': 'rnn_layers',
  'text_encoder.bidirectional': 'bidirectional',
  'text_encoder.rnn_hidden_size': 'dim',
  'text_encoder.dropout': 'word_dropout',
  'text_encoder.num_roles': 'num_roles',
  'text_encoder.gcn_num_layers': 'graph_layers',
  'text_encoder.gcn_attention': 'graph_attention',
  'text_encoder.gcn_dropout': 'graph_dropout',
  'attn_fusion': 'fusion',
  'simattn_sigma': 'sigma',
  'loss_weights': 'level_weights',
}
EAO = {
  'video_encoder.token_projection': 'token_projection',
  'text_encoder.token_projection': 'token_projection',
  'text_encoder.fix_word_embed': 'fix_words',
  'fusion.projection_dim': 'projection_dim',
  'fusion.projection': 'projection',
  'fusion.individual_projections': 'individual',
  'fusion.use_positional_embed': 'positions',
  'fusion.max_frames_in_video': 'max_frames',
  'fusion.max_words_in_sent': 'max_words',
  'fusion.fusion_params.embed_dim': 'dim',
  'fusion.fusion_params.depth': 'depth',
  'fusion.fusion_params.num_heads': 'heads',
  'fusion.fusion_params.mlp_ratio': 'mlp_ratio',
  'fusion.fusion_params.use_cls_token': 'cls_token',
}
# What ours has no key for, and the only value that upstream gives it.
FIXED = {
  'freeze': False,
  'lr_mult': 1.0,
  'opt_alg': 'Adam',
  'weight_decay': 0,
  'num_levels': 3,
  'val_per_epoch': True,
  'save_per_epoch': True,
  'val_iter': -1,
  'save_iter': -1,
  'decay_schema': None,
  'decay_boundarys': [],
  'decay_rate': 1,
  'use_word2vec': True,
  'fusion_params.qkv_bias': True,
  'fusion_params.drop_rate': 0.0,
  'fusion_params.attn_drop_rate': 0.0,
  'fusion_params.drop_path_rate': 0.0,
  'fusion_params.norm_layer': None,
  'fusion_params.act_layer': None,
}
# Read by nobody (EAO's encoders have no such fields), or no part of a result.
UNREAD = re.compile(
  r'monitor_iter|summary_iter|tst_batch_size|'
  r'eao:(video|text)_encoder\.(use_positional_embed|dropout|share_enc)|'
  r'eao:(attn_fusion|simattn_sigma|loss_weights)'
)
LOSS = re.compile(
  r'max_violation|threshold_pos|mine_hard_positives|rap_only|semi_hard_neg|'
  r'margin|margin_pos|temperature|hard_topk|loss_direction|'
  r'use_normsoftmax(_ranp)?'
)


def recipe(config):
  """Our values of upstream's keys outside the model."""
  data = config.input.data
  return {
    'trn_batch_size': config.input.batch_size,
    'num_epoch': config.total_epochs,
    'base_lr': config.optim.lr,
    'max_frames_in_video': data.max_frames,
    'max_words_in_sent': data.max_words,
    'num_verbs': data.num_verbs,
    'num_nouns': data.num_nouns,
  }


def test_every_other_key_is_upstreams(scripts):
  ours = mapping()
  for name, family, model, _ in scripts:
    config = resolved(*ours[name])
    kind = {'mlmatch': 'hgr', 'eaomatch': 'eao'}[family]
    assert config.model.backbone == kind
    names = HGR if kind == 'hgr' else EAO
    outside = recipe(config)
    for key, value in model.items():
      key = key.removeprefix('subcfgs.')
      last = key.split('.')[-1]
      if key in names:
        assert config.model[names[key]] == value, (name, key)
      elif UNREAD.fullmatch(key) or UNREAD.fullmatch(f'{kind}:{key}'):
        continue
      elif LOSS.fullmatch(key):
        continue
      elif last in SHARED:
        assert config.model[SHARED[last]] == value, (name, key)
      elif key in outside:
        assert outside[key] == value, (name, key)
      elif last == 'dim_fts':
        widths = [WIDTHS[s] for s in config.input.data.streams]
        assert widths == value, name
      else:
        fixed = [k for k in FIXED if key == k or key.endswith(f'.{k}')]
        assert fixed and FIXED[fixed[0]] == value, (name, key)


def test_files_are_upstreams(scripts):
  """Features, lists, captions, classes and matrices of every split."""
  ours = mapping()
  for name, _, _, paths in scripts:
    config = resolved(*ours[name])
    here = LAYOUTS[config.input.data.name]
    files = here.files()
    nodes = {'train': config.input, **config.evals}
    for key, node in nodes.items():
      assert node.data.split == key
      theirs = layout.SPLITS[key]
      streams = [here.feature_path(s, key) for s in node.data.streams]
      assert streams == _plain(paths[f'attn_ft_files.{theirs}']), name
      for upstream, mine in (
        (f'name_file.{theirs}', f'names_{key}'),
        (f'ref_caption_file.{theirs}', 'captions'),
        (f'ref_graph_file.{theirs}', 'graphs'),
      ):
        assert _plain(paths[upstream]) in files[mine], (name, upstream)
    for upstream, mine in (
      ('word2int_file', 'word2int'),
      ('int2word_file', 'int2word'),
      ('dataset_file.trn', 'classes'),
      ('val_relevance_file', 'relevance_val'),
      ('relevance_file', 'relevance_test'),
    ):
      if upstream in paths:
        assert _plain(paths[upstream]) in files[mine], (name, upstream)


def _plain(path):
  if isinstance(path, list):
    return [_plain(p) for p in path]
  return str(pathlib.PurePosixPath(path))


def test_a_converted_run_has_the_model_of_our_config(scripts):
  ours = mapping()
  for name, _, model, _ in scripts:
    tree = {}
    for key, value in model.items():
      *path, last = key.split('.')
      node = functools.reduce(lambda n, k: n.setdefault(k, {}), path, tree)
      node[last] = value
    want = ranp_config.model_config(tree)
    found = resolved(*ours[name]).model.to_dict()
    read, mine = (Mining(**d.pop('mining')) for d in (want, found))
    if mine.loss == 'softmax':  # Where it has no meaning.
      read = dataclasses.replace(read, hardest=mine.hardest)
    assert read == mine, name
    assert {k: found[k] for k in want} == want, name


def test_names_of_scripts_say_where_weights_start(scripts):
  ours = mapping()
  for name, *_ in scripts:
    config = resolved(*ours[name])
    semi = re.search('SemiHN-?PT|PT-SemiHN', name)
    assert (config.init.run is not None) == bool(semi), name
    howto = re.search('EAO-PT|testPT', name)
    assert (config.init.torch is not None) == bool(howto), name


# ------------------------------------------------------------------- ours


def input_spec(config):
  """What the data of a config of a published dataset must look like."""
  data, model = config.input.data, config.model
  width = sum(WIDTHS[s] for s in data.streams)
  f, l, flag = data.max_frames, data.max_words, np.dtype(bool)
  i4, f4 = np.dtype(np.int32), np.dtype(np.float32)
  out = {
    'features': ((f, width), f4),
    'feature_mask': ((f,), flag),
    'word_mask': ((l,), flag),
    '_mask': ((), flag),
  }
  if data.words == 'ids':
    out['words'] = ((l,), i4)
  else:
    out['word_vectors'] = ((l, model.word_dim), f4)
  if data.graphs:
    v, n = data.num_verbs, data.num_nouns
    out['verb_mask'], out['noun_mask'] = ((v, l), flag), ((n, l), flag)
    out['roles'] = ((v + n,), i4)
    out['edge_mask'] = ((1 + v + n, 1 + v + n), flag)
  for side in ('', 'video_'):
    for kind in ('verb', 'noun'):
      out[f'{side}{kind}_classes'] = ((5,), i4)
  return out


@functools.cache
def _params(model, spec):
  model = dict(model)
  if model.get('words', 'ids') == 'ids':
    model['num_words'] = WORDS
  variables = state.abstract(ranp.make(**model), dict(spec), 0)
  assert set(variables) == {'params'}
  return variables['params']


def params_of(config):
  spec = input_spec(config)
  return _params(cl.freeze(config.model), tuple(sorted(spec.items())))


@pytest.mark.parametrize('spec', PUBLISHED)
def test_parameters_and_their_rules(spec):
  config = load(spec)
  params = params_of(config)
  if shipped.RANP[spec]:
    table = 0
    if config.model.backbone != 'eao':
      table = WORDS * config.model.word_dim
    assert shipped.count(params) == shipped.RANP[spec] + table
  optim.make(
    config.optim,
    config.schedule,
    params=params,
    steps_per_epoch=3,
    total_steps=9,
  )


@pytest.mark.parametrize('spec', SPECS)
def test_model_and_data_agree(spec):
  config = load(spec)
  train = config.input.data
  kind = config.model.backbone
  assert train.graphs == (kind == 'hgr')
  assert train.words == config.model.get('words', 'ids')
  for node in config.evals.values():
    assert node.type == 'graded'
    own = ('split', 'cache')
    same = {k: v for k, v in node.data.items() if k not in own}
    assert same == {k: v for k, v in train.items() if k not in own}
  if kind == 'eao':
    assert config.model.max_frames == train.max_frames
    assert config.model.max_words == train.max_words
  splits = {k: e.data.split for k, e in config.evals.items()}
  assert train.split == 'train'
  if 'split=1ka' in spec:
    assert splits == {'test': 'test'} and config.select == 'last'
  else:
    assert splits == {'val': 'val', 'test': 'test'}
    assert config.best.startswith('val/') and config.select == 'best'
  assert config.input.epoch_end == 'pad'


def test_hgr_is_semi_hard_only_if_asked():
  spec = 'ranp_msrvtt.py:loss=triplet,mining=semi'
  assert not load(spec).model.mining.semi_hard
  assert load(f'{spec},honour_semi').model.mining.semi_hard
  assert load(f'{spec},backbone=eao').model.mining.semi_hard


@pytest.mark.parametrize(
  'spec, word',
  [
    ('ranp_msrvtt.py:backbone=hgr2', 'hgr, eao, vse'),
    ('ranp_msrvtt.py:loss=rnap', 'ranp'),
    ('ranp_msrvtt.py:mining=semihard', 'semi_hard'),
    ('ranp_msrvtt.py:features=resnet', 'resnet152'),
    ('ranp_msrvtt.py:split=1kA', '1ka'),
    ('ranp_msrvtt.py:split=1ka', 'role graphs'),
    ('ranp_msvd.py:features=resnet152', 'swin3d'),
    ('ranp_msvd.py:threshold=1.0', 'between 0 and 1'),
    ('ranp_msvd.py:threshold=low', 'float'),
    ('ranp_msvd.py:loss=triplet,threshold=0.1', 'no meaning'),
    ('ranp_shapes.py:features=vit', 'unknown config argument'),
    ('ranp_shapes.py:loss=hinge', 'triplet'),
  ],
)
def test_bad_arguments_are_named(spec, word):
  with pytest.raises(cl.ConfigError, match=word):
    load(spec)


@pytest.mark.parametrize('backbone', ['hgr', 'eao', 'vse'])
@pytest.mark.parametrize('name', shipped.files(SPECS))
def test_runlocal_is_small_and_on_the_embedded_corpus(name, backbone):
  config = load(f'{name}:runlocal,backbone={backbone}')
  nodes = (config.input, *config.evals.values())
  assert {node.data.name for node in nodes} == {'shapes_graphs'}
  assert config.init.torch is None and config.init.run is None
  assert config.model.dim <= 64
