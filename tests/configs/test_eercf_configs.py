# SPDX-License-Identifier: Apache-2.0
"""Every config of EERCF: the published network, recipe and optimiser."""

import functools
import importlib
import math
import re

import numpy as np
import pytest

from tests.configs import shipped
from tests.configs.shipped import load
from tests.data import frame_sets
from vidret_jax import config_lib as cl
from vidret_jax.convert import clip as clip_convert
from vidret_jax.convert import eercf as convert
from vidret_jax.convert import rules as rules_lib
from vidret_jax.data import shapes_frames
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.models import eercf
from vidret_jax.train import optim, state

# Those of published datasets: all but the one of the embedded corpus.
PUBLISHED = [spec for spec, count in shipped.EERCF.items() if count]
# Parameters of the towers, as published.
TOWERS = {
  'ViT-B/32': 151_277_313,
  'ViT-B/16': 149_620_737,
  'ViT-L/14': 427_616_513,
}
# Of the published command lines: batch, processes, words, frames.
RECIPES = {
  'eercf_msrvtt.py': (240, 4, 32, 12),
  'eercf_msvd.py': (128, 4, 32, 12),
  'eercf_lsmdc.py': (128, 4, 32, 12),
  'eercf_vatex.py': (128, 4, 32, 12),
  'eercf_didemo.py': (128, 8, 64, 64),
  'eercf_activitynet.py': (128, 8, 64, 64),
}
# What --freeze_layer_num 0 freezes, under upstream's names.
EMBEDDINGS = {
  'clip.positional_embedding',
  'clip.token_embedding.weight',
  'clip.visual.class_embedding',
  'clip.visual.conv1.weight',
  'clip.visual.ln_pre.bias',
  'clip.visual.ln_pre.weight',
  'clip.visual.positional_embedding',
}
# Used after features have been gathered from all processes.
GATHERED = {'global_mat_weight', 'frame_logit_weight', 'clip.logit_scale'}


def argument(spec, name, default):
  """The value of one argument of a spec."""
  found = re.search(rf'\b{name}=([^,]+)', spec)
  return found[1] if found else default


def input_spec(model, words):
  """What the data of a config must look like."""
  side, frames = model.sizes.image_size, model.max_frames
  return {
    'text': ((words,), np.dtype('int32')),
    'frames': ((frames, side, side, 3), np.dtype('uint8')),
    'frame_mask': ((frames,), np.dtype(bool)),
    '_mask': ((), np.dtype(bool)),
  }


@functools.cache
def _abstract(model, words):
  """Shapes of a model's parameters; many specs share them."""
  model = eercf.make(**model)
  variables = state.abstract(model, input_spec(model, words), 0)
  assert set(variables) == {'params'}
  return variables['params']


def params_of(config):
  return _abstract(cl.freeze(config.model), config.input.data.max_words)


def upstream_names(config):
  """{our name of a tensor: upstream's}."""
  model = eercf.make(**cl.freeze(config.model))
  return {r.leaf.removeprefix('params/'): r.key for r in convert.rules(model)}


def value_of(name, rules):
  """What the first rule that matches says; None where none does."""
  return next((x for regex, *x in rules if re.fullmatch(regex, name)), None)


@pytest.mark.parametrize('spec', PUBLISHED)
def test_parameters(spec):
  params = params_of(load(spec))
  assert shipped.count(params) == shipped.EERCF[spec]
  towers = TOWERS[argument(spec, 'clip', 'ViT-B/32')]
  if 'linear_patch=3d' in spec:  # Three times the convolution.
    kernel = params['clip']['visual']['conv2']['kernel']
    towers += shipped.count(kernel) * 2 // 3
  assert shipped.count(params['clip']) == towers


@pytest.mark.parametrize('spec', PUBLISHED)
def test_rules_of_the_optimiser(spec):
  config = load(spec)
  params = params_of(config)
  tx, lr = optim.make(
    config.optim,
    config.schedule,
    params=params,
    steps_per_epoch=10,
    total_steps=100,
  )
  assert tx is not None
  ours = upstream_names(config)
  assert set(ours) == set(rules_lib.flatten(params))
  # Upstream's first update has rate 0; both rates peak together.
  rates = np.array([sorted(lr(step).values()) for step in (0, 9, 50, 100)])
  assert (rates[0] == 0).all() or config.optim.name == 'adamw'
  factor = 1e-3 if config.optim.name == 'bert_adam' else 1e-2
  np.testing.assert_allclose(rates[1:, 0], factor * rates[1:, 1], rtol=1e-5)
  assert rates.max() <= 1e-4 and rates[1, 1] > 0.8e-4


@pytest.mark.parametrize('spec', PUBLISHED)
def test_frozen_tensors_are_upstreams(spec):
  config = load(spec)
  names = upstream_names(config)
  flags = rules_lib.flatten(optim.trained(config.schedule, params_of(config)))
  frozen = {names[leaf] for leaf, trained in flags.items() if not trained}
  layers = int(argument(spec, 'freeze', 0))
  want = set()
  if layers >= 0 and 'linear_patch=3d' not in spec:  # A slip of upstream.
    block = re.compile(r'clip\.(?:visual\.)?transformer\.resblocks\.(\d+)\.')
    numbers = {k: block.match(k) for k in names.values()}
    want = EMBEDDINGS | {
      k for k, found in numbers.items() if found and int(found[1]) < layers
    }
  assert frozen == want


@pytest.mark.parametrize('name', shipped.files(PUBLISHED))
def test_factors_of_half_compat_are_upstreams(name):
  config = load(name)
  ranks = RECIPES[name][1]
  for leaf, key in upstream_names(config).items():
    assert value_of(leaf, config.optim.wd_mults) == [float('bias' not in key)]
    factor = 1.0 if key in GATHERED else 1 / ranks
    assert value_of(leaf, config.optim.grad_mults) == [factor]
    half = value_of(leaf, [(regex,) for regex in config.optim.half]) is not None
    ours = key.removeprefix('clip.')
    assert half == (key != ours and clip_convert.is_half(ours)), leaf


def test_adamw_decays_matrices_only():
  config = load('eercf_msrvtt.py:update=adamw')
  for name, x in rules_lib.flatten(params_of(config)).items():
    if value_of(name, config.schedule)[0] is not None:
      assert value_of(name, config.optim.wd_mults) == [float(len(x.shape) > 1)]


@pytest.mark.parametrize('spec', PUBLISHED)
def test_the_recipe(spec):
  config = load(spec)
  batch, _, words, frames = RECIPES[spec.split(':')[0]]
  data = config.input.data
  assert (config.input.batch_size, data.max_words) == (batch, words)
  assert config.model.max_frames == frames
  assert (config.total_epochs, config.input.epoch_end) == (5, 'drop')
  assert config.optim.limits == [('clip/logit_scale', None, math.log(100))]
  assert config.optim.clip_norm == 1.0 and config.optim.wd == 0.2
  assert config.model.loss_weights.to_dict() == eercf.LOSS_WEIGHTS
  assert config.model.rank_weights.to_dict() == eercf.RANK_WEIGHTS


@pytest.mark.parametrize('spec', PUBLISHED)
def test_model_and_data_agree(spec):
  config = load(spec)
  sizes = eercf.make(**cl.freeze(config.model)).sizes
  train = config.input.data
  for node in (config.input, *config.evals.values()):
    data = node.data
    assert data.max_frames == config.model.max_frames
    assert data.image_size == sizes.image_size
    for key in ('name', 'max_words', 'tokenizer', 'storage', 'root'):
      assert data[key] == train[key]
  assert train.max_words <= sizes.context
  # Exactly what upstream feeds wherever a number is published.
  for entry in config.evals.values():
    assert entry.data.transform == 'exact'
  variant = argument(spec, 'clip', 'ViT-B/32').replace('/', '-')
  assert config.init.torch.endswith(f'{variant}.pt')


@pytest.mark.parametrize('name', shipped.files(PUBLISHED))
def test_splits_are_those_of_the_dataset(name):
  """Nothing that is trained on, or selected by, is tested on."""
  config = load(f'{name}:split=full' if 'msrvtt' in name else name)
  dataset = name.removeprefix('eercf_').removesuffix('.py')
  used = [config.input.data.split]
  used += [e.data.split for e in config.evals.values()]
  assert set(used) <= set(frame_sets.SPLITS[dataset])
  entry = {k: e.data.split for k, e in config.evals.items()}
  assert entry['test'] == entry['upstream'] != config.input.data.split
  if config.best:
    assert config.best.startswith('val/') and entry['val'] != entry['test']
  else:
    assert config.select == 'last'
  for key, e in config.evals.items():
    assert (e.mode == 'upstream') == (key == 'upstream')
    assert e.report == (key == 'test')


@pytest.mark.parametrize(
  'spec, word',
  [
    ('eercf_msrvtt.py:clip=ViT-B/64', 'ViT-B/32'),
    ('eercf_msrvtt.py:split=1ka', '7k'),
    ('eercf_msrvtt.py:update=sgd', 'half_compat'),
    ('eercf_msvd.py:split=full', 'storage'),
    ('eercf_msvd.py:linear_patch=4d', "'2d' or '3d'"),
    ('eercf_msvd.py:freeze=-2', 'freeze=-2: expected -1'),
    ('eercf_msvd.py:freeze=all', 'int'),
  ],
)
def test_bad_arguments_are_named(spec, word):
  with pytest.raises(ValueError, match=word):
    load(spec)


@pytest.mark.parametrize('name', shipped.files(PUBLISHED))
def test_the_whole_input_is_what_the_model_takes(name, tmp_path, monkeypatch):
  """The published sizes, no change to the config but the vocabulary."""
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  words = frame_sets.write_tokenizer(tmp_path / 'tokenizer.json')
  size = tokenizer_lib.load(words).vocab_size
  config = load(
    name, f'input.data.tokenizer={words}', f'input.data.vocab_size={size}'
  )
  dataset = name.removeprefix('eercf_').removesuffix('.py')
  frame_sets.write_set(dataset, tmp_path)
  data = dict(cl.freeze(config.input.data))
  module = importlib.import_module(f'vidret_jax.data.{data.pop("name")}')
  source = module.make(view='pairs', **data)
  model = eercf.make(**cl.freeze(config.model))
  assert dict(source.spec) == input_spec(model, config.input.data.max_words)
  row = source.gather(np.array([0]), np.array([0]))
  for key, (shape, dtype) in source.spec.items():
    assert (row[key].shape, row[key].dtype) == ((1, *shape), dtype)
  assert row['_mask'].all() and row['frames'].any()


@pytest.mark.parametrize('name', shipped.files(shipped.EERCF))
def test_runlocal_is_small_and_on_the_embedded_corpus(name):
  config = load(f'{name}:runlocal')
  assert {config.input.data.name} | {
    e.data.name for e in config.evals.values()
  } == {'shapes_frames'}
  assert config.init.torch is None
  assert shipped.count(params_of(config)) < 500_000


@pytest.mark.parametrize('arg', ['', ':linear_patch=3d', ':runlocal'])
def test_the_embedded_corpus_fits_the_model(arg):
  config = load(f'eercf_shapes.py{arg}')
  model = eercf.make(**cl.freeze(config.model))
  assert model.sizes.vocab == shapes_frames.VOCAB_SIZE
  for node in (config.input, *config.evals.values()):
    assert node.data.max_words <= model.sizes.context
    assert node.data.max_frames == model.max_frames
    assert node.data.image_size == model.sizes.image_size
    for key in ('counts', 'root'):  # One corpus for all.
      assert node.data.get(key) == config.input.data.get(key)
  optim.make(
    config.optim,
    config.schedule,
    params=params_of(config),
    steps_per_epoch=3,
    total_steps=9,
  )
