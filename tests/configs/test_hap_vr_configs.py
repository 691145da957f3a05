# SPDX-License-Identifier: Apache-2.0
"""Every config of HAP-VR: upstream's flags, the networks, the data."""

import functools
import json
import re

import jax
import numpy as np
import pytest

from tests.configs import shipped
from tests.configs.shipped import load
from vidret_jax import config_lib as cl
from vidret_jax.convert import hap_vr as hap_vr_convert
from vidret_jax.convert import hap_vr_config, hap_vr_files
from vidret_jax.data import evaluation_only
from vidret_jax.data.augment import recipe
from vidret_jax.evaluators import copy_options
from vidret_jax.models import hap_vr
from vidret_jax.search import copies
from vidret_jax.train import optim, state

DOCUMENT = shipped.CONFIGS.parent / 'docs' / 'configs.md'
ROW = re.compile(r'^\| `(\w+)` \| `([^|`]+)` \| ([^|]+) \|$', re.M)
NAME = re.compile(r'`([\w.]+)`')
PLACES = ('optim', 'model', 'data', 'augment', 'schedule', 'evals')
ALONE = ('total_steps', 'log_steps', 'ckpt_steps')
# Upstream's value -> ours, where it is another one on purpose.
OTHERS = {
  ('warmup_iters', 'schedule.warmup'): 1000 / 30000,
  ('warmup_iters', 'schedule.decay_steps'): 30000,
  ('use_fp16', 'model.backbone.dtype'): 'bfloat16',
  ('use_fp16', 'model.labeller.dtype'): 'bfloat16',
  ('batch_sz', 'model.groups'): 2,
}
SPECS = list(shipped.HAP_VR)
POOLS = {'TopKChamfer': 'topk'}

resolved = functools.cache(load)  # Locked, so nobody changes what is shared.


def table():
  """[(upstream's name, value, our keys)] of flags with a value."""
  section = DOCUMENT.read_text().split('## HAP-VR: upstream flags')[1]
  return [
    (name, json.loads(value), NAME.findall(ours))
    for name, value, ours in ROW.findall(section)
  ]


def at(config, key):
  """The value of a key of the document."""
  first, *rest = key.split('.')
  node = {
    'data': config.input.data,
    'augment': config.input.data.augment,
    'schedule': config.schedule[-1][1],
  }.get(first, config.get(first))
  for part in rest:
    node = node[part]
  return node


def ours_of(name, value):
  """Upstream's value as we would write it."""
  return POOLS.get(value, value) if name.endswith('sim_module') else value


def test_values_are_upstreams():
  config, seen = resolved('hap_vr_vcdb.py'), set()
  for name, value, ours in table():
    for key in ours:
      known = key in ALONE or key.split('.')[0] in PLACES
      if known and name != 'workers':
        found = at(config, key)
        if hasattr(found, 'items'):
          continue  # A dict of which other rows have the values.
        want = OTHERS.get((name, key), ours_of(name, value))
        found = list(found) if isinstance(found, tuple) else found
        assert found == want, (name, key)
        seen.add(key)
  assert len(seen) > 40
  # Spelt out, and what the package would take by itself.
  assert recipe.make(cl.freeze(config.input.data.augment)) == recipe.make(
    {'temporal': cl.freeze(config.input.data.augment.temporal)}
  )
  assert (
    recipe.make(None).times()
    == recipe.make(cl.freeze(config.input.data.augment)).times()
  )
  assert config.input.batch_size == 2 * 64
  assert config.input.epoch_end == 'drop' and config.best is None
  adam = config.optim
  assert (adam.name, adam.b1, adam.b2, adam.eps) == ('adamw', 0.9, 0.999, 1e-8)


def test_the_document_is_the_recipe_of_the_config():
  """Upstream's flags, read as those of a checkpoint are, give our model."""
  told = {name: value for name, value, _ in table()}
  options = hap_vr_config.model_options(hap_vr_files.Checkpoint({}, told))
  ours = dict(cl.freeze(resolved('hap_vr_vcdb.py').model))
  loss = options.pop('loss')
  assert {k: ours['loss'][k] for k in loss} == loss
  assert {k: ours[k] for k in options} == options
  assert len(options) > 10


def test_the_rate_is_upstreams():
  """With its step down where the warm-up ends (`utils/misc.py`)."""
  config = resolved('hap_vr_vcdb.py')
  _, rates = optim.make(
    config.optim,
    [config.schedule[-1]],
    params={'x': np.zeros(1)},
    steps_per_epoch=700,
    total_steps=config.total_steps,
  )
  for step, want in (
    (0, 4e-7),
    (500, 4e-5 * 0.505),
    (1000, 4e-6 + 1.8e-5 * (1 + np.cos(np.pi / 30))),
    (15000, 2.2e-5),
    (30000, 4e-6),
  ):
    np.testing.assert_allclose(rates(step)[''], want, rtol=1e-5)


def test_the_command_line_takes_files():
  config = load(
    'hap_vr_vcdb.py',
    'input.data.root=frames',
    'init.parts.resnet=resnet50.pth',
    'init.parts.pca=pca.pth',
    'init.parts.labeller=dino.pth',
  )
  assert set(config.init.parts) == set(hap_vr_convert.PARTS)
  assert config.init.parts.labeller == 'dino.pth'
  assert config.input.data.root == 'frames'
  config = load(
    'hap_vr_vcdb.py',
    'init.fit.pca=16',
    'model.antialias=True',
    'input.data.augment.antialias=True',
    'input.data.num_threads=8',
    'input.data.unreadable=error',
  )
  assert config.init.fit.pca == 16
  assert config.model.antialias and config.input.data.augment.antialias
  assert config.input.data.num_threads == 8
  config = load('hap_vr_evve.py', 'init.torch=model.pth')
  assert config.init.torch == 'model.pth'


# ------------------------------------------------------------- what is built


def input_spec(config):
  """What the data of a config must look like."""
  data, model = dict(cl.freeze(config.input.data)), config.model
  if data['name'] == 'evaluation_only':
    data.pop('name')
    return evaluation_only.make(**data).spec
  window, flag = data['window'], np.dtype(bool)
  if model.backbone is None:
    f2 = np.dtype(np.float16)
    spec = {v: ((window, 9, model.dim), f2) for v in ('weak', 'strong')}
    if data['labels']:
      spec |= {f'{v}_labels': ((window, 384), f2) for v in ('weak', 'strong')}
    return {**spec, '_mask': ((), flag)}
  side = data.get('size') or data['image_size']
  clip = ((window, side, side, 3), np.dtype(np.uint8))
  mix = ((5,), np.dtype(np.float32))
  return {'weak': clip, 'strong': clip, 'mix': mix, '_mask': ((), flag)}


@functools.cache
def _params(model, spec):
  return state.abstract(hap_vr.make(**dict(model)), dict(spec), 0)['params']


def params_of(config):
  return _params(
    tuple(sorted(cl.freeze(config.model).items())),
    tuple(sorted(input_spec(config).items())),
  )


@pytest.mark.parametrize('spec', SPECS)
def test_parameters_and_their_rules(spec):
  config = load(spec)
  params = params_of(config)
  trained = optim.trained(config.schedule, params)
  frozen = {'backbone', 'labeller'} & set(params)
  assert {
    k for k, v in trained.items() if not any(jax.tree.leaves(v))
  } == frozen
  assert (frozen != set()) == (config.model.backbone is not None)
  rest = {k: v for k, v in params.items() if k not in frozen}
  assert all(jax.tree.leaves({k: trained[k] for k in rest}))
  if shipped.HAP_VR[spec]:
    assert shipped.count(rest) == shipped.HAP_VR[spec]
  if 'vcdb' in spec and frozen:
    # ResNet-50 as published without its last layer, with its statistics.
    resnet = shipped.count(params['backbone']['resnet'])
    assert resnet == 25_557_032 - 2_049_000 + 53_120
  optim.make(
    config.optim,
    config.schedule,
    params=params,
    steps_per_epoch=3,
    total_steps=9,
  )


@pytest.mark.parametrize('spec', SPECS)
def test_options_of_evaluations_exist(spec):
  config = load(spec)
  assert len(config.evals) == 1
  for entry in config.evals.values():
    options = {
      k: v
      for k, v in dict(cl.freeze(entry)).items()
      if k not in ('type', 'when', 'report', 'log_steps')
    }
    copy_options.Options(**options)
    assert copies.Options(**options['search']).chunk == 2048
    assert entry.type == 'copies'
    assert entry.report == (entry.when == 'final')


def test_losses():
  weights = {
    loss: load(f'hap_vr_vcdb.py:loss={loss}').model.loss.to_dict()
    for loss in ('hap', 'video', 's2vs', 'infonce')
  }
  usual = weights['hap']
  assert usual == dict(frame=6.0, video=4.0, nce=1.0, sshn=3.0, reg=1.0)
  assert weights['video'] == dict(usual, frame=0.0)
  assert weights['s2vs'] == dict(usual, frame=0.0, video=0.0)
  assert {k for k, v in weights['infonce'].items() if v} == {'nce'}
  for loss in ('video', 's2vs', 'infonce'):
    assert load(f'hap_vr_vcdb.py:loss={loss}').model.labeller is None


@pytest.mark.parametrize(
  'spec, word',
  [
    ('hap_vr_vcdb.py:loss=none', 'hap, video, s2vs, infonce'),
    ('hap_vr_vcdb.py:pool=max', 'topk, chamfer'),
    ('hap_vr_vcdb.py:negatives=all', 'local, global'),
    ('hap_vr_vcdb.py:backbone=resnet', 'step, cache'),
    ('hap_vr_vcdb.py:labels=raw', 'raw255, imagenet'),
    ('hap_vr_vcdb.py:backbone=cache,labels=imagenet', 'when the features'),
    ('hap_vr_evve.py:storage=hdf5', 'files, records'),
    ('hap_vr_evve.py:audio', 'unknown config argument'),
    ('hap_vr_fivr5k.py:visit=most', 'float'),
    ('hap_vr_shapes.py:loss=no', 'hap, video'),
  ],
)
def test_bad_arguments_are_named(spec, word):
  with pytest.raises(cl.ConfigError, match=word):
    load(spec)


def test_features_of_another_width_need_one_option():
  config = load('hap_vr_fivr5k.py', 'model.dim=48')
  assert config.input.data.dim == 48
  (kernel,) = jax.tree.leaves(params_of(config)['attention']['context'])
  assert 48 in kernel.shape
  # Of S2VS and DnS: shorter videos stay shorter, and empty ones are told.
  config = load(
    'hap_vr_evve.py',
    'evals.test.data.min_frames=4',
    'evals.test.data.empty=missing',
  )
  assert config.evals.test.data.min_frames == 4


@pytest.mark.parametrize('spec', SPECS)
def test_runlocal_is_small_and_on_the_embedded_corpus(spec):
  config = load(f'{spec},runlocal' if ':' in spec else f'{spec}:runlocal')
  nodes = (config.input, *config.evals.values())
  assert {node.data.name for node in nodes} == {'shapes_copies'}
  assert {node.data.split for node in nodes} == {'train', 'copies'}
  assert config.model.dim == config.model.backbone.dims == 64
  assert config.model.groups == 1
  assert config.schedule[0] == hap_vr_common().FROZEN[0]
  params_of(config)


def hap_vr_common():
  return cl.load_module(str(shipped.CONFIGS / 'common' / 'hap_vr.py'))
