# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/reloclnet.py and reloclnet_files.py, no golden files."""

import functools
import json
import math
import sys
import types

import jax
import numpy as np
import pytest

from vidret_jax.convert import reloclnet as convert
from vidret_jax.convert import reloclnet_files as files
from vidret_jax.convert import rules, torch_file, torch_write
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models import reloclnet

SIZES = dict(query=5, video=7, subtitle=6)
PUBLISHED = dict(query=768, video=3074, subtitle=770)
SMALL = dict(
  dim=8, heads=2, max_clips=6, max_words=4, kernel=3, hard_start_epoch=-1
)
MODELS = {
  f'{variant}_{"_".join(streams)}': dict(variant=variant, streams=streams)
  for variant in reloclnet.VARIANTS
  for streams in (('video', 'subtitle'), ('video',), ('subtitle',))
}
PAIR, XML = 'reloclnet_video_subtitle', 'xml_video_subtitle'
ONE = 'xml_video'


@functools.cache
def make(name=PAIR, **changes):
  return reloclnet.make(**{**SMALL, **MODELS[name], **changes})


@functools.cache
def shapes_of(name, **changes):
  return convert.variable_shapes(make(name, **changes), SIZES)


def variables_of(name=PAIR, **changes):
  """Random variables of a small model."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(x.dtype),
    shapes_of(name, **changes),
  )


def state_of(name=PAIR, **changes):
  return convert.to_torch(variables_of(name, **changes), make(name, **changes))


def write(folder, content, name='model.ckpt'):
  torch_write.write(folder / name, content)
  return folder / name


def save(folder, name=PAIR, **options):
  path = folder / 'model.ckpt'
  convert.save(path, variables_of(name), make(name), **options)
  return path


# ---------------------------------------------------------------- there, back


@pytest.mark.parametrize('name', MODELS)
def test_both_ways(name, tmp_path):
  model, variables = make(name), variables_of(name)
  path = tmp_path / 'model.ckpt'
  saved = convert.save(path, variables, model, epoch=3)
  got, report = convert.load(path, model)
  report.check_whole('')
  assert saved.rows == report.rows and not report.notes
  assert jax.tree.structure(got) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, got, variables)
  checkpoint = files.read(path)
  assert checkpoint.epoch == 3
  assert checkpoint.sizes == {k: SIZES[k] for k in ('query', *model.streams)}
  state = convert.to_torch(variables, model)
  found = convert.to_variables(state)
  jax.tree.map(np.testing.assert_array_equal, found, variables)


@pytest.mark.parametrize('name', MODELS)
def test_the_tree_is_that_of_training(name):
  model = make(name)
  spec = jax.ShapeDtypeStruct
  batch = dict(
    query=spec((2, 3, SIZES['query']), np.float32),
    query_mask=spec((2, 3), np.bool_),
    clip_mask=spec((2, 4), np.bool_),
    span=spec((2, 2), np.int32),
    **{s: spec((2, 4, SIZES[s]), np.float32) for s in model.streams},
  )

  def init(key, batch):
    return model.init(key, batch, step=0, train=False, method='loss')

  key = jax.eval_shape(lambda: jax.random.key(0))
  want = rules.flatten(jax.eval_shape(init, key, batch))
  found = rules.flatten(shapes_of(name))
  assert found == want


def test_names_and_forms():
  state, params = state_of(), variables_of()['params']
  spans = params['span']
  for theirs, ours in (
    ('query_encoder1.self.value.weight', params['query']['enc_2']['value']),
    ('sub_encoder3.output.dense.weight', params['subtitle']['enc_3']['out']),
    ('video_cross_att.key.weight', params['video']['cross']['key']),
    ('sub_input_proj.net.1.weight', params['subtitle']['proj']['dense']),
    ('video_query_linear.weight', spans['video']),
    ('modular_vector_mapping.weight', params['query']['modular']),
  ):
    np.testing.assert_array_equal(state[theirs], ours['kernel'].T)
  assert state['merged_ed_predictor.weight'].shape == (1, 1, 3)
  np.testing.assert_array_equal(
    state['merged_ed_predictor.weight'][0, 0], spans['end']
  )
  np.testing.assert_array_equal(
    state['sub_cross_layernorm.weight'],
    params['subtitle']['cross_norm']['scale'],
  )
  np.testing.assert_array_equal(
    state['ctx_pos_embed.position_embeddings.weight'],
    params['position']['embedding'],
  )


@pytest.mark.parametrize(
  'name,arrays',
  [
    (PAIR, 121),
    (XML, 91),
    ('xml_video', 59),
    ('xml_subtitle', 59),
    ('reloclnet_subtitle', 69),
  ],
)
def test_how_many_arrays(name, arrays):
  state = state_of(name)
  assert len(state) == arrays
  prefixes = {'video': 'video_', 'subtitle': 'sub_'}
  for stream, prefix in prefixes.items():
    has = stream in make(name).streams
    assert any(key.startswith(prefix) for key in state) == has


def test_as_many_parameters_as_published():
  model = reloclnet.make(hard_start_epoch=-1)
  leaves = jax.tree.leaves(convert.variable_shapes(model, PUBLISHED))
  assert sum(math.prod(x.shape) for x in leaves) == 7_765_650


def test_half_precision_and_parallel_names():
  state = {f'module.{k}': v.astype(np.float16) for k, v in state_of().items()}
  variables, report = convert.to_flax(state, make())
  assert {str(x.dtype) for x in jax.tree.leaves(variables)} == {'float32'}
  assert len(report.rows) == len(state)


def test_single_streams_are_not_upstreams(tmp_path):
  model = make('reloclnet_video')
  path = tmp_path / 'model.ckpt'
  report = convert.save(path, variables_of('reloclnet_video'), model)
  assert 'cannot load' in report.notes[0]
  model = make('xml_video')
  assert not convert.save(path, variables_of('xml_video'), model).notes


class EasyDict(dict):
  """As the package easydict has it: items are attributes."""

  def __setattr__(self, name, value):
    super().__setattr__(name, value)
    super().__setitem__(name, value)


def test_pytorch_loads_what_we_write(tmp_path, monkeypatch):
  torch = pytest.importorskip('torch')
  path = save(tmp_path, context='video_sub_tef', epoch=7)
  monkeypatch.setattr(EasyDict, '__module__', 'easydict')
  module = types.SimpleNamespace(EasyDict=EasyDict)
  monkeypatch.setitem(sys.modules, 'easydict', module)
  found = torch.load(path, weights_only=False)
  assert list(found) == ['model', 'model_cfg', 'epoch'] and found['epoch'] == 7
  config = found['model_cfg']
  assert type(config) is EasyDict and vars(config) == dict(config)
  assert config.ctx_mode == 'video_sub_tef' and config.n_heads == 2
  state = state_of()
  assert list(found['model']) == list(state)
  for key, value in state.items():
    np.testing.assert_array_equal(found['model'][key].numpy(), value)

  # What upstream saves is what we read.
  config.lw_st_ed, other = 0.5, tmp_path / 'theirs.ckpt'
  torch.save(found, other)
  monkeypatch.delitem(sys.modules, 'easydict')
  checkpoint = files.read(other)
  assert checkpoint.config['lw_st_ed'] == 0.5 and checkpoint.epoch == 7
  np.testing.assert_equal(checkpoint.state, dict(state))


# --------------------------------------------------------------------- errors


@pytest.mark.parametrize(
  'file,model,told',
  [
    (
      {},
      dict(max_clips=9),
      ['max_clips: file 6, model 9', '(6, 8), model (9,'],
    ),
    ({}, dict(max_words=3), ['model.max_words: file 4, model 3']),
    ({}, dict(dim=4), ['model.dim: file 8, model 4', 'shapes that differ']),
    ({}, dict(kernel=5), ['model.kernel: file 3, model 5', '(1, 1, 5)']),
    ({}, dict(name=XML), ["variant: file 'reloclnet'", 'query_encoder1.self']),
    (dict(name=XML), {}, ["variant: file 'xml'", 'query_encoder1.self']),
    (
      {},
      dict(name='reloclnet_video'),
      ['model.streams: file', 'video_st_predictor'],
    ),
    (dict(name='xml_video'), dict(name=XML), ['sub_input_proj.LayerNorm']),
  ],
)
def test_another_network(tmp_path, file, model, told):
  path = write(tmp_path, state_of(**file), 'state.pth')
  with pytest.raises(CheckpointMismatch) as error:
    convert.load(path, make(**model))
  for text in (str(path), *told):
    assert text in str(error.value)


def test_missing_and_left_over():
  state = dict(state_of(), strange=np.ones(2, np.float32))
  del state['video_encoder2.output.dense.bias']
  with pytest.raises(CheckpointMismatch) as error:
    convert.to_flax(state, make())
  text = str(error.value)
  assert 'lacks (1):\n  video_encoder2.output.dense.bias' in text
  assert 'no use for (1):\n  strange' in text


@pytest.mark.parametrize('where', ['model_cfg', 'opt.json'])
def test_heads_show_in_no_shape(tmp_path, where):
  if where == 'model_cfg':
    path = save(tmp_path, ONE)
  else:
    path = write(tmp_path, state_of(ONE), 'state.pth')
    (tmp_path / 'opt.json').write_text(
      json.dumps(xml_opt(ctx_mode='video_tef'))
    )
  with pytest.raises(CheckpointMismatch, match='set model.heads=2'):
    convert.load(path, make(ONE, heads=4))
  assert not convert.load(path, make(ONE))[1].notes


def test_options_that_cannot_be_read_are_a_warning(tmp_path):
  path = write(tmp_path, state_of(ONE), 'state.pth')
  (tmp_path / 'opt.json').write_text('[')
  _, report = convert.load(path, make(ONE))
  assert 'not compared' in report.notes[0] and 'opt.json' in report.notes[0]
  content = dict(model=state_of(ONE), model_cfg=dict(n_heads='many'), epoch=1)
  _, report = convert.load(write(tmp_path, content), make(ONE))
  assert 'model_cfg' in report.notes[0]


@pytest.mark.parametrize(
  'content,told',
  [
    (dict(arch='CENet', state_dict={'a': np.ones(2)}), "'arch', 'state_dict'"),
    (
      {'ce.moe_fc.weight': np.ones((2, 2), np.float32)},
      "neither ReLoCLNet nor XML.*'ce.moe_fc.weight'",
    ),
    (dict(model=3, model_cfg={}), "'model', 'model_cfg'"),
    (dict(model={}, model_cfg={}), "'model', 'model_cfg'"),
    ([1, 2], r'found the keys \[\]'),
    ({}, r'found the keys \[\]'),
  ],
)
def test_of_another_system(tmp_path, content, told):
  with pytest.raises(CheckpointMismatch, match=told) as error:
    convert.load(write(tmp_path, content), make())
  assert 'model.ckpt' in str(error.value)


def test_quantised(tmp_path):
  state = dict(state_of(), strange=np.ones(2, np.int8))
  with pytest.raises(CheckpointMismatch, match='int8'):
    convert.load(write(tmp_path, state), make())


@pytest.mark.parametrize('shape', [(), (0, 8), (1, 1, 1, 1)])
def test_strange_shapes(shape):
  strange = {key: np.ones(shape, np.float32) for key in state_of(ONE)}
  with pytest.raises(CheckpointMismatch, match='shapes that differ'):
    convert.to_flax(strange, make(ONE))


@pytest.mark.parametrize('part', [0, 10, 0.5, 0.99])
def test_cut_files(tmp_path, part):
  whole = save(tmp_path).read_bytes()
  path = tmp_path / 'cut.ckpt'
  keep = part if isinstance(part, int) else int(part * len(whole))
  path.write_bytes(whole[:keep])
  with pytest.raises(torch_file.TorchFileError, match='cut.ckpt'):
    convert.load(path, make())


def test_variables_of_another_model():
  with pytest.raises(CheckpointMismatch, match='span/subtitle'):
    convert.to_torch(variables_of(), make('reloclnet_video'))


def test_contexts_of_other_streams(tmp_path):
  for context in ('video', 'sub_tef', 'both'):
    with pytest.raises(ValueError, match="expected 'video_sub'"):
      save(tmp_path, context=context)
  assert not list(tmp_path.iterdir())


# ------------------------------------------------------------- what files tell


def opt(**changes):
  """An opt.json of a small run, as far as it is read."""
  return dict(
    dict(
      dict(ctx_mode='video_sub_tef', hidden_size=8, n_heads=2),
      **dict(q_feat_size=5, vid_feat_size=5, sub_feat_size=4),
      **dict(max_ctx_l=6, max_desc_l=4, conv_kernel_size=3, conv_stride=1),
      **dict(drop=0.1, input_drop=0.1, initializer_range=0.02),
      **dict(lw_fcl=0.03, lw_vcl=0.03, lw_st_ed=0.01, lw_neg_ctx=1, lw_neg_q=1),
      **dict(margin=0.1, ranking_loss_type='hinge', hard_pool_size=20),
      **dict(hard_negative_start_epoch=20, train_span_start_epoch=2),
      **dict(no_norm_vfeat=True, no_norm_tfeat=False, clip_length=1.5),
      **dict(max_vcmr_video=100, q2c_alpha=30.0, max_before_nms=200),
    ),
    **changes,
  )


def xml_opt(**changes):
  """The same of XML, which spells one option otherwise."""
  gone = ('lw_fcl', 'lw_vcl', 'hard_negative_start_epoch')
  out = {k: v for k, v in opt().items() if k not in gone}
  return {**out, 'hard_negtiave_start_epoch': 20, **changes}


def test_a_checkpoint_alone(tmp_path):
  path, found = convert.describe(save(tmp_path, context='video_sub_tef'))
  assert path == str(tmp_path / 'model.ckpt')
  assert reloclnet.make(**found['model']) == make()
  assert found['data'] == dict(
    context='video_sub_tef', max_clips=6, max_words=4, sampling='mean'
  )
  assert found['search'] == dict(end_offset=0)


def test_a_state_dict_alone(tmp_path):
  path = write(tmp_path, state_of('xml_subtitle'), 'state.pth')
  found = files.describe(path)
  assert found['model'] == dict(
    variant='xml',
    streams=('subtitle',),
    dim=8,
    max_clips=6,
    max_words=4,
    kernel=3,
  )


def test_a_run_folder(tmp_path):
  save(tmp_path, context='video_sub_tef')
  (tmp_path / 'opt.json').write_text(json.dumps(opt()))
  path, found = convert.describe(tmp_path)
  assert path == str(tmp_path / 'model.ckpt')
  assert found['model']['hard_start_epoch'] == 20
  assert found['model']['span_start_epoch'] == 2
  assert found['data']['clip_seconds'] == 1.5
  assert found['data']['norm_text'] and not found['data']['norm_video']
  assert found['search']['alpha'] == 30 and found['search']['videos'] == 100


@pytest.mark.parametrize(
  'change,told',
  [
    (dict(vid_feat_size=9), 'video: 7 and 11'),
    (dict(hidden_size=16), 'dim: 8 and 16'),
    (dict(n_heads=4), 'heads: 2 and 4'),
    (dict(ctx_mode='video_tef'), 'streams: '),
    (dict(max_ctx_l=128), 'max_clips: 6 and 128'),
  ],
)
def test_an_opt_of_another_run(tmp_path, change, told):
  path = save(tmp_path, context='video_sub_tef')
  (tmp_path / 'opt.json').write_text(json.dumps(opt(**change)))
  with pytest.raises(CheckpointMismatch, match='not of one run') as error:
    files.describe(path)
  assert told in str(error.value) and 'opt.json' in str(error.value)


@pytest.mark.parametrize('text', ['{', '3', '[' * 100_000, '\udcff', ''])
def test_broken_opts(tmp_path, text):
  path = write(tmp_path, state_of())
  data = text.encode('utf-8', 'surrogateescape')
  (tmp_path / 'opt.json').write_bytes(data)
  with pytest.raises(CheckpointMismatch, match='opt.json'):
    files.describe(path)


def test_folders_without_a_checkpoint(tmp_path):
  with pytest.raises(FileNotFoundError, match='no model.ckpt in it'):
    convert.describe(tmp_path)
