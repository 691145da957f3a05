# SPDX-License-Identifier: Apache-2.0
"""Configs of HAP-VR on files as they are published, made small.

Training ones train and evaluate, the others evaluate, with a page; from
features, where nothing is to be compiled but the network itself.
"""

import json

import jax
import numpy as np
import pytest

from tests.configs.shipped import load
from tests.data import copy_sets, feature_files, frame_folders
from tests.evaluators import page_reader
from vidret_jax import config_lib as cl
from vidret_jax.convert import hap_vr as convert
from vidret_jax.data.copies import layout
from vidret_jax.models import hap_vr
from vidret_jax.tools import prepare as prepare_tool
from vidret_jax.train import loop
from vidret_jax.train import run as run_lib

DIM = 12
FOLDERS = {x.name: x.folder for x in (layout.FIVR, layout.EVVE, layout.SVD)}
BACKBONE = dict(stages=(1,) * 4, width=4, dims=DIM, kernels=(4, 2, 1, 1))
LABELLER = dict(image_size=32, patch=16, width=9, layers=1, heads=3)
# Results: those of each config, beside how many videos were found.
FIVR = ('DSVR', 'CSVR', 'ISVR', 'DSVD', 'CSVD', 'ISVD')
FINAL = {
  'hap_vr_fivr5k.py:features_only=True,audio': (*FIVR, 'DAVR', 'DAVD'),
  'hap_vr_fivr200k.py:storage=records,visit=0.5': (*FIVR, 'visited'),
  'hap_vr_evve.py:pool=chamfer,features_only=True': ('EVVE_mAP', 'EVVE_uAP'),
  'hap_vr_svd.py:features_only=True': ('SVD_mAP', 'SVD_uAP'),
  'hap_vr_svd.py:split=labeled,features_only=True': ('SVD_mAP', 'SVD_uAP'),
}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch, quick_compiler):
  folder = tmp_path / 'data'
  monkeypatch.setenv('VIDRET_DATA_DIR', str(folder))
  monkeypatch.chdir(tmp_path)
  return folder


def small(spec, **changes):
  """The config with small videos, a small network, and one kind of batch."""
  config = load(spec)
  data = config.input.data
  changes = {
    'model.dim': DIM,
    'model.max_frames': 32,
    'compile_cache': False,
    **changes,
  }
  if 'shapes' in data:
    for key, shape in data.shapes.items():
      last = DIM if 'labels' not in key else shape[-1]
      changes[f'input.data.shapes.{key}'] = (*shape[:-1], last)
  for name in config.evals:
    changes[f'evals.{name}.search.chunk'] = 24
    changes[f'evals.{name}.search.edges'] = (24,)
    changes[f'evals.{name}.search.query_buckets'] = 1
    changes[f'evals.{name}.search.batch_frames'] = 240
  return cl.shrink(config, steps=2, batch_size=4, **changes)


def written(config, data):
  """Writes what the evaluations read."""
  for entry in config.evals.values():
    name = entry.data.name
    copy_sets.write(data / FOLDERS[name], name, dim=DIM)
  args, _ = prepare_tool.parse(['--config', ''])
  prepare_tool.prepare(config, args)


def weights(config, path):
  """A checkpoint as upstream has it, of drawn weights."""
  model = hap_vr.make(**cl.freeze(config.model))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype('f') / x.size**0.5,
    convert.variable_shapes(model),
  )
  convert.save(path, variables, model)
  return str(path)


@pytest.mark.parametrize('spec', FINAL)
def test_evaluates_published_features(spec, data, tmp_path):
  config = small(spec)
  written(config, data)
  if 'features_only' not in spec:
    config = small(spec, **{'init.torch': weights(config, tmp_path / 'm.pth')})
  watched = cl.track(config)
  results = loop.evaluate(watched, str(tmp_path / 'run'))
  # A run would have read the rest.
  left = [k for k in watched.unread() if k.split('.')[0] == 'evals']
  assert left == []
  assert {f'test/{key}' for key in FINAL[spec]} <= set(results)
  assert all(np.isfinite(v) for v in results.values())
  if 'features_only' in spec:  # Copies are alike.
    assert max(results[f'test/{key}'] for key in FINAL[spec]) > 50
  folder = tmp_path / 'run' / 'report' / 'test'
  articles = page_reader.parse(folder / 'index.html').find('article')
  (file,) = folder.glob('*-similarities.json')
  found = json.loads(file.read_text())
  assert found and len(articles) <= len(found)
  scores = np.array([v for own in found.values() for v in own.values()])
  assert np.isfinite(scores).all() and scores.max() <= 1 + 1e-5
  # Videos that were not looked at lie below all others.
  assert scores.min() >= -1 - 1e-5 or 'visit' in spec


def test_features_alone_need_no_weights_but_a_network_does(data, tmp_path):
  config = small('hap_vr_evve.py')
  written(config, data)
  with pytest.raises(FileNotFoundError, match='no checkpoint.*init.torch'):
    loop.evaluate(config, str(tmp_path / 'run'))
  with pytest.raises(ValueError, match='only evaluates.*--mode=eval'):
    loop.train(config, str(tmp_path / 'run'))


# ----------------------------------------------------------------- training


def test_trains_from_features(data, tmp_path):
  config = small(
    'hap_vr_vcdb.py:backbone=cache',
    **{
      'input.data.window': 8,
      'model.groups': 2,
      # Where nothing but the features counts, nothing is to be compiled.
      'model.features_only': True,
    },
  )
  written(config, data)
  feature_files.write(tmp_path / config.input.data.features, dim=DIM)
  watched = cl.track(config)
  results = loop.train(watched, str(tmp_path / 'run'))
  assert watched.unread() == []
  assert {f'fivr5k/{key}' for key in FIVR} <= set(results)
  assert all(np.isfinite(v) for v in results.values())
  told = (tmp_path / 'run' / 'metrics.jsonl').read_text()
  assert all(f'"train/{k}"' in told for k in ('frame', 'video', 'nce', 'reg'))


@pytest.mark.parametrize(
  'spec', ['hap_vr_vcdb.py', 'hap_vr_vcdb.py:loss=s2vs,negatives=global']
)
def test_frames_fit_the_model(spec, data):
  """Shapes of a whole update, of real frames; nothing is compiled."""
  frames = data / 'VCDB' / 'frames'
  frame_folders.write(frames, {'a': 9, 'b': 3, 'c': 1, 'd': 5})
  config = small(
    spec,
    **{
      'input.data.window': 4,
      'input.data.size': 32,
      'input.data.resize': 36,
      'model.backbone': BACKBONE,
      'model.labeller': None if 's2vs' in spec else LABELLER,
    },
  )
  run = run_lib.Run(config)
  batch = run.source.gather(np.arange(4), np.arange(4))
  assert batch['_mask'].all()
  model, params = run.model, run.variables['params']
  grad, parts = jax.eval_shape(
    jax.grad(
      lambda p, b: model.apply(
        {'params': p}, b, step=0, train=True, method='loss'
      ),
      has_aux=True,
    ),
    params,
    batch,
  )
  assert jax.tree.map(np.shape, grad) == jax.tree.map(np.shape, params)
  assert ('frame' in parts) == ('s2vs' not in spec)
