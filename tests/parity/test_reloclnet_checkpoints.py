# SPDX-License-Identifier: Apache-2.0
"""Every weight file of the ReLoCLNet folder, read and given back."""

import json
import pathlib
import sys
import types

import jax
import numpy as np
import pytest

from tests.parity.conftest import root_of
from vidret_jax.convert import reloclnet as convert
from vidret_jax.convert import (
  reloclnet_config,
  reloclnet_files,
  rules,
  torch_file,
)
from vidret_jax.models import reloclnet

# Names of the published set; whatever else a folder holds is tested as well.
_WEIGHTS = (
  *('model.ckpt', 'model_state.pth', 'model_short_state.pth'),
  *('xml/xml_state.pth', 'xml/xml_single_state.pth'),
  *(
    f'tiny_tvr/results/{name}'
    for name in (
      'init_state.pth',
      'after_epoch0_state.pth',
      'last_state.pth',
      'model.ckpt',
    )
  ),
)
_RUN = 'tiny_tvr/results'


def pytest_generate_tests(metafunc):
  root = root_of(metafunc.config) / 'reloclnet'
  found = {p for end in ('pth', 'ckpt') for p in root.rglob(f'*.{end}')}
  names = {str(p.relative_to(root)) for p in found} | set(_WEIGHTS)
  runs = {str(p.parent.relative_to(root)) for p in root.rglob('opt.json')}
  containers = {n for n in names if n.endswith('.ckpt')}
  divided = {n for n in containers if beside(root / n, '_cfg.json').exists()}
  for fixture, values in (
    ('weights', names),
    ('container', containers),
    ('divided', divided | {'model.ckpt'}),
    ('run', runs | {_RUN}),
  ):
    if fixture in metafunc.fixturenames:
      metafunc.parametrize(fixture, sorted(values))


@pytest.fixture
def root(golden_root):
  return golden_root / 'reloclnet'


def beside(path, ending):
  return path.with_name(path.stem.removesuffix('_state') + ending)


def present(path):
  if not path.exists():
    pytest.skip(f'{path} is absent')
  return path


def options_of(path):
  """Options of the model of a weight file: told by itself or beside it."""
  stored = beside(path, '_cfg.json')
  if path.suffix == '.pth' and stored.exists():
    options = reloclnet_config.model_options(json.loads(stored.read_text()))
  else:
    options = reloclnet_files.describe(path)['model']
  # When parts of the loss begin is told in epochs.
  return dict(options, steps_per_epoch=1)


def same(errors, got, want):
  """Bit-equal arrays of the same types in the same order."""
  assert list(got) == list(want)
  for name, value in want.items():
    assert got[name].dtype == value.dtype, name
    np.testing.assert_array_equal(got[name], value, err_msg=name)
    errors.close(name, got[name], value, 0)


def test_both_ways(weights, root, tmp_path, errors):
  path = present(root / weights)
  model = reloclnet.make(**options_of(path))
  variables, report = convert.load(path, model)
  report.check_whole(str(path))
  assert not report.notes and not report.ignored and not report.filled
  saved = convert.save(tmp_path / 'back.ckpt', variables, model)
  want = reloclnet_files.read(path).state
  assert saved.rows == report.rows and len(saved.rows) == len(want)
  same(errors, reloclnet_files.read(tmp_path / 'back.ckpt').state, want)
  again, _ = convert.load(tmp_path / 'back.ckpt', model)
  jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_the_tree_is_the_models(weights, root):
  """That of training, which starts from such files."""
  path = present(root / weights)
  model = reloclnet.make(**options_of(path))
  variables, _ = convert.load(path, model)
  sizes = reloclnet_files.read(path).sizes
  spec = jax.ShapeDtypeStruct
  batch = dict(
    query=spec((2, model.max_words, sizes['query']), np.float32),
    query_mask=spec((2, model.max_words), np.bool_),
    clip_mask=spec((2, model.max_clips), np.bool_),
    span=spec((2, 2), np.int32),
    **{
      s: spec((2, model.max_clips, sizes[s]), np.float32) for s in model.streams
    },
  )

  def init(key, batch):
    return model.init(key, batch, step=0, train=False, method='loss')

  key = jax.eval_shape(lambda: jax.random.key(0))
  found, want = (
    jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    for tree in (variables, jax.eval_shape(init, key, batch))
  )
  assert found == want


def test_shapes_tell_the_options(weights, root):
  path = present(root / weights)
  options = options_of(path)
  found = reloclnet_files.read(path).options
  assert found == {k: options[k] for k in found}
  assert set(found) == {
    *('variant', 'streams', 'dim', 'max_clips', 'max_words', 'kernel')
  }


def test_pytorch_reads_the_same(weights, root, errors, monkeypatch):
  torch = pytest.importorskip('torch')
  path = present(root / weights)
  # The dict of the package easydict, which need not be here.
  stand_in = type('EasyDict', (dict,), dict(__module__='easydict'))
  module = types.SimpleNamespace(EasyDict=stand_in)
  monkeypatch.setitem(sys.modules, 'easydict', module)
  want = torch.load(path, map_location='cpu', weights_only=False)
  checkpoint = reloclnet_files.read(path)
  if 'model_cfg' in want:
    assert dict(checkpoint.config) == want['model_cfg']
    assert checkpoint.epoch == want['epoch']
    want = want['model']
  want = {k: v.numpy() for k, v in want.items()}
  same(errors, checkpoint.state, want)


def test_a_container_is_given_back(container, root, tmp_path):
  """The stored configuration, too, but for what training sets."""
  path = present(root / container)
  told = reloclnet_files.describe(path)
  model = reloclnet.make(**options_of(path))
  variables, _ = convert.load(path, model)
  checkpoint = reloclnet_files.read(path)
  convert.save(
    tmp_path / 'model.ckpt',
    variables,
    model,
    context=told['data']['context'],
    epoch=checkpoint.epoch,
  )
  back = reloclnet_files.read(tmp_path / 'model.ckpt')
  assert back.epoch == checkpoint.epoch
  training = ('use_hard_negative', 'lw_st_ed')
  wanted = {k: v for k, v in checkpoint.config.items() if k not in training}
  assert {k: back.config[k] for k in wanted} == wanted
  assert set(back.config) == set(checkpoint.config)
  assert type(torch_file.read(path)['model_cfg']).__name__ == 'EasyDict'


def test_a_container_and_its_parts(divided, root, errors):
  path = present(root / divided)
  checkpoint = reloclnet_files.read(path)
  config = present(beside(path, '_cfg.json'))
  assert dict(checkpoint.config) == json.loads(config.read_text())
  state = torch_file.read(present(beside(path, '_state.pth')))
  same(errors, checkpoint.state, state)


def test_a_run_folder(run, root):
  folder = present(root / run)
  path, told = convert.describe(folder)
  assert pathlib.Path(path).parent == folder
  opt = json.loads((folder / 'opt.json').read_text())
  start = [v for k, v in opt.items() if k.startswith('hard_neg')]
  assert [told['model']['hard_start_epoch']] == start
  assert told['data']['context'] == opt['ctx_mode']
  assert told['search']['videos'] == opt['max_vcmr_video']
  sizes = reloclnet_config.feature_sizes(opt)
  assert reloclnet_files.read(path).sizes == sizes
  heads = told['model']['heads']
  model = reloclnet.make(
    **{
      **told['model'],
      'heads': 1 if heads > 1 else told['model']['dim'],
      'steps_per_epoch': 1,
    }
  )
  with pytest.raises(rules.CheckpointMismatch, match=f'model.heads={heads}'):
    convert.load(path, model)
