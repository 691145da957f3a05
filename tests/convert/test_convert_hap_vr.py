# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/hap_vr*.py: layouts, options, frozen networks, refusals."""

import argparse
import pickle
import re

import jax
import numpy as np
import pytest

from tests.models.test_dino import TINY as VIT
from tests.models.test_regions import TINY as RESNET
from vidret_jax.convert import hap_vr as convert
from vidret_jax.convert import hap_vr_files as files
from vidret_jax.convert import (
  hap_vr_parts,
  hap_vr_pca,
  rules,
  torch_file,
  torch_optimizer,
  torch_write,
)
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models import hap_vr

RNG = np.random.default_rng(0)
DIM = RESNET['dims']


def make(**options):
  return hap_vr.make(**dict(dict(dim=DIM), **options))


@pytest.fixture(scope='module')
def plain():
  """A model without frozen networks."""
  return make()


@pytest.fixture(scope='module')
def whole():
  """A model with all frozen networks, and drawn variables of all."""
  model = make(backbone=RESNET, labeller=VIT)
  shapes = {
    **rules.flatten(convert.variable_shapes(model)),
    **hap_vr_parts.shapes(model),
  }
  flat = filled(shapes)
  kernel = flat[f'{convert.PARTS["pca"]}/kernel']
  # The order of a whitening: directions of the largest variance first.
  kernel[:] = kernel[:, np.argsort(np.linalg.norm(kernel, axis=0))]
  return model, rules.unflatten(flat)


def filled(shapes):
  return {
    k: RNG.uniform(0.5, 1, x.shape).astype('f') for k, x in shapes.items()
  }


def variables_of(model):
  flat = rules.flatten(convert.variable_shapes(model))
  return rules.unflatten(filled(flat))


def state_of(model, prefix=''):
  state = convert.to_torch(variables_of(model), model)
  return {prefix + k: v for k, v in state.items()}


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


# ------------------------------------------------------- the trained network


def test_the_published_size():
  shapes = convert.variable_shapes(hap_vr.make())
  assert sum(x.size for x in jax.tree.leaves(shapes)) == 355_969


@pytest.mark.parametrize(
  'options', [{}, dict(attention=False), dict(attention=False, bits=5)]
)
def test_there_and_back(options, tmp_path):
  model = make(frame_pool='chamfer', video_rate=0.2, **options)
  variables = variables_of(model)
  convert.save(tmp_path / 'm.pth', variables, model, step=7)
  got, report = convert.load(tmp_path / 'm.pth', model)
  equal(got, variables)
  assert not report.notes and not report.drawn
  path, told = convert.describe(tmp_path / 'm.pth')
  assert path == str(tmp_path / 'm.pth')
  again = hap_vr.make(**told['model'])
  # The rate of a pooling without one is not told.
  assert again.clone(pooling=model.pooling) == model
  assert again.pooling.video_rate == 0.2 and again.pooling.frame == 'chamfer'
  assert files.read(path).step == 7


def test_checkpoints_of_s2vs_and_dns(plain, tmp_path):
  """Another prefix, wrapped or bare, under DataParallel or not: Chamfer."""
  state = state_of(plain)
  renamed = {
    k.replace('comparator_module', 'visil_head'): v for k, v in state.items()
  }
  moved = {f'module.{k}': v for k, v in renamed.items()}
  variables, _ = convert.to_flax(state, plain)
  for content in (dict(model=renamed), moved, dict(state_dict=renamed)):
    torch_write.write(tmp_path / 's2vs.pth', content)
    got, report = convert.load(tmp_path / 's2vs.pth', plain)
    equal(got, variables)
    told = convert.describe(tmp_path / 's2vs.pth')[1]['model']
    assert told == dict(
      dim=DIM,
      attention=True,
      bits=None,
      frame_pool='chamfer',
      video_pool='chamfer',
    )
    assert len(report.notes) == 3
    assert "set model.frame_pool='chamfer'" in report.notes[0]
    assert 's / 2 + 0.5' in report.notes[2]


def test_codes_and_attention_are_codes_in_dns(tmp_path):
  """Its first version asks for attention unless told not to."""
  model = make(attention=False, bits=5)
  state = {
    k.replace('comparator_module', 'visil_head'): v
    for k, v in state_of(model).items()
  }
  args = dict(dims=DIM, attention=True, binarization=True, binary_bits=5)
  content = dict(args=torch_file.Namespace(args), model=state)
  torch_write.write(tmp_path / 'm.pth', content)
  told = convert.describe(tmp_path / 'm.pth')[1]['model']
  assert (told['attention'], told['bits']) == (False, 5)


def test_args_that_say_nothing_of_poolings(plain, tmp_path):
  """Upstream's defaults; of the older family, Chamfer."""
  args = torch_file.Namespace(dims=DIM, attention=True)
  torch_write.write(tmp_path / 'm.pth', dict(args=args, model=state_of(plain)))
  told = convert.describe(tmp_path / 'm.pth')[1]['model']
  assert (told['frame_pool'], told['frame_rate']) == ('topk', 0.1)
  assert (told['video_pool'], told['video_rate']) == ('topk', 0.1)


def test_losses_without_frame_labels():
  args = dict(loss_selected='QuadLinearAP,InfoNCE,SSHN', inner_parameter=6.0)
  told = convert.model_options(files.Checkpoint({}, args))
  assert told['loss'] == dict(frame=0.0)


@pytest.mark.parametrize(
  'args, told',
  [
    (dict(dims=DIM + 1), f'dim: {DIM} and {DIM + 1}'),
    (dict(attention=False), 'attention: True and False'),
    (dict(f2f_sim_module='Softmax'), 'f2f_sim_module'),
    (dict(f_topk_rate='high'), 'f_topk_rate'),
    (dict(dims=True), 'dims'),
    (dict(similarity_network='DnS'), 'another network'),
  ],
)
def test_args_that_contradict(plain, tmp_path, args, told):
  content = dict(args=torch_file.Namespace(args), model=state_of(plain))
  torch_write.write(tmp_path / 'm.pth', content)
  with pytest.raises(CheckpointMismatch, match='m.pth') as error:
    convert.describe(tmp_path / 'm.pth')
  assert told in str(error.value)
  # The weights are of use all the same.
  _, report = convert.load(tmp_path / 'm.pth', plain)
  assert 'were not compared' in report.notes[0]


@pytest.mark.parametrize(
  'options, told',
  [
    (dict(dim=9), f'model.dim: file {DIM}, model 9'),
    (dict(attention=False), 'model.attention: file True, model False'),
    (dict(attention=False, bits=3), 'model.bits: file None, model 3'),
  ],
)
def test_another_model(plain, tmp_path, options, told):
  torch_write.write(tmp_path / 'm.pth', dict(model=state_of(plain)))
  with pytest.raises(CheckpointMismatch, match='m.pth') as error:
    convert.load(tmp_path / 'm.pth', make(**options))
  assert told in str(error.value)


def test_variables_of_another_model_are_not_written(plain, tmp_path):
  variables = variables_of(make(dim=DIM + 1))
  with pytest.raises(CheckpointMismatch, match='attention/transform/kernel'):
    convert.save(tmp_path / 'm.pth', variables, plain)
  assert not list(tmp_path.iterdir())


def test_an_array_is_missing(plain):
  state = state_of(plain)
  del state['comparator_module.fconv.bias']
  with pytest.raises(CheckpointMismatch, match='fconv.bias'):
    convert.to_flax(state, plain)


@pytest.mark.parametrize(
  'content, told',
  [
    (dict(model={'fc.weight': np.ones(2, 'f')}), 'init.parts'),
    (dict(model={'a': 'text'}), 'state dict'),
    (dict(model={}), 'state dict'),
    ([1, 2], 'list'),
    ({'visil_head.conv1.bias': np.ones(3, 'i8')}, 'floating-point'),
  ],
)
def test_other_files(plain, tmp_path, content, told):
  torch_write.write(tmp_path / 'm.pth', content)
  with pytest.raises(CheckpointMismatch, match='m.pth') as error:
    convert.load(tmp_path / 'm.pth', plain)
  assert told in str(error.value)


def test_no_file(plain, tmp_path):
  with pytest.raises(FileNotFoundError, match='converting.md'):
    convert.load(tmp_path / 'm.pth', plain)


# -------------------------------------------------------------- its options


def test_namespaces_are_plain_values(plain, tmp_path):
  """As argparse pickles them; what is no plain value is left out."""
  torch = pytest.importorskip('torch')
  args = argparse.Namespace(
    dims=DIM, rate=0.5, name='x', none=None, losses=['a', 'b'], device=object()
  )
  state = {k: torch.tensor(v) for k, v in state_of(plain).items()}
  for new in (True, False):
    torch.save(
      dict(args=args, model=state),
      tmp_path / 'm.pth',
      _use_new_zipfile_serialization=new,
    )
    read = files.read(tmp_path / 'm.pth')
    assert read.args == dict(
      dims=DIM, rate=0.5, name='x', none=None, losses=['a', 'b']
    )
  # And as we write them.
  torch_write.write(tmp_path / 'n.pth', torch_file.Namespace(dims=3, none=None))
  found = torch.load(tmp_path / 'n.pth', weights_only=False)
  assert found == argparse.Namespace(dims=3, none=None)


def test_hostile_namespaces(tmp_path):
  """State that is no dict, and names of functions, run nothing."""
  for state in (b'K\x05', b'(K\x05K\x06t', b']'):
    body = b'\x80\x02cargparse\nNamespace\n)\x81' + state + b'b.'
    with pytest.raises(torch_file.TorchFileError):
      write_pickle(tmp_path / 'm.pth', body)
      torch_file.read(tmp_path / 'm.pth')
  marker = tmp_path / 'ran'
  body = (
    b'\x80\x02cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00acos\nsystem\nX'
    + len(f'touch {marker}').to_bytes(4, 'little')
    + f'touch {marker}'.encode()
    + b'\x85Rsb.'
  )
  write_pickle(tmp_path / 'm.pth', body)
  read = torch_file.read(tmp_path / 'm.pth')
  assert isinstance(read['a'], torch_file.Bag) and not marker.exists()


def write_pickle(path, body):
  """A file of the older serialisation around a given pickle."""
  with open(path, 'wb') as file:
    for part in (0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True)):
      pickle.dump(part, file, protocol=2)
    file.write(body)
    pickle.dump([], file, protocol=2)


# ------------------------------------------------------------- the optimiser


def test_optimizer_there_and_back(plain, tmp_path):
  variables = variables_of(plain)
  one = {k: np.float32(3) for k in rules.flatten(variables['params'])}
  slots = dict(
    step=rules.unflatten(one),
    exp_avg=variables['params'],
    exp_avg_sq=variables_of(plain)['params'],
  )
  convert.save(
    tmp_path / 'm.pth', variables, plain, slots=slots, group=dict(lr=0.1)
  )
  stored = files.read(tmp_path / 'm.pth')
  equal(convert.optimizer_slots(stored, plain), slots)
  torch = pytest.importorskip('torch')
  parameters = [
    torch.nn.Parameter(torch.tensor(v)) for v in stored.state.values()
  ]
  optimizer = torch.optim.AdamW(parameters)
  whole = torch.load(tmp_path / 'm.pth', weights_only=False)
  optimizer.load_state_dict(whole['optimizer'])
  assert optimizer.param_groups[0]['lr'] == 0.1
  np.testing.assert_array_equal(
    optimizer.state[parameters[0]]['exp_avg'].numpy(),
    slots['exp_avg']['attention']['transform']['kernel'].T,
  )


@pytest.mark.parametrize(
  'optimizer, told',
  [
    (dict(state={}, param_groups=[dict(params=[0])]), '1 parameters'),
    (dict(state={}), 'param_groups'),
    (dict(state=[], param_groups=[dict(params=[0])]), 'param_groups'),
  ],
)
def test_other_optimizers(plain, optimizer, told):
  checkpoint = files.Checkpoint({}, optimizer=optimizer)
  with pytest.raises(CheckpointMismatch, match=told):
    convert.optimizer_slots(checkpoint, plain)
  assert torch_optimizer.slots({}, ()) == {}


# --------------------------------------------------------- frozen networks


def test_parts_there_and_back(whole, tmp_path):
  model, variables = whole
  flat = rules.flatten(variables)
  for name, place in convert.PARTS.items():
    path = tmp_path / f'{name}.pth'
    convert.save_part(name, path, variables, model)
    got, report = convert.load_part(name, path, model)
    got = rules.flatten(got)
    assert set(got) == {k for k in flat if k.startswith(f'{place}/')}
    assert report.parameters == 0 and report.rows
    for leaf, value in got.items():
      # A whitening is stored as lengths and directions.
      near = 1e-5 if name == 'pca' else 0
      np.testing.assert_allclose(value, flat[leaf], rtol=near)


def test_the_rest_of_a_checkpoint(whole, tmp_path):
  """Checkpoints have no frozen networks: they are neither given nor asked."""
  model, variables = whole
  report = convert.save(tmp_path / 'm.pth', variables, model)
  assert not any('backbone' in row[2] for row in report.rows)
  got, report = convert.load(tmp_path / 'm.pth', model)
  equal(
    got,
    {
      'params': {k: variables['params'][k] for k in ('attention', 'comparator')}
    },
  )
  assert set(report.drawn) == set(hap_vr_parts.shapes(model))
  with pytest.raises(CheckpointMismatch, match='leaves that the file lacks'):
    report.check_whole('m.pth')


def test_files_of_torchvision(whole, tmp_path):
  """With a classifier and counters of batches, which are left out."""
  model, variables = whole
  convert.save_part('resnet', tmp_path / 'r.pth', variables, model)
  state = torch_file.read(tmp_path / 'r.pth')
  more = {
    'fc.weight': np.ones((3, 2), 'f'),
    'fc.bias': np.ones(3, 'f'),
    'bn1.num_batches_tracked': np.full((), 4, 'i8'),
    'layer1.0.downsample.1.num_batches_tracked': np.ones((), 'i8'),
  }
  torch_write.write(tmp_path / 'r.pth', {**state, **more})
  got, report = convert.load_part('resnet', tmp_path / 'r.pth', model)
  equal(
    got['params']['backbone']['resnet'],
    variables['params']['backbone']['resnet'],
  )
  assert set(report.ignored) == set(more)
  other = make(backbone=dict(RESNET, stages=(1, 1, 2)), loss=dict(frame=0.0))
  with pytest.raises(CheckpointMismatch) as error:
    convert.load_part('resnet', tmp_path / 'r.pth', other)
  assert 'model.backbone.stages=(1, 1, 1), width=2' in str(error.value)


@pytest.mark.parametrize('form', ['teacher', 'plain', 'whole', 'half'])
def test_files_of_dino(whole, tmp_path, form):
  """Of its training, with a head and a student; and as published."""
  model, variables = whole
  convert.save_part('labeller', tmp_path / 'd.pth', variables, model)
  state = torch_file.read(tmp_path / 'd.pth')['teacher']
  bare = {k.removeprefix('module.backbone.'): v for k, v in state.items()}
  head = {'module.head.mlp.0.weight': np.ones(2, 'f')}
  content = dict(
    teacher=dict(teacher=state),
    plain=bare,
    half={k: v.astype('f2') for k, v in bare.items()},
    whole=dict(
      student={'x': np.ones(1, 'f')},
      teacher={**state, **head},
      epoch=3,
      args=torch_file.Namespace(arch='vit_small'),
    ),
  )[form]
  torch_write.write(tmp_path / 'd.pth', content)
  got, report = convert.load_part('labeller', tmp_path / 'd.pth', model)
  want = variables['params']['labeller']
  if form == 'half':
    want = jax.tree.map(lambda x: x.astype('f2').astype('f'), want)
  equal(got['params']['labeller'], want)
  assert len(report.ignored) == (form == 'whole')


def test_another_size_of_frames(whole, tmp_path):
  """The table of places is resampled, with a note."""
  model, variables = whole
  convert.save_part('labeller', tmp_path / 'd.pth', variables, model)
  larger = make(backbone=RESNET, labeller=dict(VIT, image_size=12))
  got, report = convert.load_part('labeller', tmp_path / 'd.pth', larger)
  places = got['params']['labeller']['positional_embedding']
  assert places.shape == (10, 6) and 'from 2x2 to 3x3' in report.notes[0]
  deeper = make(backbone=RESNET, labeller=dict(VIT, layers=3))
  with pytest.raises(CheckpointMismatch, match='labeller.layers=2, width=6'):
    convert.load_part('labeller', tmp_path / 'd.pth', deeper)


def test_parts_that_a_model_lacks(whole, plain, tmp_path):
  model, _ = whole
  for name, told in (
    ('resnet', 'model.backbone is None'),
    ('labeller', 'model.labeller is None'),
    ('tokenizer', 'resnet, pca, labeller'),
  ):
    with pytest.raises(CheckpointMismatch, match=told):
      convert.load_part(name, tmp_path / 'x.pth', plain)
  raw = make(backbone=dict(RESNET, dims=None), loss=dict(frame=0.0))
  with pytest.raises(CheckpointMismatch, match='dims is None'):
    convert.load_part('pca', tmp_path / 'x.pth', raw)
  with pytest.raises(FileNotFoundError, match='torchvision'):
    convert.load_part('resnet', tmp_path / 'x.pth', model)


# ---------------------------------------------------------------- whitening


def test_a_fitted_pca_whitens(tmp_path):
  mix = RNG.normal(size=(5, 5))
  blocks = [RNG.normal(size=(n, 2, 5)) @ mix + 100 for n in (300, 1, 400)]
  pca = hap_vr_pca.fit(blocks)
  x = np.concatenate(blocks).reshape(-1, 5)
  np.testing.assert_allclose(pca.mean, x.mean(0), rtol=1e-6)
  y = (x - pca.mean) @ pca.kernel(3)
  np.testing.assert_allclose(np.cov(y.T), np.eye(3), atol=1e-3)
  want = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
  np.testing.assert_allclose(pca.values, want, rtol=1e-4)
  hap_vr_pca.write(tmp_path / 'p.pth', pca)
  again = hap_vr_pca.read(tmp_path / 'p.pth')
  for name in ('mean', 'values', 'vectors'):
    np.testing.assert_array_equal(getattr(again, name), getattr(pca, name))
  # As DnS has it.
  np.savez(tmp_path / 'p.npz', mean=pca.mean, d=pca.values, V=pca.vectors)
  again = hap_vr_pca.read(tmp_path / 'p.npz')
  np.testing.assert_array_equal(again.kernel(3), pca.kernel(3))
  whole = (tmp_path / 'p.npz').read_bytes()
  (tmp_path / 'p.npz').write_bytes(whole[: len(whole) // 2])
  with pytest.raises(CheckpointMismatch, match='p.npz'):
    hap_vr_pca.read(tmp_path / 'p.npz')


def test_the_order_of_a_whitening_is_kept():
  """Also of directions whose variances are equal but for rounding."""
  kernel = np.linalg.qr(RNG.normal(size=(9, 6)))[0].astype('f')
  again = hap_vr_pca.of_kernel(np.zeros(9), kernel).kernel(6)
  np.testing.assert_allclose(again, kernel, atol=1e-5)
  with pytest.raises(ValueError, match='largest variance first'):
    hap_vr_pca.of_kernel(np.zeros(9), kernel * np.linspace(2, 1, 6))


@pytest.mark.parametrize(
  'blocks, told',
  [
    ([], '0 vectors'),
    ([np.ones((1, 3))], '1 vectors'),
    ([np.ones((2, 3)), np.ones((2, 4))], '3 and of 4'),
    ([np.array([[1.0, np.nan], [1, 1]])], 'not finite'),
  ],
)
def test_what_a_pca_cannot_be_fitted_to(blocks, told):
  with pytest.raises(ValueError, match=told):
    hap_vr_pca.fit(blocks)


@pytest.mark.parametrize(
  'change, told',
  [
    (dict(d=np.ones(2, 'f')), 'V .c, e.'),
    (dict(mean=np.ones(7, 'f'), V=np.ones((7, 9), 'f')), '7 dimensions'),
    (dict(V=np.ones((56, 3), 'f'), d=np.ones(3, 'f')), '6 dimensions are'),
    (dict(d=-np.ones(9, 'f')), 'eigenvalue -1.0'),
    (dict(mean=np.ones((2, 2), 'f')), 'found'),
  ],
)
def test_other_pca_files(whole, tmp_path, change, told):
  content = dict(
    mean=np.ones(56, 'f'), d=np.ones(9, 'f'), V=np.ones((56, 9), 'f')
  )
  torch_write.write(tmp_path / 'p.pth', {**content, **change})
  with pytest.raises(CheckpointMismatch, match='p.pth') as error:
    convert.load_part('pca', tmp_path / 'p.pth', whole[0])
  assert re.search(told, str(error.value))
