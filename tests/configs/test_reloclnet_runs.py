# SPDX-License-Identifier: Apache-2.0
"""Configs of ReLoCLNet on files as they are published, made small.

Each is prepared, trains, evaluates, and writes its page and predictions.
"""

import json

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np
import pytest

from tests.configs.shipped import load
from tests.data import moment_sets
from tests.evaluators import page_reader
from vidret_jax import config_lib as cl
from vidret_jax.data.moments import layout
from vidret_jax.models import reloclnet
from vidret_jax.tools import prepare as prepare_tool
from vidret_jax.train import defaults, loop, optim, state, step

LAYOUTS = (layout.TVR, layout.ACTIVITYNET, layout.CHARADES, layout.DIDEMO)
FOLDERS = {found.name: found.folder for found in LAYOUTS}
SECONDS = {found.name: found.clip_seconds for found in LAYOUTS}
# Every dataset, kind of model, context and part of the loss. One of them runs
# where time counts, since most of it goes to the compiler.
SPECS = (
  'reloclnet_tvr.py:test',
  'reloclnet_activitynet.py:contrast=False,task=retrieval',
  'reloclnet_charades.py:task=localization',
)
RUNS = (
  'reloclnet_didemo.py:model=xml',
  *(
    pytest.param(spec, marks=pytest.mark.slow)
    for spec in (
      *SPECS,
      'reloclnet_tvr.py:ctx=sub_tef,features=resnet',
    )
  ),
)
VIDEOS = dict(train=3, val=3, test_public=2, test_challenge=1)


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
  """Folder of compiled programs, in use by the time a run has begun."""
  yield str(tmp_path_factory.mktemp('programs'))
  jax.config.update('jax_compilation_cache_dir', None)
  compilation_cache.reset_cache()


def small(spec, **changes):
  """The config with a small network, short videos and batches of four."""
  config = load(spec)
  changes = {
    'model.dim': 8,
    'model.heads': 2,
    # Two plans would be two programs; tests of the model compare them.
    'model.short_clips': None,
    'compile_cache': False,
    **changes,
  }
  for key, size in (('max_clips', 24), ('max_words', 8)):
    changes[f'model.{key}'] = size
    for place in ('input', *(f'evals.{name}' for name in config.evals)):
      changes[f'{place}.data.{key}'] = size
  if 'loss' in config.evals:
    changes['evals.loss.batch_size'] = 4
  for name, entry in config.evals.items():
    if 'search' in entry:  # Compiles faster.
      changes[f'evals.{name}.search.before_nms'] = 20
  # The first update has the rate 0.
  return cl.shrink(config, steps=2, batch_size=4, **changes)


def prepare(config):
  args, _ = prepare_tool.parse(['--config', ''])
  prepare_tool.prepare(config, args)


@pytest.mark.parametrize('spec', RUNS)
@pytest.mark.usefixtures('quick_compiler')
def test_trains_and_evaluates(spec, tmp_path, monkeypatch, programs):
  data = tmp_path / 'data'
  monkeypatch.setenv('VIDRET_DATA_DIR', str(data))
  config = small(spec, compile_cache=programs)
  name = config.input.data.name
  moment_sets.write(data / FOLDERS[name], name, videos=VIDEOS, queries=2)
  prepare(config)
  watched = cl.track(config)
  defaults.use_compile_cache(watched.compile_cache)
  results = loop.train(watched, str(tmp_path / 'run'))
  assert watched.unread() == []
  assert all(np.isfinite(v) for v in results.values())
  tasks = config.evals.val.tasks
  for key in ('val', 'nms'):
    for task in ('VCMR', 'SVMR', 'VR'):
      assert (f'{key}/{task}_stop' in results) == (task in tasks)
  assert results['val/VR_r10'] == 100  # All of the few videos are listed.
  for key, entry in config.evals.items():
    if entry.when == 'final':
      folder = tmp_path / 'run' / 'report' / key
      check_final(entry, folder, key, results)


def check_final(entry, folder, key, results):
  """The page shows queries of the split, the file answers all of them."""
  data = dict(cl.freeze(entry.data))
  make = cl.find('data', data.pop('name'), 'make')
  queries = make(view='queries', **data)
  articles = page_reader.parse(folder / 'index.html').find('article')
  assert {a.find('q')[0].text for a in articles} == set(queries.texts)
  (file,) = folder.glob('*-predictions.json')
  found = json.loads(file.read_text())
  tasks = set(entry.tasks) - (set() if queries.answered else {'SVMR'})
  assert tasks == set(found) - {'video2idx'}
  for task in tasks:
    assert [r['desc_id'] for r in found[task]] == queries.numbers.tolist()
    for row in found[task]:
      assert task != 'VR' or len(row['predictions']) == len(found['video2idx'])
      for _, *span, _ in row['predictions'] if task != 'VR' else ():
        clips = np.round(np.array(span) / SECONDS[entry.data.name], 6)
        clips[1] -= entry.search.end_offset
        assert (clips % entry.search.get('grid', 1) == 0).all()
  assert queries.answered == any(k.startswith(f'{key}/') for k in results)


@pytest.mark.parametrize('spec', SPECS)
def test_data_fit_the_model(spec, tmp_path, monkeypatch):
  """Shapes of a whole update, of real records; nothing is compiled."""
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  config = small(spec)
  name = config.input.data.name
  moment_sets.write(tmp_path / FOLDERS[name], name, videos=VIDEOS, queries=2)
  prepare(config)
  data = dict(cl.freeze(config.input.data))
  make = cl.find('data', data.pop('name'), 'make')
  source = make(view='pairs', **data)
  batch = source.gather(np.arange(4), np.arange(4))
  model = reloclnet.make(**dict(cl.freeze(config.model), steps_per_epoch=2))
  params = state.abstract(model, source.spec, 0)['params']
  tx, lr = optim.make(
    config.optim,
    config.schedule,
    params=params,
    steps_per_epoch=2,
    total_steps=4,
  )

  def update(params, batch):
    begun = state.TrainState(jnp.int32(0), params, {}, tx.init(params))
    watch = step.Watch(
      jnp.int32(-1), jnp.float32(0), jnp.zeros(len(jax.tree.leaves(params)))
    )
    trained = optim.trained(config.schedule, params)
    done, _, scalars = step.make(model, tx, lr, 0, trained=trained)(
      begun, watch, batch
    )
    return done.params, scalars

  after, scalars = jax.eval_shape(update, params, batch)
  assert jax.tree.map(_form, after) == jax.tree.map(_form, params)
  wanted = {f'train/{k}' for k, x in config.model.loss.items() if x}
  assert wanted == set(scalars) & {f'train/{k}' for k in config.model.loss}


def _form(x):
  return x.shape, x.dtype
