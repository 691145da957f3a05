# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/eercf.py without golden files."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.convert import clip_states
from tests.convert.clip_states import SMALL
from vidret_jax.convert import clip_file, rules, torch_write
from vidret_jax.convert import eercf as convert
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models import clip, eercf

FRAMES, LAYERS = 3, 2
CLIP = clip_states.clip_shapes(SMALL)


def make(sizes=SMALL, *, linear_patch='2d', frames=FRAMES, layers=LAYERS):
  return eercf.make(
    clip=dataclasses.asdict(sizes),
    max_frames=frames,
    temporal_layers=layers,
    linear_patch=linear_patch,
  )


def trained(linear_patch='2d'):
  return clip_states.draw(
    clip_states.eercf_shapes(SMALL, FRAMES, LAYERS, linear_patch)
  )


def public():
  return clip_states.draw(CLIP, seed=1)


def write(tmp_path, state):
  torch_write.write(tmp_path / 'x.bin', state)
  return tmp_path / 'x.bin'


def keys_of(variables, model):
  return rules.to_torch(variables, convert.rules(model))


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('linear_patch', ['2d', '3d'])
def test_both_ways(tmp_path, linear_patch, half):
  model, state = make(linear_patch=linear_patch), trained(linear_patch)
  variables, report = convert.load(write(tmp_path, state), model)
  assert not report.notes and not report.filled
  saved = convert.save(tmp_path / 'y.bin', variables, model, half=half)
  got = clip_file.read(tmp_path / 'y.bin')
  if linear_patch == '3d':
    # Unused upstream, and not kept; the file has what conv2 has in the middle.
    conv1 = 'clip.visual.conv1.weight'
    assert report.ignored == (conv1,)
    state[conv1] = state['clip.visual.conv2.weight'][:, :, 1]
  clip_states.same(got, state)
  assert {str(v.dtype) for v in got.values()} == (
    {'float16', 'float32'} if half else {'float32'}
  )
  assert got['transformerClip.resblocks.0.mlp.c_fc.weight'].dtype == np.float32
  assert len(saved.rows) == len(convert.rules(model))
  again, _ = convert.load(tmp_path / 'y.bin', model)
  jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_maps_are_not_transposed(tmp_path):
  state = trained()
  variables, _ = convert.load(write(tmp_path, state), make())
  params = variables['params']
  np.testing.assert_array_equal(params['video_map'], state['global_mat_weight'])
  np.testing.assert_array_equal(
    params['frame_map'], state['frame_logit_weight']
  )


@pytest.mark.parametrize('scalars', [False, True])
def test_a_plain_clip(tmp_path, scalars):
  state = public() | (clip_states.scalars(SMALL) if scalars else {})
  model = make(layers=4)
  variables, report = convert.load(write(tmp_path, state), model)
  got = keys_of(variables, model)
  for key in CLIP:
    np.testing.assert_array_equal(got[f'clip.{key}'], state[key], err_msg=key)
  np.testing.assert_array_equal(got['global_mat_weight'], np.eye(SMALL.dim))
  np.testing.assert_array_equal(got['frame_logit_weight'], np.eye(FRAMES))
  np.testing.assert_array_equal(
    got['frame_position_embeddings.weight'], state['positional_embedding']
  )
  copied = [k for k in CLIP if k.startswith('transformer.')]
  for key in copied:
    np.testing.assert_array_equal(
      got[key.replace('transformer', 'transformerClip')], state[key]
    )
  (note,) = report.notes
  assert 'plain CLIP' in note and 'identity' in note
  assert f'{len(copied)} arrays' in note and '24 are drawn' in note
  forms = {row[0]: row[4] for row in report.rows}
  assert forms['global_mat_weight'] == 'identity'
  assert forms['transformerClip.resblocks.1.ln_1.bias'] == 'text block'
  assert forms['transformerClip.resblocks.2.ln_1.bias'] == 'drawn, seed 0'
  assert report.ignored == tuple(
    f'clip.{k}' for k in (clip_states.scalars(SMALL) if scalars else ())
  )


def test_blocks_beyond_the_text_tower(tmp_path):
  model = make(layers=4)
  path = write(tmp_path, public())
  one, two = (keys_of(convert.load(path, model)[0], model) for _ in range(2))
  clip_states.same(one, two)
  width, name = SMALL.dim, 'transformerClip.resblocks.{}.{}'
  for index in (2, 3):
    block = {
      k: one[name.format(index, k)]
      for k in (
        'attn.in_proj_weight',
        'attn.out_proj.weight',
        'mlp.c_fc.weight',
        'mlp.c_proj.weight',
        'attn.in_proj_bias',
        'mlp.c_fc.bias',
        'ln_1.weight',
        'ln_2.bias',
      )
    }
    bound = (6 / (4 * width)) ** 0.5
    packed = block['attn.in_proj_weight']
    assert 0.95 * bound < np.abs(packed).max() <= bound
    assert abs(packed.std() - bound / 3**0.5) < 0.05 * bound
    for key in ('attn.out_proj', 'mlp.c_fc', 'mlp.c_proj'):
      assert abs(block[f'{key}.weight'].std() - 0.02) < 1e-3, key
    for key in ('attn.in_proj_bias', 'mlp.c_fc.bias', 'ln_2.bias'):
      assert not block[key].any()
    assert (block['ln_1.weight'] == 1).all()
  assert (
    one[name.format(2, 'mlp.c_fc.weight')]
    != one[name.format(3, 'mlp.c_fc.weight')]
  ).all()


@pytest.mark.parametrize('where', ['plain', 'trained'])
def test_3d_starts_from_2d(tmp_path, where):
  state = public() if where == 'plain' else trained()
  conv1 = state[('' if where == 'plain' else 'clip.') + 'visual.conv1.weight']
  model = make(linear_patch='3d')
  variables, report = convert.load(write(tmp_path, state), model)
  kernel = variables['params']['clip']['visual']['conv2']['kernel']
  np.testing.assert_array_equal(kernel[1], conv1.transpose(2, 3, 1, 0))
  assert not kernel[0].any() and not kernel[2].any()
  assert any('conv1 at the middle frame' in n for n in report.notes)


@pytest.mark.parametrize('module', ['', 'module.'])
@pytest.mark.parametrize('header', ['seqTransf', 'meanP', 'seqLSTM'])
def test_clip4clip(tmp_path, module, header):
  state = trained()
  for key in list(state):
    gone = ('global_mat', 'frame_logit')
    gone += {
      'seqTransf': (),
      'meanP': ('transformerClip', 'frame_position'),
      'seqLSTM': ('transformerClip',),
    }[header]
    if key.startswith(gone):
      del state[key]
  extra = {
    'cross.embeddings.position_embeddings.weight': np.ones((9, 4), np.float32),
    'cross.pooler.dense.bias': np.ones(4, np.float32),
    'cross.embeddings.position_ids': np.arange(9),
    'similarity_dense.weight': np.ones((1, 4), np.float32),
    'clip.input_resolution': np.array(12),
  }
  saved = {f'{module}{k}': v for k, v in (state | extra).items()}
  model = make()
  variables, report = convert.load(write(tmp_path, saved), model)
  got = keys_of(variables, model)
  for key, value in state.items():
    np.testing.assert_array_equal(got[key], value, err_msg=key)
  np.testing.assert_array_equal(got['global_mat_weight'], np.eye(SMALL.dim))
  np.testing.assert_array_equal(got['frame_logit_weight'], np.eye(FRAMES))
  assert sorted(report.ignored) == sorted(extra)
  strange, summary = report.notes
  assert 'cross (3), similarity_dense (1)' in strange
  assert 'a CLIP4Clip checkpoint' in summary
  assert ('positions of frames' in summary) == (header == 'meanP')
  if header != 'seqTransf':
    np.testing.assert_array_equal(
      got['transformerClip.resblocks.1.ln_2.bias'],
      state['clip.transformer.resblocks.1.ln_2.bias'],
    )


@pytest.mark.parametrize(
  'options,line',
  [
    (dict(frames=5), 'model.max_frames: file 3, model 5'),
    (dict(layers=1), 'model.temporal_layers: file 2, model 1'),
    (
      dict(sizes=dataclasses.replace(SMALL, vision_layers=3)),
      'vision_layers: file 2, model 3',
    ),
    (
      dict(sizes=dataclasses.replace(SMALL, context=9)),
      'context: file 7, model 9',
    ),
  ],
)
def test_other_models(tmp_path, options, line):
  with pytest.raises(CheckpointMismatch, match=line) as error:
    convert.load(write(tmp_path, trained()), make(**options))
  assert 'Set model.' in str(error.value) and 'x.bin' in str(error.value)


def test_3d_weights_in_a_2d_model(tmp_path):
  path = write(tmp_path, trained('3d'))
  with pytest.raises(CheckpointMismatch, match="Set model.linear_patch='3d'"):
    convert.load(path, make())


@pytest.mark.parametrize(
  'key',
  [
    'global_mat_weight',
    'frame_position_embeddings.weight',
    'transformerClip.resblocks.1.ln_1.weight',
    'clip.ln_final.bias',
  ],
)
def test_a_trained_file_must_be_whole(tmp_path, key):
  state = trained()
  del state[key]
  with pytest.raises(CheckpointMismatch, match=key):
    convert.load(write(tmp_path, state), make())


def test_unknown_keys_within_the_towers(tmp_path):
  state = dict(trained(), **{'clip.visual.extra': np.ones(2, np.float32)})
  with pytest.raises(CheckpointMismatch, match='clip.visual.extra'):
    convert.load(write(tmp_path, state), make())


def test_shapes_within_the_temporal_part(tmp_path):
  state = trained()
  state['global_mat_weight'] = np.eye(5, dtype=np.float32)
  state['frame_position_embeddings.weight'] = np.ones((9, 64), np.float32)
  with pytest.raises(CheckpointMismatch) as error:
    convert.load(write(tmp_path, state), make())
  assert 'global_mat_weight (5, 5), model (64, 64)' in str(error.value)
  assert 'weight (9, 64), model (7, 64)' in str(error.value)


def test_integers_are_no_weights(tmp_path):
  state = trained()
  state['global_mat_weight'] = state['global_mat_weight'].astype(np.int32)
  with pytest.raises(CheckpointMismatch, match='global_mat_weight.*int32'):
    convert.load(write(tmp_path, state), make())


def test_text_as_wide_as_the_shared_space(tmp_path):
  sizes = dataclasses.replace(SMALL, text_width=128)
  state = clip_states.draw(clip_states.clip_shapes(sizes))
  with pytest.raises(CheckpointMismatch, match='text_width=128 and'):
    convert.load(write(tmp_path, state), make(sizes))


def test_another_image_size(tmp_path):
  model = make(dataclasses.replace(SMALL, image_size=16))
  variables, report = convert.load(write(tmp_path, trained()), model)
  visual = variables['params']['clip']['visual']
  assert visual['positional_embedding'].shape == (17, 128)
  assert '3x3 to 4x4' in report.notes[0]


@pytest.mark.parametrize('layout', ['safetensors', 'bin'])
def test_hugging_face_weights(tmp_path, layout):
  state = public()
  folder = tmp_path / 'hf'
  folder.mkdir()
  if layout == 'bin':
    torch_write.write(folder / 'pytorch_model.bin', clip_states.hf_state(state))
  else:
    library = pytest.importorskip('safetensors.numpy')
    library.save_file(clip_states.hf_state(state), folder / 'model.safetensors')
  got, _ = convert.load(folder, make())
  want, _ = convert.load(write(tmp_path, state), make())
  jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize('linear_patch', ['2d', '3d'])
def test_the_table_covers_b32(linear_patch):
  sizes = clip.VARIANTS['ViT-B/32']
  model = eercf.make(linear_patch=linear_patch)
  shapes = clip_states.eercf_shapes(sizes, 12, 4, linear_patch)
  shapes.pop('clip.visual.conv1.weight' if linear_patch == '3d' else '', None)
  table = convert.rules(model)
  assert len(table) == len(shapes) == 353
  leaves = rules.flatten(convert.variable_shapes(model))
  assert {r.leaf for r in table} == set(leaves)
  for rule in table:
    leaf = np.broadcast_to(np.False_, leaves[rule.leaf].shape)
    assert rule.form.to_torch(leaf).shape == shapes[rule.key], rule.key
  if linear_patch == '2d':
    assert sum(x.size for x in leaves.values()) == 164188561
