# SPDX-License-Identifier: Apache-2.0
"""Tests of models/resnet.py; parity has the numbers."""

import jax
import numpy as np
import pytest

from vidret_jax.models import resnet

pytestmark = pytest.mark.usefixtures('quick_compiler')
RNG = np.random.default_rng(0)


def test_resnet_50_has_the_published_size():
  net = resnet.ResNet()
  image = jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  maps, variables = jax.eval_shape(net.init_with_output, key, image)
  assert [x.shape[1:] for x in maps] == [
    (56, 56, 256),
    (28, 28, 512),
    (14, 14, 1024),
    (7, 7, 2048),
  ]
  assert resnet.channels((3, 4, 6, 3), 64) == (256, 512, 1024, 2048)
  # 25,557,032 without the classifier, and means and variances of 26,560
  # channels, which are parameters here.
  assert set(variables) == {'params'}
  leaves = jax.tree.leaves(variables)
  assert sum(x.size for x in leaves) == 25_557_032 - 2_049_000 + 2 * 26_560


def test_norm():
  norm, x = resnet.Norm(), RNG.normal(size=(2, 3, 4)).astype('f')
  params = {
    k: RNG.uniform(0.5, 2, 4).astype('f')
    for k in ('scale', 'bias', 'mean', 'var')
  }
  want = (x - params['mean']) / np.sqrt(params['var'] + 1e-5)
  want = want * params['scale'] + params['bias']
  np.testing.assert_allclose(
    norm.apply({'params': params}, x), want, rtol=1e-5, atol=1e-6
  )


def test_a_block_is_that_of_torch():
  """The stride is that of the 3x3 convolution, on both ways through."""
  torch = pytest.importorskip('torch')
  f = torch.nn.functional
  block = resnet.Bottleneck(3, stride=2)
  x = RNG.normal(size=(2, 9, 7, 5)).astype('f')
  variables = jax.tree.map(
    lambda a: RNG.uniform(0.2, 1, a.shape).astype('f'),
    jax.eval_shape(block.init, jax.random.key(0), x),
  )
  p = jax.tree.map(lambda a: torch.tensor(np.asarray(a)), variables['params'])

  def norm(x, name):
    q = p[name]
    return f.batch_norm(x, q['mean'], q['var'], q['scale'], q['bias'])

  def conv(x, name, **kw):
    return f.conv2d(x, p[name]['kernel'].permute(3, 2, 0, 1), **kw)

  inner = torch.tensor(x).permute(0, 3, 1, 2)
  y = norm(conv(inner, 'conv1'), 'bn1').relu()
  y = norm(conv(y, 'conv2', stride=2, padding=1), 'bn2').relu()
  y = norm(conv(y, 'conv3'), 'bn3')
  z = norm(conv(inner, 'shortcut_conv', stride=2), 'shortcut_bn')
  want = (y + z).relu().permute(0, 2, 3, 1).numpy()
  np.testing.assert_allclose(
    jax.jit(block.apply)(variables, x), want, rtol=1e-4
  )
