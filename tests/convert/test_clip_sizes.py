# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/clip_sizes.py."""

import dataclasses

import numpy as np
import pytest

from tests.convert import clip_states
from tests.convert.clip_states import SMALL
from vidret_jax.convert import clip_sizes
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models.clip import VARIANTS, Sizes

B32, B16, L14 = (VARIANTS[n] for n in ('ViT-B/32', 'ViT-B/16', 'ViT-L/14'))


@pytest.mark.parametrize('linear_patch', ['2d', '3d'])
@pytest.mark.parametrize('want', [SMALL, B32, B16, L14])
def test_sizes_are_read_off(want, linear_patch):
  state = clip_states.empty(clip_states.clip_shapes(want, linear_patch))
  assert clip_sizes.sizes(state) == want
  if linear_patch == '3d':
    del state['visual.conv1.weight']
    assert clip_sizes.sizes(state) == want


@pytest.mark.parametrize(
  'sizes,name',
  [
    (B32, 'ViT-B/32'),
    (dataclasses.replace(L14, image_size=336), 'ViT-L/14 for 336 px'),
    (SMALL, 'none of the published variants'),
  ],
)
def test_describe(sizes, name):
  assert clip_sizes.describe(sizes) == name


def broken(change):
  state = clip_states.empty(clip_states.clip_shapes(SMALL))
  for key, value in change.items():
    if value is None:
      del state[key]
    else:
      state[key] = np.zeros(value, np.float32)
  return state


@pytest.mark.parametrize(
  'change,message',
  [
    ({'visual.conv1.weight': None}, 'x.pt: visual.conv1.weight.*no such key'),
    ({'visual.conv1.weight': (3, 4)}, r'4 axes, found \(3, 4\)'),
    ({'text_projection': ()}, 'text_projection: expected an array of 2 axes'),
    ({'visual.positional_embedding': (9, 128)}, '9 rows.*square'),
    ({'visual.positional_embedding': (0, 128)}, '0 rows.*square'),
    ({'visual.conv1.weight': (100, 3, 4, 4)}, 'multiple of 64'),
    ({'visual.conv1.weight': (128, 3, 0, 0)}, 'x.pt'),
    (
      {'visual.conv1.weight': None, 'visual.attnpool.c_proj.weight': (2, 2)},
      'one with a ResNet',
    ),
  ],
)
def test_what_is_no_clip(change, message):
  with pytest.raises(CheckpointMismatch, match=message):
    clip_sizes.sizes(broken(change), 'x.pt')


def test_every_difference_is_named():
  want = dataclasses.replace(B32, vocab=100)
  with pytest.raises(CheckpointMismatch) as error:
    clip_sizes.check(L14, want, 'x.pt', {'model.max_frames': (64, 12)})
  text = str(error.value)
  for line in (
    'x.pt',
    'file are ViT-L/14',
    'model none of the published',
    'vision_width: file 1024, model 768',
    'vision_layers: file 24, model 12',
    'patch: file 14, model 32',
    'text_width: file 768, model 512',
    'vocab: file 49408, model 100',
    'dim: file 768, model 512',
    'model.max_frames: file 64, model 12',
    "Set model.clip='ViT-L/14', model.max_frames=64",
  ):
    assert line in text, line
  assert 'context' not in text and 'image_size' not in text


def test_only_options_differ():
  with pytest.raises(CheckpointMismatch, match='Set model.temporal_layers=2,'):
    clip_sizes.check(B32, B32, 'x.pt', {'model.temporal_layers': (2, 4)})


@pytest.mark.parametrize(
  'found,want,text',
  [
    (B16, B32, "model.clip='ViT-B/16'"),
    (
      B16,
      dataclasses.replace(B32, image_size=288),
      "model.clip=dict(name='ViT-B/16', image_size=288)",
    ),
    # 288 is no multiple of 14.
    (L14, dataclasses.replace(B32, image_size=288), "model.clip='ViT-L/14'"),
  ],
)
def test_the_setting_for_a_file(found, want, text):
  assert clip_sizes.setting(found, want) == text


def test_the_setting_of_sizes_of_your_own():
  text = clip_sizes.setting(SMALL, B32).removeprefix('model.clip=')
  fields = eval(text, {'dict': dict})
  # 224 is a multiple of its patch: the model's image size stays.
  assert Sizes(**fields) == dataclasses.replace(SMALL, image_size=224)


def test_another_image_size_is_no_difference():
  clip_sizes.check(B16, dataclasses.replace(B16, image_size=384), 'x.pt')
