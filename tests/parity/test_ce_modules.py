# SPDX-License-Identifier: Apache-2.0
"""Single blocks: outputs, gradients and statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.rules import LEADING_ONE, Rule
from vidret_jax.layers import activations, gating, pooling
from vidret_jax.layers.linear import Linear
from vidret_jax.losses import ranking
from vidret_jax.ops import similarity

EVAL = dict(atol=2e-6)
GRAD = dict(atol=1e-6, rtol=1e-4)
STATS = dict(atol=2e-6, rtol=2e-6)


class Mish(nn.Module):
  """As upstream's module, for one table of blocks."""

  @nn.compact
  def __call__(self, x, *, train):
    return activations.mish(x)


class Specific(nn.Module):
  """First maps of the star-specific variant: linear, Mish, linear."""

  features: int

  @nn.compact
  def __call__(self, x, *, train):
    half = x.shape[1] // 2
    first = Linear(half, self.features, parts=2, name='first')
    x = activations.mish(first(x))
    return Linear(self.features, self.features, name='second')(x)


class TwoGates(nn.Module):
  """Upstream `SpatialMLP`: context gating twice."""

  features: int

  @nn.compact
  def __call__(self, x, *, train):
    x = gating.ContextGating(self.features, name='cg1')(x, train=train)
    return gating.ContextGating(self.features, name='cg2')(x, train=train)


class Projection(nn.Module):
  """`layers.gating.Projection` under the signature of the others."""

  in_features: int
  features: int

  @nn.compact
  def __call__(self, x, *, train):
    return gating.Projection(self.in_features, self.features, name='p')(x)


def _linear(key, leaf):
  return rules_lib.linear(key, leaf)


def _gate(key, leaf):
  return _linear(f'{key}fc', f'{leaf}fc') + rules_lib.batch_norm(
    f'{key}batch_norm', f'{leaf}batch_norm'
  )


def block(name, width_in, width):
  """Module and table of a block of `modules/gating.npz`."""
  return {
    'context_gating': (gating.ContextGating(width), _gate('', '')),
    'context_gating_nobn': (
      gating.ContextGating(width, norm=False),
      _linear('fc', 'fc'),
    ),
    'geu': (
      gating.GatedUnit(width_in, width),
      _linear('fc', 'fc') + _gate('cg.', 'gate/'),
    ),
    'mimic_geu': (gating.MimicUnit(width), _gate('cg.', 'gate/')),
    'reduce_dim': (Projection(width_in, width), _linear('fc', 'p/fc')),
    'reasoning_geu': (
      gating.ReasoningUnit(width),
      _linear('cg.fc', 'fc')
      + rules_lib.batch_norm('cg.batch_norm', 'mask_norm')
      + rules_lib.batch_norm('cg.batch_norm2', 'own_norm'),
    ),
    'mish': (Mish(), []),
    'g_reason_specific': (
      Specific(width),
      _linear('g_reason_1_specific', 'first')
      + _linear('g_reason_2_specific', 'second'),
    ),
    'spatial_mlp': (
      TwoGates(width),
      _gate('cg1.', 'cg1/') + _gate('cg2.', 'cg2/'),
    ),
  }[name]


def check_block(errors, arrays, case, module, table, inputs):
  """Outputs in both modes, gradients of sum(out * cotangent), statistics."""
  param = arrays.under(f'{case}/param/')
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), *inputs, train=False)
  )
  known = {r.key for r in table}
  variables, _ = rules_lib.to_flax(
    {k: v for k, v in param.items() if k in known}, table, shapes
  )
  # Weights that the block owns upstream and does not use in this setting.
  unused = {k: v for k, v in param.items() if k not in known}
  assert all('batch_norm' in k for k in unused) and (
    not unused or case == 'context_gating_nobn'
  )
  cotangent = arrays[f'{case}/cotangent']

  @jax.jit
  def run(params, inputs):
    def train(params, inputs):
      out, state = module.apply(
        {**variables, 'params': params},
        *inputs,
        train=True,
        mutable=['batch_stats'],
      )
      return (out * cotangent).sum(), (out, state)

    evaluated = module.apply(
      {**variables, 'params': params}, *inputs, train=False
    )
    (_, (out, state)), grads = jax.value_and_grad(
      train, argnums=(0, 1), has_aux=True
    )(params, inputs)
    return evaluated, out, state, grads

  evaluated, out, state, (grads, x_grads) = run(
    variables.get('params', {}), inputs
  )
  errors.close(
    f'{case}/out_eval', evaluated, arrays[f'{case}/out_eval'], **EVAL
  )
  errors.close(f'{case}/out_train', out, arrays[f'{case}/out_train'], **EVAL)
  ours = {**unused, **rules_lib.to_torch(dict(params=grads, **state), table)}
  names = (
    ['x'] if f'{case}/x' in arrays else [f'x{i}' for i in range(len(inputs))]
  )
  ours.update(zip(names, x_grads))
  for key, want in arrays.under(f'{case}/grad/').items():
    errors.close(f'{case}/grad/{key}', ours[key], want, **GRAD)
  for key, want in arrays.under(f'{case}/after/').items():
    errors.close(f'{case}/after/{key}', ours[key], want, **STATS)


def test_netvlad(golden, errors):
  arrays = golden('modules/netvlad.npz')
  table = [
    Rule('clusters', 'params/clusters'),
    Rule('clusters2', 'params/centres', LEADING_ONE),
    *rules_lib.batch_norm('batch_norm', 'batch_norm'),
  ]
  for case in arrays.groups():
    d, kept = arrays[f'{case}/param/clusters2'].shape[1:]
    ghosts = arrays[f'{case}/param/clusters'].shape[1] - kept
    check_block(
      errors,
      arrays,
      case,
      pooling.NetVLAD(d, kept, ghosts),
      table,
      (arrays[f'{case}/x'],),
    )


def test_gating(golden, errors):
  arrays = golden('modules/gating.npz')
  for case in arrays.groups():
    inputs = [arrays[f'{case}/x0']]
    if f'{case}/x1' in arrays:
      inputs.append(arrays[f'{case}/x1'])
    module, table = block(
      case, inputs[0].shape[1], arrays[f'{case}/out_eval'].shape[1]
    )
    check_block(errors, arrays, case, module, table, tuple(inputs))


def test_similarity(golden, errors):
  arrays = golden('modules/similarity.npz')
  for case in arrays.groups():
    text, vid = (arrays.under(f'{case}/{n}/') for n in ('text', 'vid'))
    ind = arrays.under(f'{case}/ind/')
    names = sorted(text)
    sizes = tuple(text[n].shape[-1] for n in names)
    weights = arrays[f'{case}/text_weights']
    t, k, m = weights.shape
    q = np.concatenate([text[n] for n in names], -1).reshape(t * k, -1)
    v = np.concatenate([vid[n] for n in names], -1)
    if arrays[f'{case}/keep_missing_modalities']:
      sims = similarity.dot_all(
        jnp.asarray(q), jnp.asarray(v), precision='highest'
      )
    else:
      sims = similarity.available_mixture(
        jnp.asarray(q),
        jnp.asarray(weights.reshape(t * k, m)),
        jnp.asarray(v),
        np.stack([ind[n] for n in names], 1) > 0,
        sizes,
        precision='highest',
      )
    if arrays[f'{case}/merge_avg']:
      sims = sims.reshape(t, k, -1).mean(1)
    errors.close(f'{case}/sims', sims, arrays[f'{case}/sims'], **EVAL)


def test_loss(golden, errors):
  arrays = golden('modules/loss.npz')
  for case in arrays.groups():
    loss, grad = jax.value_and_grad(ranking.max_margin)(
      jnp.asarray(arrays[f'{case}/sims']),
      float(arrays[f'{case}/margin']),
      fix_norm=bool(arrays[f'{case}/fix_norm']),
    )
    errors.close(f'{case}/loss', loss, arrays[f'{case}/loss'], **EVAL)
    errors.close(f'{case}/grad', grad, arrays[f'{case}/grad'], **GRAD)
