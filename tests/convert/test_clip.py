# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/clip.py and convert/clip_file.py without golden files."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from tests.convert import clip_states
from tests.convert.clip_states import SMALL
from vidret_jax.convert import clip as convert
from vidret_jax.convert import (
  clip_file,
  resample,
  rules,
  safetensors_file,
  torch_write,
)
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.convert.torch_file import TorchFileError
from vidret_jax.models.clip import VARIANTS

PUBLIC = clip_states.draw(clip_states.clip_shapes(SMALL))


@pytest.fixture
def path(tmp_path):
  torch_write.write(tmp_path / 'clip.pt', PUBLIC | clip_states.scalars(SMALL))
  return tmp_path / 'clip.pt'


def test_leaves_hold_what_the_names_say(path):
  variables, report = convert.load(path, SMALL)
  clip = variables['params']['clip']
  seen, text = clip['visual'], clip['text']
  k = PUBLIC['visual.conv1.weight']
  assert seen['conv1']['kernel'].shape == (4, 4, 3, 128)
  assert seen['conv1']['kernel'][1, 2, 0, 7] == k[7, 0, 1, 2]
  packed = PUBLIC['transformer.resblocks.1.attn.in_proj_weight']
  np.testing.assert_array_equal(
    text['block_1']['attn']['in_proj']['kernel'], packed.T
  )
  np.testing.assert_array_equal(
    text['token_embedding'], PUBLIC['token_embedding.weight']
  )
  np.testing.assert_array_equal(seen['proj'], PUBLIC['visual.proj'])
  assert report.ignored == convert.SCALARS and not report.notes
  assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype('float32')}


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('scalars', [False, True])
def test_both_ways(path, tmp_path, half, scalars):
  variables, _ = convert.load(path, SMALL)
  out = tmp_path / 'out.pth'
  convert.save(out, variables, SMALL, half=half, scalars=scalars)
  got = clip_file.read(out)
  clip_states.same(
    got, PUBLIC | (clip_states.scalars(SMALL) if scalars else {})
  )
  for key in PUBLIC:
    narrow = half and convert.is_half(key)
    assert got[key].dtype == (np.float16 if narrow else np.float32), key


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('name', clip_file.IN_FOLDERS)
def test_hugging_face_folders(path, tmp_path, name, half):
  if name.endswith('.safetensors'):
    pytest.importorskip('safetensors')
  variables, _ = convert.load(path, SMALL)
  folder = tmp_path / 'hf'
  convert.save_hf(
    folder, variables, SMALL, half=half, safetensors=name.endswith('tensors')
  )
  assert sorted(p.name for p in folder.iterdir()) == ['config.json', name]
  for source in (folder, folder / name):
    got, report = convert.load(source, SMALL)
    jax.tree.map(np.testing.assert_array_equal, got, variables)
    assert not report.notes


def test_hugging_face_reads_the_folder(path, tmp_path):
  library = pytest.importorskip('transformers')
  variables, _ = convert.load(path, SMALL)
  convert.save_hf(tmp_path / 'hf', variables, SMALL)
  model = library.CLIPModel.from_pretrained(tmp_path / 'hf')
  model.save_pretrained(tmp_path / 'again')
  got, _ = convert.load(tmp_path / 'again', SMALL)
  jax.tree.map(np.testing.assert_array_equal, got, variables)


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16, np.float64])
def test_any_mix_of_types(tmp_path, dtype):
  mixed = {
    k: v.astype(dtype) if i % 2 else v
    for i, (k, v) in enumerate(PUBLIC.items())
  }
  state, _ = convert.fit(mixed, SMALL, 'x')
  tree, _ = rules.to_flax(
    state, convert.rules(SMALL), convert.variable_shapes(SMALL)
  )
  for key, value in rules.to_torch(tree, convert.rules(SMALL)).items():
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, mixed[key].astype(np.float32))


@pytest.mark.parametrize('name,count', [('ViT-B/32', 302), ('ViT-L/14', 446)])
def test_the_table_covers_published_sizes(name, count):
  sizes = VARIANTS[name]
  shapes = clip_states.clip_shapes(sizes)
  table = convert.rules(sizes)
  assert len(table) == len(shapes) == count
  leaves = rules.flatten(convert.variable_shapes(sizes))
  assert {r.leaf for r in table} == set(leaves)
  for rule in table:
    leaf = np.broadcast_to(np.False_, leaves[rule.leaf].shape)
    assert rule.form.to_torch(leaf).shape == shapes[rule.key], rule.key


def test_published_parameter_counts():
  counts = {'ViT-B/32': 151277313, 'ViT-B/16': 149620737, 'ViT-L/14': 427616513}
  for name, count in counts.items():
    leaves = jax.tree.leaves(convert.variable_shapes(VARIANTS[name]))
    assert sum(x.size for x in leaves) == count


def test_every_block_of_a_permutation_comes_back():
  rng = np.random.default_rng(0)
  for form, shape in (
    (convert.CONV_2D, (5, 3, 2, 4)),
    (convert.CONV_3D, (6, 5, 3, 2, 4)),
  ):
    x = rng.normal(size=shape)
    np.testing.assert_array_equal(form.to_torch(form.to_flax(x)), x)
    assert form.to_flax(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize('size', [20, 8, 4])
def test_another_image_size(path, size, caplog):
  want = dataclasses.replace(SMALL, image_size=size)
  with caplog.at_level('WARNING', logger='absl'):
    variables, report = convert.load(path, want)
  (note,) = report.notes
  assert f'from 3x3 to {size // 4}x{size // 4}' in note
  assert 'resampled' in caplog.text and str(path) in caplog.text
  clip = variables['params']['clip']
  np.testing.assert_array_equal(
    clip['visual']['positional_embedding'],
    resample.positions(PUBLIC['visual.positional_embedding'], size // 4),
  )
  same, _ = convert.load(path, SMALL)
  same = same['params']['clip']
  del clip['visual']['positional_embedding']
  del same['visual']['positional_embedding']
  jax.tree.map(np.testing.assert_array_equal, clip, same)


@pytest.mark.parametrize('context', [5, 9])
def test_another_context(path, context):
  want = dataclasses.replace(SMALL, context=context)
  with pytest.raises(CheckpointMismatch) as error:
    convert.load(path, want)
  assert f'context: file 7, model {context}' in str(error.value)
  assert 'Set model.clip=dict(' in str(error.value)


def test_a_missing_and_a_strange_key(tmp_path):
  state = dict(PUBLIC, extra=np.zeros(2, np.float32))
  del state['visual.ln_post.bias']
  torch_write.write(tmp_path / 'x.pt', state)
  with pytest.raises(CheckpointMismatch) as error:
    convert.load(tmp_path / 'x.pt', SMALL)
  assert 'visual.ln_post.bias' in str(error.value)
  assert 'no use for (1):\n  extra' in str(error.value)


def test_quantised_weights(tmp_path):
  state = dict(PUBLIC)
  state['visual.proj'] = state['visual.proj'].astype(np.int8)
  torch_write.write(tmp_path / 'x.pt', state)
  with pytest.raises(CheckpointMismatch, match='visual.proj.*int8'):
    convert.load(tmp_path / 'x.pt', SMALL)


def test_ranks_that_do_not_fit(tmp_path):
  state = dict(PUBLIC)
  state['visual.conv1.weight'] = state['visual.conv1.weight'][..., None]
  torch_write.write(tmp_path / 'x.pt', state)
  with pytest.raises(CheckpointMismatch, match='4 axes'):
    convert.load(tmp_path / 'x.pt', SMALL)


@pytest.mark.parametrize(
  'wrap',
  [
    lambda s: {'state_dict': s},
    lambda s: {'epoch': 3, 'model_state_dict': s},
    lambda s: {'state_dict': {f'module.{k}': v for k, v in s.items()}},
  ],
)
def test_state_dicts_inside_others(tmp_path, wrap):
  torch_write.write(tmp_path / 'x.pt', wrap(PUBLIC))
  clip_states.same(clip_file.read(tmp_path / 'x.pt'), PUBLIC)


@pytest.mark.parametrize(
  'what,message',
  [
    ({}, 'state dict'),
    ([1, 2], 'type list'),
    ({'a': 1}, "keys .'a'."),
    ({1: np.zeros(1, np.float32)}, 'state dict'),
    (dict(epoch=1, optimizer_state_dict={}, loss=0.5), 'of an optimiser'),
  ],
)
def test_other_things_in_a_file(tmp_path, what, message):
  torch_write.write(tmp_path / 'x.pt', what)
  with pytest.raises(CheckpointMismatch, match=f'x.pt: .*{message}'):
    clip_file.read(tmp_path / 'x.pt')


def test_absent_files(tmp_path):
  for path in (tmp_path / 'no.pt', tmp_path):
    with pytest.raises(FileNotFoundError, match='ViT-B-32.pt'):
      clip_file.read(path)


def test_a_small_file_of_huge_views(tmp_path):
  pytest.importorskip('torch')
  import torch

  views = {str(i): torch.zeros(1).expand(2**15, 2**14) for i in range(9)}
  torch.save(views, tmp_path / 'x.pt')
  with pytest.raises(TorchFileError, match='x.pt.*add up to'):
    clip_file.read(tmp_path / 'x.pt')


def test_safetensors_are_told_by_content(tmp_path):
  pytest.importorskip('safetensors')
  safetensors_file.write(tmp_path / 'blob', PUBLIC)
  clip_states.same(clip_file.read(tmp_path / 'blob'), PUBLIC)


@pytest.mark.parametrize('cut', [0, 50, -1])
def test_truncated_safetensors(tmp_path, cut):
  pytest.importorskip('safetensors')
  path = tmp_path / 'x.safetensors'
  safetensors_file.write(path, PUBLIC)
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(TorchFileError, match='not a complete safetensors'):
    clip_file.read(path)


def test_3d_towers_are_no_public_clip():
  visual = {'conv2': {'kernel': np.zeros((3, 4, 4, 3, 128), np.float32)}}
  with pytest.raises(CheckpointMismatch, match='convert.eercf'):
    convert.to_torch({'params': {'clip': {'visual': visual}}}, SMALL)
