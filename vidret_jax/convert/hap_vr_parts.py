# SPDX-License-Identifier: Apache-2.0
"""Frozen networks of HAP-VR: ResNet, its PCA, and DINO; from files and back.

Each has a file of its own, that others publish, and a place in the model.
"""

from collections.abc import Mapping
import dataclasses
import math
import os

import jax
import numpy as np

from vidret_jax.convert import (
  hap_vr_files,
  hap_vr_pca,
  hap_vr_rules,
  resample,
  torch_write,
)
from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.rules import CheckpointMismatch, Report, Rule
from vidret_jax.models import dino
from vidret_jax.models.hap_vr_model import HapVr

# Name -> where it is in the variables.
PARTS = dict(
  resnet='params/backbone/resnet',
  pca='params/backbone/pca',
  labeller='params/labeller',
)
_BACKBONE, _LABELLER = 'params/backbone', 'params/labeller'
# Torchvision's classifier and counters; the head of DINO's training.
_NO_RESNET = (r'fc\.', r'.*\.num_batches_tracked$')
_NO_VIT = (r'head\.',)
_PREFIXES = ('module.', 'backbone.')


def shapes(model: HapVr) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and types of the frozen networks of a model, by path."""
  out = {}
  for network, leaf in (
    (model.backbone, _BACKBONE),
    (model.labeller, _LABELLER),
  ):
    if network is None:
      continue
    side = 224
    if isinstance(network, dino.Dino):
      side = network.image_size
    else:
      # The least that fits the windows, since shapes do not depend on it.
      side = max(k << (i + 2) for i, k in enumerate(network.kernels))
    frames = jax.ShapeDtypeStruct((1, side, side, 3), np.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    tree = jax.eval_shape(network.clone(parent=None).init, key, frames)
    flat = rules_lib.flatten(tree['params'])
    out.update({f'{leaf}/{name}': x for name, x in flat.items()})
  return out


# ------------------------------------------------------------------- reading


def load(
  name: str, path: str | os.PathLike, model: HapVr
) -> tuple[dict, Report]:
  """Reads the file of one frozen network into variables of `model`.

  Args:
    name: one of `PARTS`.
    path: resnet: a ResNet of torchvision; pca: see `hap_vr_pca`; labeller: a
      Vision Transformer of DINO, as published or as its training saves it.
    model: it is for.

  Returns:
    The variables that the file has, and a report.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: it does not fit the model, or the model has no such
      part.
  """
  _check(name, model)
  expected = {
    k: v for k, v in shapes(model).items() if k.startswith(f'{PARTS[name]}/')
  }
  read = dict(resnet=_resnet, pca=_pca, labeller=_vit)[name]
  variables, report = read(path, model, rules_lib.unflatten(expected))
  # None of them is trained.
  return variables, dataclasses.replace(report, parameters=0)


def _check(name, model):
  if name not in PARTS:
    raise CheckpointMismatch(
      f'init.parts.{name}: no such part; there are {", ".join(PARTS)}.'
    )
  owner = 'labeller' if name == 'labeller' else 'backbone'
  network = getattr(model, owner)
  if network is None:
    raise CheckpointMismatch(
      f'init.parts.{name} is given, but model.{owner} is None (or of no use to '
      f'the loss): set model.{owner}, or init.parts.{name}=None.'
    )
  if name == 'pca' and network.dims is None:
    raise CheckpointMismatch(
      'init.parts.pca is given, but model.backbone.dims is None, which means '
      'no whitening: set one of them.'
    )


def _resnet(path, model, expected):
  state = hap_vr_files.read_state(path, 'a ResNet of torchvision')
  return rules_lib.to_flax(
    state,
    hap_vr_rules.resnet(model.backbone, PARTS['resnet']),
    expected,
    ignore=_NO_RESNET,
    source=os.fspath(path),
    advice=_resnet_advice(state),
  )


def _resnet_advice(state):
  stages = []
  for i in range(1, 9):
    blocks = {k.split('.')[1] for k in state if k.startswith(f'layer{i}.')}
    if blocks:
      stages.append(len(blocks))
  if not stages or 'layer1.0.conv3.weight' not in state:
    return (
      'Expected a ResNet with bottleneck blocks, by the names of torchvision.'
    )
  width = state['layer1.0.conv3.weight'].shape[1]
  return f'The file has model.backbone.stages={tuple(stages)}, width={width}.'


def _pca(path, model, expected):
  pca, dims = hap_vr_pca.read(path), model.backbone.dims
  leaf, source = PARTS['pca'], os.fspath(path)
  want = rules_lib.flatten(expected)[f'{leaf}/kernel'].shape[0]
  if len(pca.mean) != want:
    raise CheckpointMismatch(
      f'{source}: a PCA of {len(pca.mean)} dimensions, the vectors of '
      f'model.backbone have {want}; set its stages and width to those of the '
      'network that the PCA was fitted to.'
    )
  try:
    kernel = pca.kernel(dims)
  except ValueError as error:
    raise CheckpointMismatch(f'{source}: {error}') from None
  flat = {f'{leaf}/mean': pca.mean, f'{leaf}/kernel': kernel}
  scaled = f'V / sqrt(d), the {dims} largest'
  rows = (
    ('mean', pca.mean.shape, f'{leaf}/mean', pca.mean.shape, 'same'),
    ('d, V', pca.vectors.shape, f'{leaf}/kernel', kernel.shape, scaled),
  )
  return rules_lib.unflatten(flat), Report(rows, (), (), 0)


def _vit(path, model, expected):
  source, vit = os.fspath(path), model.labeller
  state = hap_vr_files.read_state(
    path, 'a Vision Transformer of DINO', ('teacher', 'state_dict', 'model')
  )
  for prefix in _PREFIXES:
    state = {k.removeprefix(prefix): v for k, v in state.items()}
  state, notes = _positions(state, vit)
  variables, report = rules_lib.to_flax(
    state,
    hap_vr_rules.vit(vit, PARTS['labeller']),
    expected,
    ignore=_NO_VIT,
    source=source,
    advice=_vit_advice(state),
  )
  return variables, dataclasses.replace(report, notes=notes)


def _positions(state, vit):
  """Positions for the model's grid, where the file has another."""
  table, grid = state.get('pos_embed'), vit.image_size // vit.patch
  if table is None or table.ndim != 3 or table.shape[1] == 1 + grid**2:
    return state, ()
  try:
    places = resample.positions(table[0], grid)
  except ValueError:
    return state, ()  # The table of shapes says what is wrong.
  side = math.isqrt(table.shape[1] - 1)
  note = (
    f'pos_embed was resampled (bicubic) from {side}x{side} to {grid}x{grid} '
    'patches'
  )
  return {**state, 'pos_embed': places[None]}, (note,)


def _vit_advice(state):
  blocks = {k.split('.')[1] for k in state if k.startswith('blocks.')}
  patch = state.get('patch_embed.proj.weight')
  if not blocks or patch is None or patch.ndim != 4:
    return 'Expected a Vision Transformer, by the names of DINO.'
  return (
    f'The file has model.labeller.layers={len(blocks)}, '
    f'width={patch.shape[0]}, patch={patch.shape[-1]}.'
  )


# ------------------------------------------------------------------- writing


def save(
  name: str, path: str | os.PathLike, variables: Mapping, model: HapVr
) -> Report:
  """Writes one frozen network as the file that `load` and upstream read.

  Args:
    name: one of `PARTS`.
    path: the file.
    variables: `params`; the rest is not looked at.
    model: their model.

  Returns:
    A report.
  """
  _check(name, model)
  leaf = PARTS[name]
  flat = {
    k: v
    for k, v in rules_lib.flatten(variables).items()
    if k.startswith(f'{leaf}/')
  }
  if name == 'pca':
    mean, kernel = (np.asarray(flat[f'{leaf}/{k}']) for k in ('mean', 'kernel'))
    hap_vr_pca.write(path, hap_vr_pca.of_kernel(mean, kernel))
    rows = (
      ('mean', mean.shape, f'{leaf}/mean', mean.shape, 'same'),
      (
        'd, V',
        kernel.shape,
        f'{leaf}/kernel',
        kernel.shape,
        'length, direction',
      ),
    )
    return Report(rows, (), (), 0)
  table: tuple[Rule, ...]
  if name == 'resnet':
    table = hap_vr_rules.resnet(model.backbone, leaf)
  else:
    table = hap_vr_rules.vit(model.labeller, leaf)
  state = rules_lib.to_torch(rules_lib.unflatten(flat), table)
  content = state
  if name == 'labeller':
    content = {'teacher': {f'module.backbone.{k}': v for k, v in state.items()}}
  torch_write.write(path, content)
  return dataclasses.replace(rules_lib.report(table, state, flat), parameters=0)
