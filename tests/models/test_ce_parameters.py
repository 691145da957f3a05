# SPDX-License-Identifier: Apache-2.0
"""Parameter counts of the published networks, and their initialisation.

The counts are upstream's own, printed in its tables; nothing is allocated.
"""

import math

import jax
import numpy as np
import pytest

from vidret_jax.convert import ce as convert
from vidret_jax.models import ce

FIXED = {
  'face': 512,
  'i3d.i3d.0': 1024,
  'imagenet.resnext101_32x48d.0': 2048,
  'imagenet.senet154.0': 2048,
  'r2p1d.r2p1d-ig65m.0': 512,
  'scene.densenet161.0': 2208,
}
VARIABLE = {'audio': 128, 'ocr': 300, 'speech': 300}


def experts(face=512, names=None, **clusters):
  """The nine experts; `clusters` for the variable ones."""
  fixed = {**FIXED, 'face': face}
  out = [(n, dict(dim=d)) for n, d in fixed.items()]
  out += [
    (n, dict(dim=d, max_tokens=3, clusters=clusters[n]))
    for n, d in VARIABLE.items()
    if n in clusters
  ]
  return [e for e in out if names is None or e[0] in names]


def text(clusters, ghosts=1, dim=768):
  return dict(dim=dim, max_tokens=3, clusters=clusters, ghosts=ghosts)


MSRVTT = dict(experts=experts(audio=8, ocr=43, speech=19), text=text(28))

COUNTS = {
  'MSR-VTT CE': (183_448_607, MSRVTT),
  'MSR-VTT CE-CG': (181_070_111, dict(MSRVTT, gating='mimic')),
  'MSR-VTT MoEE minus mixture weights': (
    246_219_775,
    dict(MSRVTT, gating='none', mixture='uniform'),
  ),
  'MSR-VTT CE, 384': (88_618_655, dict(MSRVTT, dim=384)),
  'MSR-VTT CE, 512': (119_507_743, dict(MSRVTT, dim=512)),
  'MSR-VTT CE, 640': (151_117_727, dict(MSRVTT, dim=640)),
  'MSR-VTT CE, 1024': (250_273_055, dict(MSRVTT, dim=1024)),
}


@pytest.mark.parametrize('row', COUNTS)
def test_published_counts(row):
  want, options = COUNTS[row]
  shapes = convert.variable_shapes(ce.make(**options))
  assert (
    sum(math.prod(x.shape) for x in jax.tree.leaves(shapes['params'])) == want
  )


def test_initialisation():
  model = ce.make(
    (
      ('audio', dict(dim=50, max_tokens=3, clusters=20)),
      ('rgb', dict(dim=200)),
    ),
    text(10, dim=60),
    dim=64,
  )
  batch = dict(
    text=np.zeros((2, 3, 60), 'f'),
    experts=dict(audio=np.zeros((2, 3, 50), 'f'), rgb=np.zeros((2, 200), 'f')),
    available=np.ones((2, 2), bool),
  )
  variables = jax.jit(
    lambda key: model.init(key, batch, step=0, train=False, method='loss')
  )(jax.random.key(0))
  flat = jax.tree_util.tree_leaves_with_path(variables['params'])
  for path, x in flat:
    *_, module, name = (p.key for p in path)
    where = jax.tree_util.keystr(path)
    if name in ('clusters', 'centres'):
      np.testing.assert_allclose(
        x.std(), x.shape[0] ** -0.5, rtol=0.1, err_msg=where
      )
    elif name == 'scale':
      assert (x == 1).all(), where
    elif name == 'kernel':
      assert abs(x).max() <= x.shape[0] ** -0.5, where
      np.testing.assert_allclose(
        x.std(), (3 * x.shape[0]) ** -0.5, rtol=0.15, err_msg=where
      )
    elif 'norm' in module:
      assert (x == 0).all(), where
    else:
      assert name == 'bias' and x.any(), where
