# SPDX-License-Identifier: Apache-2.0
"""Frozen networks: regions of a ResNet, class tokens of a ViT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import hapvr_networks as networks
from vidret_jax.models import dino, frozen, regions, resnet

# The golden README's allowance for backbone features.
NEAR = dict(rtol=1e-3, atol=1e-4)
# Its tiny networks, whose weights are in the file: forward values.
EXACT = dict(rtol=1e-5, atol=2e-5)


@pytest.fixture
def stored(golden):
  return golden('region_features.npz')


def test_regions(stored, errors):
  """Stand-in maps, and a rebuilt ResNet-50 with its whitening."""
  cases = [k.removesuffix('_hw') for k in stored.groups() if k.endswith('_hw')]
  assert cases
  for case in cases:
    maps = [
      jnp.asarray(np.moveaxis(stored[f'{case}_layer{i}'], 1, -1), 'float32')
      for i in (1, 2, 3, 4)
    ]
    height, width = stored[f'{case}_hw']
    assert maps[0].shape[1:3] == (height // 4, width // 4)
    got = jax.jit(lambda maps: regions.pool(maps, regions.KERNELS))(maps)
    errors.close(case, got, stored[f'{case}_regions'], **EXACT)

  images = stored['frames']
  corner = stored['normalised_corner']
  h, w = corner.shape[2:]
  got = frozen.imagenet(images)[:, :h, :w].transpose(0, 3, 1, 2)
  errors.close('normalised', got, corner, **EXACT)

  dims = int(stored['pca_n_components'])
  network = networks.model(backbone=dict(dims=None))
  table = networks.resnet_table(network)
  name = networks.BACKBONE + '/resnet'
  params = networks.rebuilt(network, name, table, networks.resnet_array)

  def everything(params, images):
    net = resnet.ResNet()
    maps = net.apply(params, frozen.imagenet(images))
    return maps, regions.pool(maps, regions.KERNELS)

  maps, vectors = jax.jit(everything)(params, images)
  for i, x in enumerate(maps, 1):
    x = np.moveaxis(np.asarray(x), -1, 1)
    want = stored[f'resnet_layer{i}_slice']
    n, c, h, w = want.shape
    errors.close(f'layer{i}', x[:n, :c, :h, :w], want, **NEAR)
    got = [x.mean(), x.std(), np.abs(x).max()]
    stats = stored[f'resnet_layer{i}_mean_std_absmax']
    errors.close(f'layer{i} whole', got, stats, **NEAR)
  errors.close('regions', vectors[0], stored['resnet_regions_frame0'], **NEAR)
  want = stored['resnet_regions_frame1_slice']
  step = vectors.shape[-1] // want.shape[-1]
  errors.close('regions', vectors[1, :, ::step], want, **NEAR)

  # As many eigenvectors as the README says, of which some are kept.
  pca = networks.pca(vectors.shape[-1], 600)
  first = stored['pca_sorted_first8']
  order = np.argsort(-pca.values, kind='stable')[: len(first)]
  np.testing.assert_array_equal(order, first)
  kernel = pca.kernel(dims)
  want = stored['pca_DVt_slice']
  got = kernel[: want.shape[0], : want.shape[1]]
  errors.close('kernel', got, want, rtol=1e-6, atol=1e-6)
  whiten = regions.Pca(dims)
  got = whiten.apply({'params': dict(mean=pca.mean, kernel=kernel)}, vectors)
  errors.close('whitened', got, stored['pca_out'], **NEAR)

  # The parts as one network, in chunks.
  whole = regions.Regions(dims=dims, chunk=1)
  tree = dict(params['params'])
  tree = {'resnet': tree, 'pca': dict(mean=pca.mean, kernel=kernel)}
  got = jax.jit(whole.apply)({'params': tree}, images)
  errors.close('extractor', got, stored['pca_out'], **NEAR)


def test_dino(golden, errors):
  stored = golden('dino.npz')
  state = stored.under('tiny_param/')
  kernel, table = state['patch_embed.proj.weight'], state['pos_embed']
  blocks = {k.split('.')[1] for k in state if k.startswith('blocks.')}
  images = stored['tiny_frames']
  assert table.shape[1] == 1 + (images.shape[1] // kernel.shape[-1]) ** 2
  options = dict(
    patch=kernel.shape[-1],
    width=kernel.shape[0],
    layers=len(blocks),
    # Shows in no shape; the README tells.
    heads=3,
    image_size=images.shape[1],
  )
  network = networks.model(backbone={}, labeller=options)
  params = networks.from_state(
    state, networks.LABELLER, networks.vit_table(network)
  )
  raw = dino.Dino(**options, chunk=2)
  got = jax.jit(raw.apply)(params, images)
  errors.close('class', got, stored['tiny_cls_raw_pixels'], **EXACT)
  every = jax.jit(lambda p, x: raw.apply(p, x, every=True))
  got = every(params, images)
  errors.close('tokens', got, stored['tiny_tokens_last'], **EXACT)
  scaled = dino.Dino(**options, input='imagenet')
  got = jax.jit(scaled.apply)(params, images)
  errors.close('imagenet', got, stored['tiny_cls_imagenet_norm'], **EXACT)

  network = networks.model(backbone={}, labeller={})
  params = networks.rebuilt(
    network, networks.LABELLER, networks.vit_table(network), networks.vit_array
  )
  got = jax.jit(dino.Dino().apply)(params, stored['frames'])
  errors.close('ViT-S/16', got, stored['vits16_cls_raw_pixels'], **NEAR)
