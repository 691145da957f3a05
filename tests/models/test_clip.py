# SPDX-License-Identifier: Apache-2.0
"""Tests of models/clip.py: sizes, patches, pooling, half precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.layers.linear import Numerics
from vidret_jax.models import clip

SIZES = clip.Sizes(
  vision_width=64,
  vision_layers=1,
  patch=4,
  image_size=8,
  text_width=64,
  text_layers=2,
  context=9,
  vocab=40,
  dim=64,
)
START, END = SIZES.vocab - 2, SIZES.vocab - 1
RNG = np.random.default_rng(0)
FRAMES = RNG.normal(size=(2, 4, 8, 8, 3)).astype('f')
IDS = np.array(
  [
    [START, 3, 5, 7, END, 0, 0],
    [START, 9, END, 0, 0, 0, 0],
    [START, 1, 2, 3, 4, 5, END],
  ],
  'i4',
)


def both(model, frames, ids):
  return model.encode_image(frames), model.encode_text(ids)


def variables_of(model, seed=0):
  init = jax.jit(lambda key: model.init(key, FRAMES, IDS, method=both))
  leaves, tree = jax.tree.flatten(init(jax.random.key(0)))
  rng = np.random.default_rng(seed)
  return tree.unflatten(
    [jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype) for x in leaves]
  )


@pytest.fixture(scope='module')
def model():
  return clip.Clip(SIZES)


@pytest.fixture(scope='module')
def variables(model):
  return variables_of(model)


def test_parameters(model, variables):
  shapes = {
    '/'.join(k.key for k in path): x.shape
    for path, x in jax.tree_util.tree_leaves_with_path(variables['params'])
  }
  want = {
    'logit_scale': (),
    'text/token_embedding': (40, 64),
    'text/positional_embedding': (9, 64),
    'text/projection': (64, 64),
    'text/ln_final/scale': (64,),
    'text/block_1/attn/in_proj/kernel': (64, 192),
    'visual/class_embedding': (64,),
    'visual/positional_embedding': (5, 64),
    'visual/proj': (64, 64),
    'visual/conv1/kernel': (4, 4, 3, 64),
    'visual/block_0/mlp/c_fc/kernel': (64, 256),
    'visual/block_0/attn/out_proj/bias': (64,),
  }
  assert want.items() <= shapes.items()


@pytest.mark.parametrize(
  'name, parameters',
  [
    ('ViT-B/32', 151_277_313),
    ('ViT-B/16', 149_620_737),
    ('ViT-L/14', 427_616_513),
  ],
)
def test_variants_have_the_published_sizes(name, parameters):
  sizes = clip.sizes(name)
  side = sizes.image_size
  shapes = jax.eval_shape(
    lambda: clip.Clip(sizes).init(
      jax.random.key(0),
      jnp.zeros((1, 1, side, side, 3)),
      jnp.zeros((1, 4), 'int32'),
      method=both,
    )
  )
  assert sum(x.size for x in jax.tree.leaves(shapes)) == parameters
  assert set(clip.VARIANTS) == {'ViT-B/32', 'ViT-B/16', 'ViT-L/14'}


def test_temperature_starts_where_the_original_does(model):
  start = model.init(jax.random.key(0), FRAMES, IDS, method=both)
  scale = model.apply(start, method='scale')
  np.testing.assert_allclose(scale, 1 / 0.07, rtol=1e-6)


def test_sizes_of_every_form():
  assert clip.sizes('ViT-B/16').patches == 196
  assert clip.sizes(SIZES) is SIZES
  assert clip.sizes(dataclasses.asdict(SIZES)) == SIZES
  larger = clip.sizes(dict(name='ViT-B/32', image_size=288))
  assert larger == dataclasses.replace(
    clip.VARIANTS['ViT-B/32'], image_size=288
  )
  assert (larger.grid, larger.patches) == (9, 81)


@pytest.mark.parametrize(
  'given, message',
  [
    ('ViT-B/8', "clip='ViT-B/8': expected one of ViT-B/32, ViT-B/16"),
    (dict(name='RN50'), "clip='RN50'"),
    (dict(name='ViT-B/32', images=3), r"unknown \['images'\]"),
    (dict(dim=512), r"missing \['context', 'image_size'"),
    (dict(name='ViT-B/32', image_size=230), 'image_size=230 is not a multiple'),
    (dict(name='ViT-B/32', text_width=500), 'text_width=500: expected a mult'),
    (dict(name='ViT-B/32', patch=0), 'patch=0: expected a positive integer'),
    (dict(name='ViT-B/32', dim=512.0), 'dim=512.0: expected a positive integ'),
    (dict(name='ViT-B/32', context='77'), "context='77': expected a positive"),
  ],
)
def test_bad_sizes(given, message):
  with pytest.raises(ValueError, match=message):
    clip.sizes(given)


def test_normalisation():
  pixels = RNG.integers(0, 256, (3, 4, 4, 3)).astype('uint8')
  want = (pixels / 255 - np.array(clip.MEAN)) / np.array(clip.STD)
  np.testing.assert_allclose(
    clip.normalize(jnp.asarray(pixels)), want, atol=2e-6
  )
  floats = jnp.asarray(want, 'float32')
  assert clip.normalize(floats) is floats
  with pytest.raises(ValueError, match='frames are int32: expected uint8, or'):
    clip.normalize(jnp.asarray(pixels, 'int32'))


@pytest.mark.parametrize('shape', [(2, 8, 12, 3), (8, 8, 1)])
def test_cut_is_a_convolution(shape):
  images = RNG.normal(size=shape).astype('f')
  kernel = RNG.normal(size=(4, 4, shape[-1], 10)).astype('f')
  lead = images.reshape(-1, *shape[-3:])
  want = jax.lax.conv_general_dilated(
    lead,
    kernel,
    (4, 4),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision='highest',
  )
  got = clip.cut(jnp.asarray(images), 4) @ kernel.reshape(-1, 10)
  want = want.reshape(*shape[:-3], -1, 10)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


def with_kernel(variables, name, kernel):
  visual = {
    k: v
    for k, v in variables['params']['visual'].items()
    if not k.startswith('conv')
  }
  visual[name] = {'kernel': kernel}
  return {'params': {**variables['params'], 'visual': visual}}


def test_only_the_middle_of_a_3d_kernel_is_the_2d_one(model, variables):
  volume = clip.Clip(SIZES, linear_patch='3d')
  kernel = variables['params']['visual']['conv1']['kernel']
  nothing = jnp.zeros_like(kernel)
  inflated = with_kernel(
    variables, 'conv2', jnp.stack([nothing, kernel, nothing])
  )
  shapes = jax.tree.map(jnp.shape, variables_of(volume))
  assert jax.tree.map(jnp.shape, inflated) == shapes
  want = model.apply(variables, FRAMES, method='encode_image')
  got = volume.apply(inflated, FRAMES, method='encode_image')
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('tap, shift', [(0, 1), (2, -1)])
def test_3d_taps_look_before_and_after(model, variables, tap, shift):
  volume = clip.Clip(SIZES, linear_patch='3d')
  kernel = variables['params']['visual']['conv1']['kernel']
  taps = [jnp.zeros_like(kernel)] * 3
  taps[tap] = kernel
  shifted = np.zeros_like(FRAMES)
  if shift > 0:
    shifted[:, 1:] = FRAMES[:, :-1]
  else:
    shifted[:, :-1] = FRAMES[:, 1:]
  want = model.apply(variables, shifted, method='encode_image')
  got = volume.apply(
    with_kernel(variables, 'conv2', jnp.stack(taps)),
    FRAMES,
    method='encode_image',
  )
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_3d_kernel_is_a_convolution_over_time(model, variables):
  kernel = RNG.normal(size=(3, 4, 4, 3, 64)).astype('f')
  volume = clip.Clip(SIZES, linear_patch='3d')
  want = jax.lax.conv_general_dilated(
    FRAMES,
    kernel,
    (1, 4, 4),
    ((1, 1), (0, 0), (0, 0)),
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
    precision='highest',
  )
  _, state = volume.apply(
    with_kernel(variables, 'conv2', kernel),
    FRAMES,
    method='encode_image',
    capture_intermediates=True,
  )
  # What enters ln_pre is not kept: compare what leaves it.
  visual = variables['params']['visual']
  tokens = want.reshape(8, 4, 64) + visual['positional_embedding'][1:]
  tokens = (tokens - tokens.mean(-1, keepdims=True)) / jnp.sqrt(
    tokens.var(-1, keepdims=True) + 1e-5
  )
  tokens = tokens * visual['ln_pre']['scale'] + visual['ln_pre']['bias']
  got = state['intermediates']['visual']['ln_pre']['__call__'][0][:, 1:]
  np.testing.assert_allclose(got, tokens, rtol=1e-4, atol=1e-5)


def test_frames_are_encoded_one_by_one(model, variables):
  together = model.apply(variables, FRAMES, method='encode_image')
  assert together.shape == (2, 4, 5, 64)
  alone = model.apply(variables, FRAMES[1:, 2:3], method='encode_image')
  np.testing.assert_allclose(together[1, 2], alone[0, 0], rtol=1e-4, atol=1e-5)


def test_wrong_image_size(model, variables):
  with pytest.raises(ValueError, match=r'expected \[b, f, 8, 8, 3\]'):
    model.apply(variables, FRAMES[:, :, :4], method='encode_image')


def encode_text(model, variables, ids, **kwargs):
  return np.asarray(model.apply(variables, ids, method='encode_text', **kwargs))


def test_text_is_read_off_at_the_first_maximum(model, variables):
  every = encode_text(model, variables, IDS, every=True)
  assert every.shape == (3, 7, 64)
  got = encode_text(model, variables, IDS)
  for row, place in enumerate((4, 2, 6)):
    np.testing.assert_allclose(got[row], every[row, place], atol=1e-5)


def test_a_literal_end_of_text_ends_the_sentence(model, variables):
  literal = np.array([[START, 3, END, 7, 5, END, 0]], 'i4')
  short = np.array([[START, 3, END, 0, 0, 0, 0]], 'i4')
  np.testing.assert_allclose(
    encode_text(model, variables, literal),
    encode_text(model, variables, short),
    rtol=1e-5,
    atol=1e-5,
  )


def test_later_tokens_and_padding_influence_nothing(model, variables):
  """The mask is causal, so neither a longer row nor other zeros matter."""
  longer = np.pad(IDS, ((0, 0), (0, 2)))
  np.testing.assert_allclose(
    encode_text(model, variables, longer),
    encode_text(model, variables, IDS),
    rtol=1e-5,
    atol=1e-5,
  )


def test_too_many_words(model, variables):
  with pytest.raises(ValueError, match='text has 10 tokens.*knows 9 positions'):
    encode_text(model, variables, np.zeros((1, 10), 'i4'))


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision_is_near(model, variables, dtype):
  half = clip.Clip(SIZES, num=Numerics(dtype))
  want = model.apply(variables, FRAMES, IDS, method=both)
  got = half.apply(variables, FRAMES, IDS, method=both)
  for a, b in zip(got, want):
    assert a.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(np.float32(a), b, atol=0.06 * np.abs(b).max())


def test_recomputing_changes_no_gradient(model, variables):
  def loss(model):
    def value(variables):
      image, text = model.apply(variables, FRAMES, IDS, method=both)
      return jnp.sin(image).sum() + jnp.sin(text).sum()

    return jax.jit(jax.grad(value))(variables)

  want, got = loss(model), loss(clip.Clip(SIZES, remat=True))
  assert jax.tree.structure(want) == jax.tree.structure(got)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
    np.testing.assert_allclose(
      a, b, rtol=1e-3, atol=1e-5 * (1 + np.abs(b).max())
    )
