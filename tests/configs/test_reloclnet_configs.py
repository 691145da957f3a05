# SPDX-License-Identifier: Apache-2.0
"""Every config of ReLoCLNet and XML: upstream's options, the networks."""

import functools
import json
import re

import numpy as np
import pytest

from tests.configs import shipped
from tests.configs.shipped import load
from vidret_jax import config_lib as cl
from vidret_jax.convert import reloclnet_config
from vidret_jax.models import reloclnet
from vidret_jax.search import moment_programs
from vidret_jax.train import optim, state

DOCUMENT = shipped.CONFIGS.parent / 'docs' / 'configs.md'
ROW = re.compile(r'^\| ([^|]+) \| `([^|`]+)` \| ([^|]+) \|$', re.M)
NAME = re.compile(r'`([\w.]+)`')
PLACES = ('optim', 'model', 'data', 'search', 'evals', 'input')
ALONE = ('total_epochs', 'patience', 'best')
# None in configs: the dataset knows.
BY_LAYOUT = ('data.norm_video', 'data.norm_text', 'data.clip_seconds')
WIDTHS = {'resnet_i3d': 3072, 'resnet': 2048, 'i3d': 1024}
TEXT = 768
SPECS = list(shipped.RELOCLNET)
PUBLISHED = [s for s in SPECS if not s.startswith('reloclnet_shapes')]
FILES = shipped.files(PUBLISHED)

resolved = functools.cache(load)  # Locked, so nobody changes what is shared.


def table():
  """[(upstream's names, value, our keys)] of rows with a value."""
  after = DOCUMENT.read_text().split('## ReLoCLNet: upstream options')[1]
  section = after.split('\n## ')[0]
  return [
    (NAME.findall(names), json.loads(value), NAME.findall(ours))
    for names, value, ours in ROW.findall(section)
  ]


def at(config, key):
  """The value of a key of the document; absent data options are None."""
  first, *rest = key.split('.')
  node = {
    'data': config.input.data,
    'search': config.evals.val.search,
  }.get(first, config.get(first))
  for part in rest:
    node = node.get(part)
  return node


def is_ours(key):
  """Whether the document means a key that configs set."""
  if key in BY_LAYOUT:
    return False
  return key in ALONE or ('.' in key and key.split('.')[0] in PLACES)


def test_values_are_upstreams():
  config = resolved('reloclnet_tvr.py')
  for names, value, ours in table():
    for key in filter(is_ours, ours[:2]):
      found = at(config, key)
      if key == 'best':
        value = f'val/{value}_stop'
      if isinstance(found, tuple):
        found = list(found)
      assert found == (None if value == -1 else value), (names, key)
  optimizer = config.optim
  assert optimizer.name == 'bert_adam'
  assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.999, 1e-6)
  (_, rule) = config.schedule[-1]
  assert dict(rule) == dict(decay='warmup_linear', warmup=0.01)
  assert config.input.epoch_end == 'pad' and config.select == 'best'
  assert config.evals.nms.search.nms == 0.5


def test_the_document_is_the_recipe_of_the_config():
  """Upstream's options, read as a run is, give our model and search."""
  opt = {names[0]: value for names, value, _ in table() if names}
  told = reloclnet_config.run_config(opt)
  config = resolved('reloclnet_tvr.py')
  # Ours trains short videos at their own length: the same numbers, faster.
  found = dict(config.model.to_dict(), steps_per_epoch=3, short_clips=None)
  assert reloclnet.make(**found) == reloclnet.make(
    **told['model'], steps_per_epoch=3
  )
  search = config.evals.val.search
  assert {k: search[k] for k in told['search']} == told['search']
  data = config.input.data
  assert {k: data[k] for k in ('context', 'max_clips', 'max_words')} == {
    k: told['data'][k] for k in ('context', 'max_clips', 'max_words')
  }
  assert data.sampling == told['data']['sampling']


def test_xml_is_that_of_tvretrieval():
  config = resolved('reloclnet_tvr.py:model=xml')
  model = config.model
  assert (model.dim, model.heads, model.max_clips) == (256, 4, 100)
  assert model.loss.frame == model.loss.video == 0
  assert config.input.data.sampling == 'first'
  assert config.input.data.context == 'video_sub'
  search = config.evals.val.search
  assert (search.alpha, search.end_offset) == (20.0, 1)


def input_spec(config):
  """What the data of a config of a published dataset must look like."""
  data = config.input.data
  clips, words = data.max_clips, data.max_words
  flag, f4 = np.dtype(bool), np.dtype(np.float32)
  places = 2 if 'tef' in data.context else 0
  widths = dict(
    video=WIDTHS[data.features] if 'video' in data.context else 0,
    subtitle=TEXT,
  )
  return {
    'query': ((words, TEXT), f4),
    'query_mask': ((words,), flag),
    'clip_mask': ((clips,), flag),
    'span': ((2,), np.dtype(np.int32)),
    '_mask': ((), flag),
    **{s: ((clips, widths[s] + places), f4) for s in config.model.streams},
  }


@functools.cache
def _params(model, spec):
  model = dict(model, steps_per_epoch=3)
  variables = state.abstract(reloclnet.make(**model), dict(spec), 0)
  assert set(variables) == {'params'}
  return variables['params']


def params_of(config):
  spec = input_spec(config)
  # What no tensor depends on would only make more of them.
  model = dict(cl.freeze(config.model), loss=None)
  return _params(tuple(sorted(model.items())), tuple(sorted(spec.items())))


@pytest.mark.parametrize('spec', PUBLISHED)
def test_parameters_and_their_rules(spec):
  config = load(spec)
  params = params_of(config)
  if shipped.RELOCLNET[spec]:
    assert shipped.count(params) == shipped.RELOCLNET[spec]
  optim.make(
    config.optim,
    config.schedule,
    params=params,
    steps_per_epoch=3,
    total_steps=9,
  )


@pytest.mark.parametrize('spec', SPECS)
def test_model_data_and_search_agree(spec):
  config = load(spec)
  train, model = config.input.data, config.model
  assert model.streams == tuple(reloclnet_config.streams(train.context))
  assert (model.max_clips, model.max_words) == (
    train.max_clips,
    train.max_words,
  )
  assert (model.variant == 'xml') == ('model=xml' in spec)
  for node in config.evals.values():
    same = {k: v for k, v in node.data.items() if k != 'split'}
    assert same == {k: v for k, v in train.items() if k != 'split'}
    if node.type == 'moments':
      moment_programs.Options(**node.search)
  splits = {k: e.data.split for k, e in config.evals.items()}
  assert train.split == 'train' and splits['val'] == 'val'
  assert config.best.startswith('val/') and config.select == 'best'
  stop = config.best.removeprefix('val/').removesuffix('_stop')
  assert stop in config.evals.val.tasks


@pytest.mark.parametrize('name', FILES)
def test_what_each_task_trains(name):
  weights = {
    task: load(f'{name}:task={task}').model.loss.to_dict()
    for task in ('all', 'retrieval', 'localization')
  }
  usual = weights['all']
  assert weights['retrieval'] == dict(usual, span=0.0)
  assert weights['localization'] == dict(usual, neg_ctx=0.0, neg_q=0.0)
  assert load(f'{name}:contrast=False').model.loss.to_dict() == dict(
    usual, frame=0.0, video=0.0
  )


@pytest.mark.parametrize('model', ['reloclnet', 'xml'])
@pytest.mark.parametrize('context', ['video_sub', 'video_tef'])
def test_retrieval_freezes_what_has_no_gradient(model, context):
  spec = f'reloclnet_tvr.py:task=retrieval,model={model},ctx={context}'
  config = load(spec)
  params = params_of(config)
  trained = optim.trained(config.schedule, params)
  assert not any(_leaves(trained['span']))
  video = trained['video']
  for name in ('enc_2', 'enc_3', 'cross', 'cross_norm'):
    if name in video:
      assert set(_leaves(video[name])) == {model == 'reloclnet'}, name
  rest = {k: v for k, v in trained.items() if k not in ('span', 'video')}
  rest.pop('subtitle', None)
  assert all(_leaves(rest)) and all(_leaves(video['enc_1']))


def _leaves(tree):
  if isinstance(tree, bool):
    return [tree]
  return [x for branch in tree.values() for x in _leaves(branch)]


@pytest.mark.parametrize(
  'spec, word',
  [
    ('reloclnet_tvr.py:model=xlm', 'reloclnet, xml'),
    ('reloclnet_tvr.py:ctx=video_subtitle', 'video_sub_tef'),
    ('reloclnet_tvr.py:features=resnet152', 'resnet_i3d, resnet, i3d'),
    ('reloclnet_charades.py:task=localisation', 'all, retrieval, localization'),
    ('reloclnet_didemo.py:contrast=no', 'contrast'),
    ('reloclnet_shapes.py:features=i3d', 'unknown config argument'),
  ],
)
def test_bad_arguments_are_named(spec, word):
  with pytest.raises(cl.ConfigError, match=word):
    load(spec)


@pytest.mark.parametrize('arg', ['', ',model=xml,ctx=sub', ',test'])
@pytest.mark.parametrize('name', FILES)
def test_runlocal_is_small_and_on_the_embedded_corpus(name, arg):
  config = load(f'{name}:runlocal{arg}')
  nodes = (config.input, *config.evals.values())
  assert {node.data.name for node in nodes} == {'shapes_moments'}
  assert {node.data.split for node in nodes} == {'train', 'val', 'test'}
  assert config.model.dim <= 32 and config.patience is None
