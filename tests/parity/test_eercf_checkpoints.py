# SPDX-License-Identifier: Apache-2.0
"""Every weight file of the EERCF folder: read, converted, converted back."""

import json

import numpy as np
import pytest

from tests.parity import eercf_goldens
from tests.parity.conftest import root_of
from vidret_jax.convert import clip as clip_convert
from vidret_jax.convert import clip_file, clip_sizes, rules, torch_file
from vidret_jax.convert import eercf as convert
from vidret_jax.models import eercf

# Names of the published set; whatever else a folder holds is tested as well.
_WEIGHTS = ('clip_c.pth', 'clip_c_jit.pt', 'eercf_a.pth', 'eercf_b.pth')
_FRESH = ('init_from_clip_c.json',)


def pytest_generate_tests(metafunc):
  root = root_of(metafunc.config) / 'eercf'
  for fixture, known, patterns in (
    ('weights', _WEIGHTS, ('*.pth', '*.pt')),
    ('archive', [w for w in _WEIGHTS if '_jit.' in w], ('*_jit.pt',)),
    ('fresh', _FRESH, ('init_from_*.json',)),
  ):
    if fixture in metafunc.fixturenames:
      found = {p.name for g in patterns for p in root.glob(g)}
      metafunc.parametrize(fixture, sorted(found | set(known)))


@pytest.fixture
def root(golden_root):
  return golden_root / 'eercf'


def model_of(state):
  """The model of a trained state dict, by its shapes alone."""
  towers = {
    k.removeprefix('clip.'): v
    for k, v in state.items()
    if k.startswith('clip.')
  }
  blocks = {
    k.split('.')[2] for k in state if k.startswith(f'{convert.TEMPORAL}.')
  }
  return eercf.make(
    clip=vars(clip_sizes.sizes(towers)),
    max_frames=len(state[convert.FRAME_MAP]),
    temporal_layers=len(blocks),
    linear_patch='3d' if 'visual.conv2.weight' in towers else '2d',
  )


def check_same(errors, got, want):
  """Bit-equal values of the same types, whatever the order."""
  assert sorted(got) == sorted(want)
  for key, value in want.items():
    assert got[key].dtype == value.dtype, key
    np.testing.assert_array_equal(got[key], value, err_msg=key)
    errors.close(key, got[key], value, 0)


def test_both_ways(weights, root, tmp_path, errors):
  path = eercf_goldens.present(root / weights)
  state = clip_file.read(path)
  back = tmp_path / 'back.pth'
  if convert.kind(state) == 'clip':
    sizes = clip_sizes.sizes(state)
    variables, report = clip_convert.load(path, sizes)
    scalars = all(name in state for name in clip_convert.SCALARS)
    clip_convert.save(back, variables, sizes, scalars=scalars, half=True)
  else:
    model = model_of(state)
    variables, report = convert.load(path, model)
    # Stored and never called with linear_patch='3d'; here it is made up.
    for key in report.ignored:
      assert key == 'clip.visual.conv1.weight' and model.linear_patch == '3d'
      state[key] = state['clip.visual.conv2.weight'][:, :, 1]
    assert list(convert.to_torch(variables, model)) == list(state)
    convert.save(back, variables, model, half=True)
  assert not report.notes and not report.filled
  keys = {row[0] for row in report.rows}
  assert keys | set(report.ignored) == set(state)
  check_same(errors, clip_file.read(back), state)


def test_the_config_is_of_the_file(weights, root):
  path = eercf_goldens.present(root / weights)
  state = clip_file.read(path)
  model = eercf_goldens.make(
    eercf_goldens.config(root, path.stem.split('_')[1])
  )
  if convert.kind(state) == 'clip':
    assert clip_sizes.sizes(state) == model.sizes
  else:
    assert model_of(state) == model


def test_pytorch_reads_the_same(weights, root, errors):
  torch = pytest.importorskip('torch')
  path = eercf_goldens.present(root / weights)
  if path.suffix == '.pt':
    want = torch.jit.load(str(path), map_location='cpu').state_dict()
  else:
    want = torch.load(path, map_location='cpu', weights_only=True)
  want = {k: v.numpy() for k, v in want.items()}
  check_same(errors, clip_file.read(path), want)


def test_the_archive_holds_the_state_dict(archive, root, errors):
  path = eercf_goldens.present(root / archive)
  plain = eercf_goldens.present(root / archive.replace('_jit.pt', '.pth'))
  state = clip_file.read(plain)
  check_same(errors, clip_file.read(path), state)
  variables = [
    clip_convert.load(p, clip_sizes.sizes(state))[0] for p in (path, plain)
  ]
  one, two = (
    clip_convert.to_torch(v, clip_sizes.sizes(state)) for v in variables
  )
  check_same(errors, one, two)


def test_a_fresh_model(fresh, root, errors):
  """The initialisation from a plain CLIP, as upstream's constructor."""
  want = json.loads(eercf_goldens.present(root / fresh).read_text())
  name = fresh.removeprefix('init_from_').removesuffix('.json')
  path = eercf_goldens.present(root / f'{name}.pth')
  model = eercf_goldens.make(eercf_goldens.config(root, name.split('_')[1]))
  variables, report = convert.load(path, model)
  assert any('plain CLIP' in note for note in report.notes)
  got = convert.to_torch(variables, model, half=True)
  assert sorted(got) == sorted(want['params'])
  drawn = {r[0] for r in report.rows if r[4].startswith('drawn')}
  assert set(want['random_init']) <= drawn
  for key, entry in want['params'].items():
    value = got[key].astype(np.float64)
    assert list(value.shape) == entry['shape'], key
    assert str(got[key].dtype) == entry['upstream_dtype'], key
    if key in want['identity']:
      np.testing.assert_array_equal(value, np.eye(*value.shape))
    if key not in want['random_init']:
      errors.close(f'{key} mean', value.mean(), entry['mean'], 1e-6, 1e-5)
      norm = np.linalg.norm(value.ravel())
      errors.close(f'{key} norm', norm, entry['l2'], 1e-6, 1e-5)


def test_overlapping_views(root):
  """Tables whose rows share memory: strides count, values are written out."""
  seen = []
  for path in sorted(root.glob('eercf_*.pth')):
    state = torch_file.read(path)
    variables, report = convert.load(path, model_of(state))
    leaves = rules.flatten(variables)
    for key, value in state.items():
      steps = [s // value.itemsize for s in value.strides]
      span = 1 + sum((n - 1) * s for n, s in zip(value.shape, steps))
      if value.size <= span:
        continue
      seen.append(key)
      flat = np.lib.stride_tricks.as_strided(value, (span,), (value.itemsize,))
      leaf = next(r[2] for r in report.rows if r[0] == key)
      for index in np.random.default_rng(0).integers(0, value.shape, (200, 2)):
        assert leaves[leaf][tuple(index)] == flat[(index * steps).sum()]
  if not seen:
    pytest.skip(f'{root}/eercf_*.pth have no overlapping views')
