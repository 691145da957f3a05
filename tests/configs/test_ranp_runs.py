# SPDX-License-Identifier: Apache-2.0
"""Configs of RANP on files as they are published, made small.

Each is prepared, trains two steps, evaluates, and writes the page.
"""

import jax
from jax.experimental.compilation_cache import compilation_cache
import numpy as np
import pytest

from tests.configs.shipped import load
from tests.data import graph_sets
from tests.evaluators import page_reader
from vidret_jax import config_lib as cl
from vidret_jax.data import shapes
from vidret_jax.tools import prepare as prepare_tool
from vidret_jax.train import defaults, loop

# Every dataset, backbone and loss.
RUNS = (
  'ranp_msrvtt.py:features=resnet152+resnext101',
  'ranp_msvd.py:backbone=eao,loss=nce_ranp',
  'ranp_epic_kitchens.py:backbone=vse,loss=rap',
  'ranp_charades.py:backbone=eao,loss=triplet',
  *(
    pytest.param(spec, marks=pytest.mark.slow)
    for spec in (
      'ranp_epic_kitchens.py:loss=ran',
      'ranp_msrvtt.py:backbone=eao,split=1ka,loss=nce',
    )
  ),
)
SIZES = dict(
  hgr=dict(dim=8, word_dim=6),
  eao=dict(dim=8, word_dim=6, heads=2, projection_dim=8),
  vse=dict(dim=8, word_dim=6),
)


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
  """Folder of compiled programs, in use by the time a run has begun."""
  yield str(tmp_path_factory.mktemp('programs'))
  jax.config.update('jax_compilation_cache_dir', None)
  compilation_cache.reset_cache()


def dataset_of(spec):
  return spec.split('.')[0].removeprefix('ranp_')


def small(spec, **changes):
  """The config with a small network and batches of four."""
  config = load(spec)
  sizes = SIZES[config.model.backbone]
  changes = {f'model.{k}': v for k, v in sizes.items()} | changes
  changes = {'compile_cache': False, **changes}
  return cl.shrink(config, steps=2, batch_size=4, **changes)


def prepare(config):
  args, _ = prepare_tool.parse(['--config', ''])
  prepare_tool.prepare(config, args)


@pytest.mark.filterwarnings('ignore:.*is of the test split')
@pytest.mark.parametrize('spec', RUNS)
@pytest.mark.usefixtures('quick_compiler')
def test_trains_and_evaluates(spec, tmp_path, monkeypatch, programs):
  data = tmp_path / 'data'
  monkeypatch.setenv('VIDRET_DATA_DIR', str(data))
  root = data / 'RANP'
  graph_sets.write_root(dataset_of(spec), root, widths=5, word_dim=6)
  config = small(spec, compile_cache=programs)
  if config.model.backbone == 'hgr':
    config.init.torch = str(root / graph_sets.GLOVE)
  prepare(config)
  watched = cl.track(config)
  defaults.use_compile_cache(watched.compile_cache)
  results = loop.train(watched, str(tmp_path / 'run'))
  assert watched.unread() == []
  assert all(np.isfinite(v) for v in results.values())
  for name in config.evals:
    assert 0 <= results[f'{name}/rsum'] <= 600
    # 1k-A has no relevance; Charades one that does not fit its split val.
    graded = '1ka' not in spec and (name, 'charades' in spec) != ('val', True)
    assert (f'{name}/nDCG_avg' in results) == graded
    if graded:
      assert 0 < results[f'{name}/nDCG_avg'] <= 100
  page = page_reader.read(tmp_path / 'run' / 'report' / 'test' / 'index.html')
  make = cl.find('data', config.input.data.name, 'make')
  data = dict(cl.freeze(config.evals.test.data))
  queries = make(view='queries', **{k: data[k] for k in data if k != 'name'})
  said = set(queries.texts)
  assert page['rows'] and all(row['text'] in said for row in page['rows'])


def test_a_missing_file_is_named_before_anything_is_written(
  tmp_path, monkeypatch
):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  root = tmp_path / 'RANP'
  config = small('ranp_msvd.py:backbone=eao')
  with pytest.raises(FileNotFoundError, match='tools.prepare'):
    loop.train(config, str(tmp_path / 'run'))
  graph_sets.write_root('msvd', root, widths=5, word_dim=6)
  lost = root / 'ordered_feature' / 'MSVD' / 'Swin3D' / 'val_ft.hdf5'
  lost.unlink()
  with pytest.raises(FileNotFoundError, match='Swin3D.*val_ft.hdf5'):
    prepare(config)
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compiler')
def test_semi_plus_starts_from_the_semi_run(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  counts = dict(train=8, val=4, test=4, copies=0)
  shapes.prepare(tmp_path / 'data', counts=counts, progress=False)
  semi, off = str(tmp_path / 'semi'), 'compile_cache=False'
  spec = 'ranp_msvd.py:runlocal,backbone=eao,loss=triplet,mining={}'
  first = loop.train(load(spec.format('semi'), off, 'optim.lr=0.1'), semi)
  changes = (f'init.run={semi}', 'optim.lr=0.0')
  config = load(spec.format('semi_all'), off, *changes)
  assert loop.train(config, str(tmp_path / 'run')) == first
