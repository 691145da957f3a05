# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/ranp.py without golden files."""

import json

import jax
import numpy as np
import pytest

from vidret_jax.convert import ranp as convert
from vidret_jax.convert import ranp_shapes, rules, torch_file, torch_write
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models import ranp

FEATURES = 7
HGR = dict(backbone='hgr', num_words=9, dim=8, word_dim=5)
EAO = dict(
  backbone='eao', dim=8, word_dim=5, heads=2, projection_dim=6, max_frames=4
)
VSE = dict(HGR, backbone='vse')
MODELS = dict(
  hgr=HGR,
  lstm=dict(HGR, rnn='lstm', rnn_layers=2, graph_layers=2),
  one_way=dict(HGR, bidirectional=False, rnn_layers=2),
  plain=dict(HGR, num_roles=0, graph_attention=False, share_video=True),
  no_graph=dict(HGR, graph_layers=0),
  eao=EAO,
  ids=dict(EAO, words='ids', num_words=9, depth=2, mlp_ratio=2.0),
  places=dict(EAO, positions=True, cls_token=True, max_words=3),
  shared=dict(EAO, individual=False, projection='minimal'),
  affine=dict(EAO, token_projection='minimal', projection='minimal'),
  vse=VSE,
  vse_lstm=dict(VSE, rnn='lstm', bidirectional=False),
)


def make(name='hgr', **changes):
  return ranp.make(**{**MODELS[name], **changes})


def variables_of(model, seed=0):
  """Random variables, as wide as clip features of FEATURES."""
  width = {
    name: (FEATURES, model.dim) for name in convert.ranp_rules.FEATURE_MAPS
  }
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(x.dtype),
    convert.variable_shapes(model, width),
  )


def state_of(model, seed=0):
  return convert.to_torch(variables_of(model, seed), model)


def write(folder, state, name='epoch.1.th'):
  torch_write.write(folder / name, state)
  return folder / name


@pytest.mark.parametrize('name', MODELS)
def test_both_ways(name, tmp_path):
  model, path = make(name), tmp_path / 'epoch.0.th'
  variables = variables_of(model)
  saved = convert.save(path, variables, model)
  got, report = convert.load(path, model)
  report.check_whole('')
  assert saved.rows == report.rows and not report.notes
  assert jax.tree.structure(got) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, got, variables)
  state = torch_file.read(path)
  parts = ['video_encoder', 'text_encoder']
  assert list(state) == parts + ['fusion'] * (MODELS[name]['backbone'] == 'eao')


@pytest.mark.parametrize('name', MODELS)
def test_shapes_tell_the_options(name):
  model = make(name)
  state = convert._join(state_of(model))
  found = ranp_shapes.options({k: v.shape for k, v in state.items()})
  assert found.pop('backbone') == MODELS[name]['backbone']
  assert found == {k: getattr(model, k) for k in found}
  assert {'dim', 'word_dim'} & set(found)


def test_names_and_forms():
  model = make()
  variables, state = variables_of(model), state_of(model)
  params, text = variables['params'], state['text_encoder']
  back = params['text']['rnn']['layer_0']['backward']
  for ours, theirs in (
    (back['input_kernel'].T, 'rnn.weight_ih_l0_reverse'),
    (back['hidden_kernel'].T, 'rnn.weight_hh_l0_reverse'),
    (back['input_bias'], 'rnn.bias_ih_l0_reverse'),
    (back['hidden_bias'], 'rnn.bias_hh_l0_reverse'),
    (params['text']['roles'], 'role_embedding.weight'),
    (
      params['text']['graph']['layer_0']['context']['kernel'].T,
      'gcn.layers.0.ctx_layer.weight',
    ),
  ):
    np.testing.assert_array_equal(text[theirs], ours, err_msg=theirs)
  model = make('places')
  variables, state = variables_of(model), state_of(model)
  fusion, params = state['fusion'], variables['params']
  assert fusion['fusion.cls_token'].shape == (1, 1, 8)
  assert fusion['vid_pos_embed'].shape == (1, 4, 8)
  assert fusion['txt_pos_embed'].shape == (1, 3, 8)
  np.testing.assert_array_equal(
    fusion['fusion.norm.weight'], params['fusion']['norm']['scale']
  )


def test_half_precision_is_widened(tmp_path):
  model = make()
  state = {
    part: {k: v.astype(np.float16) for k, v in values.items()}
    for part, values in state_of(model).items()
  }
  variables, _ = convert.load(write(tmp_path, state), model)
  assert {str(x.dtype) for x in jax.tree.leaves(variables)} == {'float32'}


# ------------------------------------------------------------ parts of models


def test_word_vectors_alone(tmp_path):
  """Upstream starts from them; further keys are of no concern."""
  model, words = make(), np.ones((9, 5), np.float32)
  state = dict(
    text_encoder={'embedding.we.weight': words, 'made.by': words},
    other={'x': words},
  )
  variables, report = convert.load(write(tmp_path, state), model)
  (leaf,) = rules.flatten(variables)
  assert leaf == 'params/text/embedding' and len(report.rows) == 1
  assert len(report.drawn) == len(convert.rules(model)) - 1
  assert report.ignored == ('text_encoder.made.by', 'other.x')
  assert 'other.x' in report.notes[0] and not report.unused
  assert 'params/text/roles  absent from the file: drawn' in report.table()
  with pytest.raises(CheckpointMismatch, match=r'lacks \(26\)'):
    report.check_whole('words.th')


def test_of_another_member_of_the_family(tmp_path):
  path = write(tmp_path, state_of(make()))
  variables, report = convert.load(path, make('vse'))
  assert set(variables['params']['text']) == {'embedding', 'rnn'}
  assert report.drawn == ('params/video/map/kernel', 'params/video/map/bias')
  assert 'video_encoder.ft_attn.weight' in report.unused
  assert "model.backbone: file 'hgr', model 'vse'" in report.notes[0]
  with pytest.raises(CheckpointMismatch, match='model.backbone'):
    report.check_whole('hgr.th')


@pytest.mark.parametrize(
  'file,model,drawn,unused,note',
  [
    ('plain', {}, 'params/text/roles', '', 'num_roles: file 0, model 16'),
    ('plain', {}, 'video/level_2/bias', '', 'share_video: file True'),
    ('one_way', {}, 'layer_0/backward', 'rnn.bias_ih_l1', 'bidirectional'),
    ('hgr', dict(graph_layers=2), 'graph/layer_1', '', 'graph_layers: file 1'),
    ('hgr', dict(rnn_layers=2), 'rnn/layer_1', '', 'rnn_layers: file 1'),
    ('hgr', dict(num_roles=0), '', 'role_embedding', 'num_roles: file 16'),
  ],
)
def test_another_configuration_is_no_result(
  tmp_path, file, model, drawn, unused, note
):
  """A start for training, as upstream would take it, and nothing else."""
  path = write(tmp_path, state_of(make(file)))
  _, report = convert.load(path, make(**model))
  assert any(drawn in leaf for leaf in report.drawn) or not drawn
  assert any(unused in key for key in report.unused) or not unused
  assert note in report.notes[0]
  with pytest.raises(CheckpointMismatch, match=note):
    report.check_whole(str(path))


# --------------------------------------------------------------------- errors


@pytest.mark.parametrize(
  'file,model,message',
  [
    ('lstm', 'hgr', "model.rnn: file 'lstm', model 'gru'"),
    ('vse_lstm', 'vse', "model.rnn: file 'lstm', model 'gru'"),
    ('hgr', dict(num_words=4), 'model.num_words: file 9, model 4'),
    ('hgr', dict(dim=4), 'model.dim: file 8, model 4'),
    ('hgr', dict(num_roles=3), 'model.num_roles: file 16, model 3'),
    ('ids', 'eao', 'model.mlp_ratio: file 2.0, model 1.0'),
    ('shared', 'eao', None),
    ('hgr', 'eao', None),
    ('places', dict(name='places', max_frames=9), 'model.max_frames: file 4'),
  ],
)
def test_shapes_that_differ(tmp_path, file, model, message):
  path = write(tmp_path, state_of(make(file)))
  model = make(model) if isinstance(model, str) else make(**model)
  if message is None:
    _, report = _try(path, model)
    assert report is None or report.drawn and report.unused
    return
  with pytest.raises(CheckpointMismatch) as error:
    convert.load(path, model)
  assert message in str(error.value) and str(path) in str(error.value)


def _try(path, model):
  try:
    return convert.load(path, model)
  except CheckpointMismatch as error:
    assert 'model.backbone' in str(error)
    return None, None


def test_nothing_fits(tmp_path):
  path = write(tmp_path, dict(other={'weight': np.ones(3, np.float32)}))
  with pytest.raises(CheckpointMismatch, match='Nothing in the file'):
    convert.load(path, make())
  path = write(tmp_path, state_of(make('eao')))
  with pytest.raises(CheckpointMismatch, match="file 'eao', model 'hgr'"):
    convert.load(path, make())


def test_several_widths_of_features(tmp_path):
  state = state_of(make())
  key = 'level_embeds.1.weight'
  state['video_encoder'][key] = np.ones((8, 3), np.float32)
  with pytest.raises(CheckpointMismatch, match='input.data.streams') as error:
    convert.load(write(tmp_path, state), make())
  assert f'{key} (8, 3), model (8, 7)' in str(error.value)


@pytest.mark.parametrize(
  'state',
  [
    [1, 2],
    {},
    dict(text_encoder=3),
    dict(text_encoder={'embedding.we.weight': 'x'}),
    dict(epoch=3, text_encoder={'a': np.ones(2, np.float32)}),
  ],
)
def test_no_checkpoint(tmp_path, state):
  with pytest.raises(CheckpointMismatch, match='epoch.1.th'):
    convert.load(write(tmp_path, state), make())


@pytest.mark.parametrize('shape', [(), (9,), (9, 5, 1), (0, 5)])
def test_strange_shapes(shape):
  state = convert._join(state_of(make()))
  strange = {key: np.ones(shape, np.float32) for key in state}
  with pytest.raises(CheckpointMismatch, match=r'shapes that differ.*\(27\)'):
    convert.to_flax(strange, make())


def test_quantised(tmp_path):
  state = state_of(make())
  state['text_encoder']['embedding.we.weight'] = np.ones((9, 5), np.int8)
  with pytest.raises(CheckpointMismatch, match='int8'):
    convert.load(write(tmp_path, state), make())


def test_variables_of_another_model():
  with pytest.raises(CheckpointMismatch, match='roles'):
    convert.to_torch(variables_of(make('plain')), make())


# ----------------------------------------------------------- the original EAO


def original(state, **more):
  """RANP's layout -> that of the code of EAO, with its audio parts."""
  out = {}
  for part, values in state.items():
    for key, value in values.items():
      side = part.removesuffix('_encoder')
      key = key.replace('vid_pos', 'video_pos').replace('txt_pos', 'text_pos')
      key = key.removeprefix('fusion.') if part == 'fusion' else f'{side}_{key}'
      inner = key.startswith(('masking', 'cls', 'blocks', 'norm.'))
      out[f'fusion.{key}' if inner else key] = value
  one = np.ones((2, 2), np.float32)
  audio = {f'audio_{k}': one for k in ('proj.fc.weight', 'norm_layer.weight')}
  return {**out, **audio, 'davenet.conv1.weight': one, **more}


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('name', ['eao', 'places', 'shared', 'affine'])
def test_the_original_layout(tmp_path, name, prefix):
  model = make(name)
  flat = {f'{prefix}{k}': v for k, v in original(state_of(model)).items()}
  path = write(tmp_path, dict(epoch=1, state_dict=flat))
  got, report = convert.load(path, model)
  report.check_whole('')
  jax.tree.map(np.testing.assert_array_equal, got, variables_of(model))
  assert len(report.ignored) == 3
  (note,) = report.notes
  assert 'original EAO' in note and '3 arrays of its audio' in note
  assert convert.load(write(tmp_path, flat), model)[1] == report


def test_one_transformer_per_kind(tmp_path):
  more = {'fusion_video.norm.weight': np.ones(8, np.float32)}
  path = write(tmp_path, original(state_of(make('eao')), **more))
  with pytest.raises(CheckpointMismatch, match='one transformer per kind'):
    convert.load(path, make('eao'))


# ------------------------------------------------------------ beside the file


def test_sizes(tmp_path):
  path = write(tmp_path, state_of(make()))
  assert convert.sizes(path) == dict(num_words=9)
  assert convert.sizes(write(tmp_path, state_of(make('eao')))) == {}


@pytest.mark.parametrize('place', ['.', '..'])
def test_model_json(tmp_path, place):
  folder = tmp_path / 'run' / 'model'
  folder.mkdir(parents=True)
  path = write(folder, state_of(make()))
  (folder / place / 'model.json').write_text('{"subcfgs": 3}')
  _, report = convert.load(path, make())
  assert 'subcfgs' in report.notes[0]
  (folder / place / 'model.json').write_text('[')
  _, report = convert.load(path, make())
  assert 'not compared' in report.notes[0]
  (folder / place / 'model.json').write_text(json.dumps(_upstream()))
  _, report = convert.load(path, make())
  assert report.notes == (
    'sigma: the checkpoint was trained with 9.0, the model has 4.0',
  )


def _upstream():
  video = dict(dim_embed=8, num_levels=3, share_enc=False, dropout=0.2)
  text = dict(
    num_words=9,
    dim_word=5,
    fix_word_embed=False,
    rnn_type='gru',
    bidirectional=True,
    rnn_hidden_size=8,
    num_layers=1,
    dropout=0.2,
    num_roles=16,
    gcn_num_layers=1,
    gcn_attention=True,
    gcn_dropout=0.5,
  )
  return dict(
    subcfgs=dict(video_encoder=video, text_encoder=text),
    **dict(margin=0.2, max_violation=True, hard_topk=1, loss_direction='bi'),
    **dict(attn_fusion='embed', simattn_sigma=9),
  )
