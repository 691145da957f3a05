# SPDX-License-Identifier: Apache-2.0
"""Tests of models/regions.py: windows, sizes of frames, chunks, options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.models import regions

pytestmark = pytest.mark.usefixtures('quick_compiler')
RNG = np.random.default_rng(0)
# For frames of 64 pixels: three stages, nine regions.
TINY = dict(stages=(1, 1, 1), width=2, dims=6, kernels=(8, 4, 2))
FRAMES = RNG.integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def tiny():
  """(network, variables, regions of all frames at once)."""
  network = regions.Regions(**TINY)
  variables = jax.tree.map(
    lambda x: RNG.uniform(-0.5, 1, x.shape).astype('f') ** 2,
    jax.eval_shape(network.init, jax.random.key(0), FRAMES),
  )
  return network, variables, jax.jit(network.apply)(variables, FRAMES)


def test_unit_vectors_of_nine_regions(tiny):
  _, variables, got = tiny
  assert got.shape == (7, 9, 6) and got.dtype == jnp.float32
  np.testing.assert_allclose(np.linalg.norm(got, axis=-1), 1, rtol=1e-5)
  assert set(variables['params']) == {'resnet', 'pca'}


def test_chunks_change_nothing(tiny):
  network, variables, want = tiny
  got = jax.jit(network.clone(chunk=3).apply)(variables, FRAMES)
  np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize('dtype', ['bfloat16'])
def test_half_precision(tiny, dtype):
  network, variables, want = tiny
  got = jax.jit(network.clone(dtype=dtype).apply)(variables, FRAMES)
  assert got.dtype == jnp.float32
  cosines = (np.asarray(got) * np.asarray(want)).sum(-1)
  assert cosines.min() > 0.98


def test_without_whitening(tiny):
  network, variables, _ = tiny
  got = jax.eval_shape(
    network.clone(dims=None).apply,
    {'params': {'resnet': variables['params']['resnet']}},
    FRAMES[:1],
  )
  assert got.shape == (1, 9, 8 + 16 + 32)


def test_other_sides():
  """Maps that are no squares: grids of all stages are made that of the last."""
  sides = [(56, 80), (28, 40), (14, 20), (7, 10)]
  maps = [jnp.zeros((1, *s, c)) for c, s in enumerate(sides, 2)]
  got = jax.eval_shape(lambda m: regions.pool(m, regions.KERNELS), maps)
  assert got.shape == (1, 12, 2 + 3 + 4 + 5)


def test_adaptive_maxima_are_those_of_torch():
  torch = pytest.importorskip('torch')
  x = RNG.normal(size=(2, 7, 5, 3)).astype('f')
  for grid in ((3, 4), (9, 5)):
    want = torch.nn.functional.adaptive_max_pool2d(
      torch.tensor(x).permute(0, 3, 1, 2), grid
    )
    got = regions.adaptive_max(jnp.asarray(x), grid)
    np.testing.assert_array_equal(got, want.permute(0, 2, 3, 1).numpy())


def test_frames_too_small_for_the_windows():
  maps = [jnp.zeros((1, s, s, 2)) for s in (16, 8, 4, 2)]
  with pytest.raises(ValueError, match=r'kernels=\(8, 4, 2, 1\)'):
    regions.pool(maps, regions.KERNELS)
  got = jax.eval_shape(lambda m: regions.pool(m, (8, 4, 2, 1)), maps)
  assert got.shape == (1, 4, 8)


@pytest.mark.parametrize(
  'change, told',
  [
    (dict(stages=(1, 1)), 'a window for each of the 2 stages'),
    (dict(stages=[0, 1, 1]), r'backbone.stages\[0\]=0'),
    (dict(kernels='842'), 'backbone.kernels'),
    (dict(width=0), 'backbone.width=0'),
    (dict(dims=57), '56 dimensions'),
    (dict(dims=0), 'backbone.dims=0'),
    (dict(chunk=2.5), 'backbone.chunk=2.5'),
    (dict(dtype='int8'), 'int8'),
  ],
)
def test_bad_options(change, told):
  with pytest.raises(ValueError, match=told):
    regions.Regions(**{**TINY, **change})


def test_plain_lists_are_as_good_as_tuples():
  lists = {k: list(v) if isinstance(v, tuple) else v for k, v in TINY.items()}
  assert regions.Regions(**lists) == regions.Regions(**TINY)
  assert hash(regions.Regions(**lists)) == hash(regions.Regions(**TINY))
