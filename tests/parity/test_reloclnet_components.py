# SPDX-License-Identifier: Apache-2.0
"""Single blocks of ReLoCLNet with parameters of their own."""

import jax
import numpy as np
import pytest

from tests.parity import reloclnet_goldens as rg
from vidret_jax.layers import attention
from vidret_jax.layers.linear import Numerics
from vidret_jax.models import reloclnet_encoders

pytestmark = pytest.mark.usefixtures('quick_compiler')


@pytest.fixture
def block(golden_root, golden):
  """`components.npz`, and the options that a block of the model has."""
  cfg = rg.config(rg.folder(golden_root) / 'model_cfg.json')
  num = Numerics('float32', 'highest')
  return golden('components.npz'), attention.Options(cfg['n_heads'], num=num)


def norm(params, key):
  return dict(scale=params[f'{key}.weight'], bias=params[f'{key}.bias'])


def dense(params, key):
  return dict(kernel=params[f'{key}.weight'].T, bias=params[f'{key}.bias'])


def attended(params, prefix=''):
  return {k: dense(params, f'{prefix}{k}') for k in ('query', 'key', 'value')}


def compare(errors, name, module, params, *args, want, mask=None):
  """Runs a block; rows that a mask excludes agree less well."""
  got = jax.jit(lambda p: module.apply({'params': p}, *args, train=False))
  got, want = np.asarray(got(params)), np.asarray(want)
  mask = np.ones(got.shape[:2], bool) if mask is None else mask
  errors.close(name, got[mask], want[mask], atol=rg.VALID)
  errors.close(f'{name} padded', got[~mask], want[~mask], atol=rg.PADDED)


def test_blocks(block, errors):
  io, options = block
  known = dict(
    linear_layer=projection,
    pos_encoding=position,
    bert_attention=encoder,
    cross_attention=crossed,
  )
  assert set(io.groups()) <= set(known)
  for name in io.groups():
    parts = [io.under(f'{name}/{part}/') for part in ('param', 'in')]
    known[name](errors, options, *parts, io[f'{name}/out'])


def projection(errors, options, params, given, want):
  module = reloclnet_encoders.Projection(want.shape[-1], 0.0, options)
  params = dict(norm=norm(params, 'LayerNorm'), dense=dense(params, 'net.1'))
  compare(errors, 'projection', module, params, given['x'], want=want)


def position(errors, options, params, given, want):
  table = params['position_embeddings.weight']
  module = reloclnet_encoders.Position(len(table), 0.0, options)
  params = dict(embedding=table, norm=norm(params, 'LayerNorm'))
  compare(errors, 'position', module, params, given['x'], want=want)


def encoder(errors, options, params, given, want):
  params = dict(
    **attended(params, 'self.'),
    out=dense(params, 'output.dense'),
    norm=norm(params, 'output.LayerNorm'),
  )
  mask = given['mask'] > 0
  args = attention.Encoder(options), params, given['x'], mask
  compare(errors, 'encoder', *args, want=want, mask=mask)


def crossed(errors, options, params, given, want):
  mask, side = given['main_mask'] > 0, given['side_mask'] > 0
  args = given['main'], given['side'], mask[:, :, None] & side[:, None, :]
  module = attention.Attention(options)
  compare(
    errors, 'cross', module, attended(params), *args, want=want, mask=mask
  )
