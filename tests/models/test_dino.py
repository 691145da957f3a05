# SPDX-License-Identifier: Apache-2.0
"""Tests of models/dino.py: sizes, scales of pixels, chunks, options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.models import dino, frozen

pytestmark = pytest.mark.usefixtures('quick_compiler')
RNG = np.random.default_rng(0)
TINY = dict(patch=4, width=6, layers=2, heads=3, image_size=8)
FRAMES = RNG.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def tiny():
  """(network, variables, class tokens)."""
  network = dino.Dino(**TINY)
  variables = jax.tree.map(
    lambda x: (0.2 * RNG.normal(size=x.shape)).astype('f'),
    jax.eval_shape(network.init, jax.random.key(0), FRAMES),
  )
  return network, variables, jax.jit(network.apply)(variables, FRAMES)


def test_vit_s16_has_the_published_size():
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), np.uint8)
  key = jax.eval_shape(lambda: jax.random.key(0))
  token, variables = jax.eval_shape(dino.Dino().init_with_output, key, image)
  assert token.shape == (1, 384)
  assert sum(x.size for x in jax.tree.leaves(variables)) == 21_665_664


def test_chunks_change_nothing(tiny):
  network, variables, want = tiny
  got = jax.jit(network.clone(chunk=3).apply)(variables, FRAMES)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_class_token_is_the_first(tiny):
  network, variables, want = tiny
  tokens = jax.jit(lambda v, x: network.apply(v, x, every=True))
  every = tokens(variables, FRAMES)
  assert every.shape == (5, 5, 6)
  np.testing.assert_allclose(every[:, 0], want, atol=1e-5)


def test_scales_of_pixels(tiny):
  """raw255 takes values as they are; imagenet is raw of normalised ones."""
  network, variables, want = tiny
  raw = jax.jit(network.apply)
  got = raw(variables, FRAMES.astype('f'))
  np.testing.assert_allclose(got, want, atol=1e-5)
  scaled = jax.jit(network.clone(input='imagenet').apply)(variables, FRAMES)
  same = raw(variables, frozen.imagenet(FRAMES))
  np.testing.assert_allclose(scaled, same, atol=1e-5)
  assert np.abs(scaled - want).max() > 1e-3


@pytest.mark.parametrize('dtype', ['float16'])
def test_half_precision(tiny, dtype):
  network, variables, want = tiny
  got = jax.jit(network.clone(dtype=dtype).apply)(variables, FRAMES)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, atol=0.05)


@pytest.mark.parametrize(
  'change, told',
  [
    (dict(heads=4), 'labeller.width=6: expected a multiple of labeller.heads'),
    (dict(image_size=9), 'multiple of labeller.patch=4'),
    (dict(layers=0), 'labeller.layers=0'),
    (dict(chunk='8'), 'labeller.chunk'),
    (dict(input='raw'), 'raw255'),
    (dict(dtype='float8'), 'float8'),
  ],
)
def test_bad_options(change, told):
  with pytest.raises(ValueError, match=told):
    dino.Dino(**{**TINY, **change})


def test_frames_of_another_size(tiny):
  network, variables, _ = tiny
  with pytest.raises(ValueError, match='labeller.image_size'):
    network.apply(variables, np.zeros((1, 12, 12, 3), 'u1'))
