# SPDX-License-Identifier: Apache-2.0
"""Every config of CE: describes the published network, runs."""

import importlib

import numpy as np
import pytest

from tests.configs import shipped
from tests.configs.shipped import load
from tests.data import packs
from vidret_jax import config_lib as cl
from vidret_jax.data import shapes
from vidret_jax.models import ce
from vidret_jax.train import defaults, loop, optim, state

# Those that read another file, split, rule or loss: they really run.
RUNS = (
  'ce_msrvtt.py',
  'ce_msrvtt.py:split=jsfusion,model=moee',
  'ce_msrvtt.py:split=miech,model=moee,moee_features',
  'ce_msrvtt.py:model=moee_uniform',
  'ce_msrvtt.py:model=concat',
  'ce_msrvtt.py:legacy_2019',
  'ce_lsmdc.py:model=mimic',
  'ce_msvd.py:model=moee',
  'ce_didemo.py:model=mimic',
  'ce_activitynet.py:legacy_2019,model=moee',
  'teachtext_msrvtt.py:denoise=less80',
  'teachtext_msvd.py:denoise=less100,plus=False',
  'teachtext_didemo.py',
  'teachtext_lsmdc.py:distill=False',
  'teachtext_activitynet.py',
)
# Compiling all nine experts takes long: one config keeps them.
FEW = ('scene.densenet161.0', 'r2p1d.r2p1d-ig65m.0', 'antoine-rgb', 'audio')


def input_spec(model):
  """What the data of a config must look like, from its model part."""
  f4, flag = np.dtype('float32'), np.dtype(bool)
  experts, masks = {}, {}
  for name, value in model.experts:
    rows = (value['max_tokens'],) if value.get('max_tokens') else ()
    experts[name] = ((*rows, value['dim']), f4)
    if rows:
      masks[name] = (rows, flag)
  out = {
    'text': ((model.text.max_tokens, model.text.dim), f4),
    'text_mask': ((model.text.max_tokens,), flag),
    'experts': experts,
    'available': ((len(experts),), flag),
    '_mask': ((), flag),
  }
  if masks:
    out['experts_mask'] = masks
  if model.distill:
    out['teacher_text'] = out['teacher_video'] = ((1, 8), f4)
  return out


def variables(config):
  model = ce.make(**cl.freeze(config.model))
  return state.abstract(model, input_spec(config.model), 0)


def count(config):
  return shipped.count(variables(config)['params'])


@pytest.mark.parametrize('spec', shipped.CE)
def test_parameters_and_their_rules(spec):
  config = load(spec)
  params = variables(config)['params']
  if shipped.CE[spec]:
    assert shipped.count(params) == shipped.CE[spec]
  optim.make(
    config.optim,
    config.schedule,
    params=params,
    steps_per_epoch=3,
    total_steps=9,
  )


@pytest.mark.parametrize(
  'dim, parameters',
  {
    384: 88_618_655,
    512: 119_507_743,
    640: 151_117_727,
    1024: 250_273_055,
  }.items(),
)
def test_parameters_by_width(dim, parameters):
  assert count(load('ce_msrvtt.py', f'model.dim={dim}')) == parameters


@pytest.mark.parametrize('spec', shipped.CE)
def test_model_and_data_agree(spec):
  config = load(spec)
  for node in (config.input, *config.evals.values()):
    assert cl.freeze(node.data.experts) == cl.freeze(config.model.experts)
    assert cl.freeze(node.data.text) == cl.freeze(config.model.text)
  leaks = config.model.availability == 'legacy_2019'
  assert leaks == ('legacy_2019' in spec)
  for entry in config.evals.values():
    assert entry.data.get('own_available', False) == leaks
  assert bool(config.model.distill) == bool(config.input.data.get('teachers'))


@pytest.mark.parametrize(
  'spec, word',
  [
    ('ce_msrvtt.py:spilt=full', 'split'),
    ('ce_msrvtt.py:split=1ka', 'jsfusion'),
    ('ce_msrvtt.py:model=moe', 'moee'),
    ('ce_msrvtt.py:moee_features', 'miech'),
    ('ce_msrvtt.py:searched,model=moee', 'searched'),
    ('ce_msrvtt.py:experts=scenes', 'scene'),
    ('ce_msrvtt.py:text=gpt5', 'openai'),
    ('ce_msvd.py:experts=scene+audio', 'audio'),
    ('ce_shapes.py:expert=color', 'colour'),
    ('ce_shapes.py:expert=audio', 'every video'),
    ('ce_shapes.py:experts=colour+sound', 'audio'),
    ('ce_shapes.py:expert=colour,model=moee', 'alone'),
    ('teachtext_didemo.py:denoise=less80', 'less80'),
  ],
)
def test_bad_arguments_are_named(spec, word):
  with pytest.raises(cl.ConfigError, match=word):
    load(spec)


@pytest.mark.parametrize('name', shipped.files(shipped.CE))
def test_runlocal_is_two_small_steps_on_the_embedded_corpus(name):
  config = load(f'{name}:runlocal')
  assert {config.input.data.name} | {
    e.data.name for e in config.evals.values()
  } == {'shapes'}
  assert count(config) < 500_000
  assert dict(config.model.experts).keys() == dict(shapes.EXPERTS).keys()


@pytest.mark.usefixtures('quick_compiler')
def test_runlocal_runs(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  counts = dict(train=10, val=4, test=4, copies=4)
  shapes.prepare(tmp_path / 'data', counts=counts, progress=False)
  config = load('ce_didemo.py:runlocal,model=mimic', 'compile_cache=False')
  watched = cl.track(config)
  defaults.use_compile_cache(watched.compile_cache)
  results = loop.train(watched, str(tmp_path / 'run'))
  assert watched.unread() == []
  assert set(config.evals) == {k.split('/')[0] for k in results}


def test_tables_are_those_of_the_package():
  config = load('ce_shapes.py')
  assert {n: dict(v) for n, v in config.model.experts} == dict(shapes.EXPERTS)
  assert config.model.text.to_dict() == shapes.TEXT


# --------------------------------------------------------------- real runs


def few(config, keep):
  """The config with some of its experts and small pooling."""
  experts = [
    (n, {k: 2 if k == 'clusters' else v for k, v in value.items()})
    for n, value in config.model.experts
    if keep is None or n in keep
  ]
  out = cl.shrink(
    config,
    steps=2,
    batch_size=4,
    **{'model.dim': 8, 'model.text.clusters': 2, 'compile_cache': False},
  )
  with out.unlocked(), out.model.ignore_type():
    out.model.experts = experts
    for node in (out.input, *out.evals.values()):
      with node.data.ignore_type():
        node.data.experts = experts
        node.data.text.clusters = 2
  return out.lock()


def write_files(config, root):
  """The published files that a config needs, as their authors lay them out."""
  data = config.input.data
  protocol = data.split.split('/')[0] if '/' in data.split else None
  corpus = packs.write_pack(
    data.name,
    root,
    experts=cl.freeze(data.experts),
    text=data.text,
    protocol=protocol,
    feature_root=data.root or 'structured-symlinks',
  )
  counts = packs.caption_counts(corpus)
  if data.get('fuse_captions'):
    counts = dict.fromkeys(counts, 1)
  if data.get('teachers'):
    names = [name for name, _ in data.experts]
    packs.write_teachers(corpus, data.teachers, counts, experts=names, dim=8)
  if data.get('caption_masks'):
    packs.write_masks(corpus, data.caption_masks, counts)
  if data.get('training_file'):
    ids = packs.video_ids(data.name, 8)[1:]  # One video fewer than the list.
    (corpus / data.training_file).write_text('\n'.join(ids) + '\n')


def prepare(config):
  for node in (config.input, *config.evals.values()):
    kw = {
      k: node.data[k]
      for k in ('split', 'experts', 'text', 'root', 'training_file')
      if k in node.data
    }
    module = importlib.import_module(f'vidret_jax.data.{node.data.name}')
    module.prepare(**cl.freeze(kw))


@pytest.mark.parametrize('spec', RUNS)
@pytest.mark.usefixtures('quick_compiler')
def test_trains_and_evaluates(spec, tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  full = load(spec)
  write_files(full, tmp_path / 'data')
  config = few(full, None if spec == 'ce_msrvtt.py' else FEW)
  prepare(config)
  watched = cl.track(config)
  defaults.use_compile_cache(watched.compile_cache)
  results = loop.train(watched, str(tmp_path / 'run'))
  assert watched.unread() == []
  mark = '_leaky2019' if 'legacy_2019' in spec else ''
  for name in config.evals:
    for direction in ('t2v', 'v2t'):
      value = results[f'{name}/{direction}_R@10{mark}']
      assert 0 <= value <= 100
  assert all(np.isfinite(v) for v in results.values())
  reports = [n for n, e in config.evals.items() if e.report]
  assert reports
  for name in reports:
    assert (tmp_path / 'run' / 'report' / name / 'index.html').is_file()


@pytest.mark.parametrize('spec', ['ce_msrvtt.py', 'ce_msvd.py'])
def test_the_whole_input_is_what_the_model_takes(spec, tmp_path, monkeypatch):
  """All experts at their published widths, no change to the config."""
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  config = load(spec)
  write_files(config, tmp_path)
  prepare(config)
  data = dict(cl.freeze(config.input.data))
  module = importlib.import_module(f'vidret_jax.data.{data.pop("name")}')
  source = module.make(view='pairs', **data)
  assert dict(source.spec) == input_spec(config.model)
