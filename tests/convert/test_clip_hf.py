# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/clip_hf.py."""

import json

import numpy as np
import pytest

from tests.convert import clip_states
from tests.convert.clip_states import SMALL
from vidret_jax.convert import clip_hf
from vidret_jax.convert.rules import CheckpointMismatch

PUBLIC = clip_states.draw(clip_states.clip_shapes(SMALL))


def test_names_and_values():
  theirs = clip_states.hf_state(PUBLIC)
  assert clip_hf.is_hf(theirs) and not clip_hf.is_hf(PUBLIC)
  clip_states.same(clip_hf.to_public(theirs), PUBLIC)


def test_back():
  want = clip_states.hf_state(PUBLIC)
  want = {k: v for k, v in want.items() if not k.endswith('position_ids')}
  clip_states.same(clip_hf.from_public(PUBLIC), want)


def test_unknown_names_are_kept():
  theirs = dict(clip_states.hf_state(PUBLIC), logit_bias=np.zeros(()))
  assert 'logit_bias' in clip_hf.to_public(theirs)


@pytest.mark.parametrize('change', ['missing', 'narrow', 'scalar'])
def test_queries_keys_and_values_belong_together(change):
  theirs = clip_states.hf_state(PUBLIC)
  key = 'text_model.encoder.layers.1.self_attn.k_proj.bias'
  if change == 'missing':
    del theirs[key]
  elif change == 'narrow':
    theirs[key] = theirs[key][:-1]
  else:
    for name in 'qkv':
      theirs[key.replace('k_proj', f'{name}_proj')] = np.zeros(())
  with pytest.raises(
    CheckpointMismatch, match=r'transformer.resblocks.1.attn.in_proj_bias'
  ):
    clip_hf.to_public(theirs)


def test_config():
  config = clip_hf.config(SMALL)
  vision, text = config['vision_config'], config['text_config']
  assert vision['num_attention_heads'] == 2 and vision['patch_size'] == 4
  assert vision['hidden_act'] == text['hidden_act'] == 'quick_gelu'
  assert text['max_position_embeddings'] == SMALL.context
  assert config['projection_dim'] == SMALL.dim
  json.dumps(config)


@pytest.mark.parametrize(
  'text,noted',
  [
    (json.dumps(clip_hf.config(SMALL)), False),
    (json.dumps(clip_hf.config(SMALL)).replace('quick_gelu', 'gelu'), True),
    ('{"model_type": "other"}', False),
    ('[1, 2]', False),
    ('{"text_config": 3, "vision_config": null}', False),
    ('[' * 100_000, False),
    ('\x00', False),
  ],
)
def test_an_activation_that_shows_in_no_shape(tmp_path, text, noted):
  (tmp_path / 'config.json').write_text(text)
  for path in (tmp_path, tmp_path / 'model.safetensors'):
    notes = clip_hf.beside(path)
    assert len(notes) == noted and all('hidden_act' in n for n in notes)


def test_nothing_beside(tmp_path):
  assert clip_hf.beside(tmp_path / 'x.pt') == ()
