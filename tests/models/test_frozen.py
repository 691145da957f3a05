# SPDX-License-Identifier: Apache-2.0
"""Tests of models/frozen.py: chunks of frames, options, scales of pixels."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from vidret_jax.models import frozen

pytestmark = pytest.mark.usefixtures('quick_compiler')
RNG = np.random.default_rng(0)


class Shift(nn.Module):
  """Something with a parameter, for every frame on its own."""

  @nn.compact
  def __call__(self, x):
    return x.sum((1, 2)) + self.param('by', nn.initializers.ones, (3,))


class Chunks(nn.Module):
  """It, some frames at a time."""

  chunk: int

  @nn.compact
  def __call__(self, x):
    return frozen.in_chunks(Shift(name='shift'), x, self.chunk)


@pytest.mark.parametrize('count', [1, 6, 7, 12])
@pytest.mark.parametrize('chunk', [1, 4, 20])
def test_chunks_change_nothing(count, chunk):
  """Sizes that divide the number of frames, and sizes that do not."""
  x = RNG.normal(size=(count, 2, 2, 3)).astype('f')
  module = Chunks(chunk)
  variables = module.init(jax.random.key(0), x)
  got = jax.jit(module.apply)(variables, x)
  np.testing.assert_allclose(got, x.sum((1, 2)) + 1, rtol=1e-5, atol=1e-6)
  shapes = {e.shape for e in _inputs_of_loops(module, variables, x)}
  assert all(s[1] <= chunk for s in shapes) and bool(shapes) == (count > chunk)


def _inputs_of_loops(module, variables, x):
  """What loops over chunks go through."""
  jaxpr = jax.make_jaxpr(module.apply)(variables, x)
  return [
    v.aval
    for e in jaxpr.eqns
    if e.primitive.name == 'scan'
    for v in e.invars
    if len(v.aval.shape) == 5
  ]


@pytest.mark.parametrize('chunk', [2, 20])
def test_no_gradient(chunk):
  x = RNG.normal(size=(6, 2, 2, 3)).astype('f')
  module = Chunks(chunk)
  variables = module.init(jax.random.key(0), x)
  loss = jax.grad(lambda v, x: module.apply(v, x).sum(), (0, 1))
  assert not any(np.any(g) for g in jax.tree.leaves(loss(variables, x)))


def test_options():
  assert frozen.wholes('x', [1, 2]) == (1, 2)
  for bad in ('12', (), (1, 0), (1, 2.0), 3, (True,)):
    with pytest.raises(ValueError, match='a.b'):
      frozen.wholes('a.b', bad)


@pytest.mark.parametrize(
  'frames, told',
  [
    (np.zeros((2, 8, 8), 'u1'), 'H, W, 3'),
    (np.zeros((2, 8, 8, 4), 'u1'), 'H, W, 3'),
    (np.zeros((2, 0, 8, 3), 'u1'), 'H, W, 3'),
    (np.zeros((2, 8, 8, 3), 'i4'), 'int32'),
  ],
)
def test_what_is_no_frames(frames, told):
  with pytest.raises(ValueError, match=f'backbone: .*{told}'):
    frozen.check_frames(frames, 'backbone')


def test_imagenet():
  frames = RNG.integers(0, 256, (2, 3, 3, 3), dtype=np.uint8)
  want = (frames / 255 - np.array(frozen.MEAN)) / np.array(frozen.STD)
  np.testing.assert_allclose(frozen.imagenet(frames), want, atol=1e-5)
  unit = (frames / 255).astype('f')
  np.testing.assert_allclose(frozen.imagenet(unit), want, atol=1e-5)
