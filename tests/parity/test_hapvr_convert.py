# SPDX-License-Identifier: Apache-2.0
"""Every weight file of the HAP-VR folder, read and given back."""

import jax
import numpy as np
import pytest

from tests.parity import hapvr_networks as networks
from tests.parity.conftest import root_of
from vidret_jax.convert import hap_vr as convert
from vidret_jax.convert import hap_vr_files, torch_file
from vidret_jax.models import hap_vr

# Names of the published set; whatever else a folder holds is tested as well.
_WEIGHTS = ('ckpt_att.pth', 'ckpt_eval.pth', 'ckpt_train.pth')
_LABELLERS = ('dino_tiny.pth',)


def pytest_generate_tests(metafunc):
  root = root_of(metafunc.config) / 'hap_vr'
  for fixture, known, pattern in (
    ('weights', _WEIGHTS, 'ckpt_*.pth'),
    ('labeller', _LABELLERS, 'dino_*.pth'),
    ('plain', ('ckpt_att_params.npz',), 'ckpt_*_params.npz'),
    ('inside', ('forward_bin', 'forward_noatt'), None),
  ):
    if fixture in metafunc.fixturenames:
      found = {p.name for p in root.glob(pattern)} if pattern else set()
      metafunc.parametrize(fixture, sorted(found | set(known)))


@pytest.fixture
def root(golden_root):
  return golden_root / 'hap_vr'


def present(path):
  if not path.exists():
    pytest.skip(f'{path} is absent')
  return path


def same(errors, got, want):
  """Bit-equal arrays of the same types in the same order."""
  assert list(got) == list(want)
  for name, value in want.items():
    assert got[name].dtype == value.dtype, name
    np.testing.assert_array_equal(got[name], value, err_msg=name)
    errors.close(name, got[name], value, 0)


def test_both_ways(weights, root, tmp_path, errors):
  path = present(root / weights)
  stored = hap_vr_files.read(path)
  _, told = convert.describe(path)
  model = hap_vr.make(**told['model'])
  variables, report = convert.load(path, model)
  report.check_whole(str(path))
  assert not report.notes and not report.ignored
  slots = convert.optimizer_slots(stored, model)
  group = stored.optimizer['param_groups'][0] if slots else None
  back = tmp_path / 'back.pth'
  saved = convert.save(
    back, variables, model, step=stored.step, slots=slots, group=group
  )
  assert saved.rows == report.rows
  again = hap_vr_files.read(back)
  assert again.step == stored.step
  same(errors, again.state, stored.state)
  # All that evaluation and the objective read of a command line.
  common = set(stored.args) & set(again.args)
  assert {k: again.args[k] for k in common} == {
    k: stored.args[k] for k in common
  }
  assert convert.describe(back)[1]['model'] == dict(
    told['model'], loss=dict(told['model']['loss'])
  )
  check_optimizer(errors, again.optimizer, stored.optimizer)
  loaded, _ = convert.load(back, model)
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def check_optimizer(errors, got, want):
  if not want:
    assert not got
    return
  assert got['param_groups'] == want['param_groups']
  assert list(got['state']) == list(want['state'])
  for index, slots in want['state'].items():
    same(errors, got['state'][index], slots)


def test_pytorch_reads_the_same(weights, root, tmp_path, errors):
  torch = pytest.importorskip('torch')
  path = present(root / weights)
  model = hap_vr.make(**convert.describe(path)[1]['model'])
  convert.save(
    tmp_path / 'back.pth', convert.load(path, model)[0], model, step=3
  )
  want = torch.load(path, weights_only=False)
  got = torch.load(tmp_path / 'back.pth', weights_only=False)
  same(
    errors,
    {k: v.numpy() for k, v in got['model'].items()},
    {k: v.numpy() for k, v in want['model'].items()},
  )
  assert type(got['args']) is type(want['args']) and got['global_step'] == 3
  stored = hap_vr_files.read(path).args
  assert stored == {k: v for k, v in vars(want['args']).items()}


def test_plain_arrays(plain, root, golden, errors):
  stored = golden(plain).under('')
  path = present(root / plain.replace('_params.npz', '.pth'))
  same(errors, hap_vr_files.read(path).state, stored)
  model = hap_vr.make(**convert.describe(path)[1]['model'])
  variables, _ = convert.to_flax(stored, model)
  same(errors, convert.to_torch(variables, model), stored)


def test_other_forms(inside, root, errors):
  """Weights in files of forward passes: no attention, binary regions."""
  with np.load(present(root / f'{inside}.npz')) as arrays:
    dim = arrays['x'].shape[-1]
    state = {
      k.removeprefix('param/'): arrays[k]
      for k in arrays
      if k.startswith('param/')
    }
  checkpoint = hap_vr_files.Checkpoint(state)
  options = convert.model_options(checkpoint)
  assert bool(options['bits']) == ('binarization.W' in state)
  model = hap_vr.make(**dict(dict(dim=dim), **options))
  variables, _ = convert.to_flax(state, model)
  same(errors, convert.to_torch(variables, model), state)


def test_labellers(labeller, root, tmp_path, errors):
  path = present(root / labeller)
  state = torch_file.read(path)['teacher']
  prefix = 'module.backbone.'
  kernel = state[f'{prefix}patch_embed.proj.weight']
  side = int((state[f'{prefix}pos_embed'].shape[1] - 1) ** 0.5)
  options = dict(
    patch=kernel.shape[-1],
    width=kernel.shape[0],
    layers=len({k.split('.')[3] for k in state if '.blocks.' in k}),
    # Shows in no shape.
    heads=1,
    image_size=side * kernel.shape[-1],
  )
  model = networks.model(backbone={}, labeller=options)
  variables, report = convert.load_part('labeller', path, model)
  assert len(report.rows) == len(state) and not report.notes
  convert.save_part('labeller', tmp_path / 'back.pth', variables, model)
  back = torch_file.read(tmp_path / 'back.pth')['teacher']
  same(errors, back, state)
