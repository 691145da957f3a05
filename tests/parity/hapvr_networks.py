# SPDX-License-Identifier: Apache-2.0
"""Frozen networks of HAP-VR with weights that a recipe makes.

The golden README: every array is drawn by a generator that its name seeds, so
that files of a hundred megabytes need not be stored.
"""

import re
import zlib

import numpy as np

from vidret_jax.convert import hap_vr_parts as parts
from vidret_jax.convert import hap_vr_pca as pca_lib
from vidret_jax.convert import hap_vr_rules as tables
from vidret_jax.convert import rules
from vidret_jax.models import hap_vr

BACKBONE, LABELLER = 'params/backbone', 'params/labeller'


def drawn(key, shape, scale=1.0, shift=0.0):
  """float32 array of a key."""
  seed = (zlib.crc32(key.encode()) + 1000) % 2**32
  values = np.random.RandomState(seed).standard_normal(int(np.prod(shape)))
  return (values.reshape(shape) * scale + shift).astype(np.float32)


def resnet_array(key, shape):
  """An array of a ResNet in torchvision's layout."""
  if len(shape) == 4:
    return drawn(key, shape, (2 / np.prod(shape[1:])) ** 0.5)
  if key.endswith('running_var'):
    return (1 + 0.1 * np.abs(drawn(key, shape))).astype(np.float32)
  if re.search(r'(bn\d|downsample\.1)\.weight$', key):
    scale, shift = (0.02, 0.2) if '.bn3.' in key else (0.1, 1.0)
    return drawn(key, shape, scale, shift)
  return drawn(key, shape, 0.1)


def vit_array(key, shape):
  """An array of a Vision Transformer in DINO's layout."""
  if 'norm' in key and key.endswith('weight'):
    return drawn(key, shape, 0.1, 1.0)
  small = key in ('cls_token', 'pos_embed')
  return drawn(key, shape, 0.02 if small else 0.05)


def pca(width, count):
  """The whitening of region vectors."""
  values = np.abs(drawn('pca.d', (count,))) * 1e-2 + 1e-5
  return pca_lib.Pca(
    drawn('pca.mean', (width,), 0.01),
    values.astype(np.float32),
    drawn('pca.V', (width, count), width**-0.5),
  )


def model(backbone=None, labeller=None):
  """A small similarity network with frozen networks of given options."""
  weights = None if labeller is not None else dict(frame=0.0)
  return hap_vr.make(dim=4, backbone=backbone, labeller=labeller, loss=weights)


def rebuilt(network, leaf, table, make):
  """Parameters of a frozen network: {'params': ...}, by the recipe."""
  shapes = {
    k: v.shape
    for k, v in parts.shapes(network).items()
    if k.startswith(f'{leaf}/')
  }
  state = {}
  for rule in table:
    shape = rule.form.to_torch(np.broadcast_to(False, shapes[rule.leaf])).shape
    state[rule.key] = make(rule.key, shape)
  return from_state(state, leaf, table)


def from_state(state, leaf, table):
  """The same of arrays by upstream's key."""
  assert set(state) == {r.key for r in table}
  flat = {r.leaf: r.form.to_flax(state[r.key]) for r in table}
  flat = {k.removeprefix(f'{leaf}/'): v for k, v in flat.items()}
  return {'params': rules.unflatten(flat)}


def resnet_table(network):
  return tables.resnet(network.backbone, parts.PARTS['resnet'])


def vit_table(network):
  return tables.vit(network.labeller, parts.PARTS['labeller'])
