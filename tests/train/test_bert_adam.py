# SPDX-License-Identifier: Apache-2.0
"""BertAdam against PyTorch, float16 against numpy, and what half costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vidret_jax import sharding
from vidret_jax.train import bert_adam, ckpt, optim
from vidret_jax.train import state as state_lib


def rates(count):
  """A warm-up from 0, and a fall."""
  return jnp.array([0.0, 1e-3, 2e-3, 1.5e-3, 1e-3])[jnp.minimum(count, 4)]


def follow(tx, p, grads, state=None):
  """(parameters after every update, last state), compiled as in training."""

  @jax.jit
  def update(p, state, g):
    u, state = tx.update(g, state, p)
    return optax.apply_updates(p, u), state

  state, out = state or tx.init(p), []
  for g in grads:
    p, state = update(p, state, g)
    out.append(p)
  return np.stack(out), state


def tensors(scale, steps=12, shape=(64, 48), dtype=np.float32):
  rng = np.random.default_rng(0)
  p = (0.05 * rng.normal(size=shape)).astype(dtype)
  grads = scale * rng.normal(size=(steps, *shape))
  return p, grads.astype(dtype)


def upstreams(p, grads, wd, b1=0.9, b2=0.98, eps=1e-6):
  """BertAdam's update of one tensor, as CLIP4Clip writes it."""
  torch = pytest.importorskip('torch')
  p = torch.nn.Parameter(torch.tensor(p))
  m, v = torch.zeros_like(p.data), torch.zeros_like(p.data)
  out = []
  for i, g in enumerate(grads):
    p.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_(p, 1.0)
    m.mul_(b1).add_(p.grad, alpha=1 - b1)
    v.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
    update = m / (v.sqrt() + eps)
    if wd > 0:
      update += wd * p.data
    p.data.add_(-(float(rates(i)) * update))
    out.append(p.detach().numpy().copy())
  return np.stack(out), m.numpy(), v.numpy()


# The norm of a gradient of 64 x 48 elements is 55 times the scale.
@pytest.mark.parametrize('scale', [1e-2, 1.0], ids=['free', 'clipped'])
@pytest.mark.parametrize('wd', [0.0, 0.2])
def test_single_precision_is_pytorchs(scale, wd):
  p, grads = tensors(scale)
  want, m, v = upstreams(p, grads, wd)
  tx = bert_adam.bert_adam(rates, weight_decay=wd)
  got, state = follow(tx, jnp.asarray(p), grads)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-8)
  np.testing.assert_allclose(state.m, m, rtol=1e-5, atol=1e-8)
  np.testing.assert_allclose(state.v, v, rtol=1e-5, atol=1e-10)
  np.testing.assert_array_equal(got[0], p)  # The first rate is 0.


@pytest.mark.parametrize('scale', [1e-5, 1e-4, 1e-3, 1e-2])
def test_half_precision_is_pytorchs_bit_by_bit(scale):
  """A multiple of 32 elements: PyTorch's vector kernel takes them all."""
  p, grads = tensors(scale, dtype=np.float16)
  want, m, v = upstreams(p, grads, 0.2)
  tx = bert_adam.bert_adam(rates, weight_decay=0.2, half=True)
  got, state = follow(tx, jnp.asarray(p, jnp.float32), np.float32(grads))
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, want.astype(np.float32))
  for name, mine, theirs in (('m', state.m, m), ('v', state.v, v)):
    assert mine.dtype == np.float16
    np.testing.assert_array_equal(np.asarray(mine), theirs, err_msg=name)


def test_a_clipped_half_gradient_is_pytorchs():
  """PyTorch adds up the norm in another order: one spacing of a float16."""
  p, grads = tensors(0.3, dtype=np.float16)
  want, m, _ = upstreams(p, grads, 0.2)
  tx = bert_adam.bert_adam(rates, weight_decay=0.2, half=True)
  got, state = follow(tx, jnp.asarray(p, jnp.float32), np.float32(grads))
  step = np.abs(np.diff(want.astype(np.float32), axis=0)).max()
  assert np.abs(got - want).max() < 0.02 * step
  np.testing.assert_allclose(np.float32(state.m), np.float32(m), atol=1e-5)


def test_half_of_tiny_gradients_is_momentum():
  p, grads = tensors(1e-5, steps=3)
  tx = bert_adam.bert_adam(1e-7, half=True)
  got, state = follow(tx, jnp.asarray(p), grads)
  assert not np.asarray(state.v).any()
  m = 0.1 * (0.81 * grads[0] + 0.9 * grads[1] + grads[2])
  np.testing.assert_allclose(np.float32(state.m), m, atol=3e-7)
  # The float16 of 1e-6 divides, and steps are multiples of 2 ** -24.
  step = 1e-7 * m / 1.0132789611816406e-6
  whole = got[1] - got[2]
  near = np.abs(whole - step) <= np.spacing(np.float16(got[1])) + 2.0**-24
  assert near.all()
  # Large weights do not move at all.
  large = np.abs(got[1]) > 0.05
  assert large.any() and (whole[large] == 0).mean() > 0.9


def test_unrounded_parameters_keep_what_half_ones_lose():
  p, grads = tensors(5e-6, steps=1)
  grads = np.repeat(grads, 40, axis=0)
  p = np.asarray(bert_adam.to_half(jnp.asarray(p)))
  ends = {
    keep: follow(
      bert_adam.bert_adam(1e-7, half=True, round_params=not keep),
      jnp.asarray(p),
      grads,
    )[0][-1]
    for keep in (False, True)
  }
  still = ends[False] == p
  assert still.mean() > 0.3
  assert (ends[True][still] != p[still]).mean() > 0.9
  halves = np.asarray(bert_adam.to_half(jnp.asarray(ends[False])))
  np.testing.assert_array_equal(ends[False], halves)


def test_parameters_that_are_no_halves_are_rounded_at_the_first_update():
  p, grads = tensors(0.0, steps=1)
  tx = bert_adam.bert_adam(0.0, half=True)
  got, _ = follow(tx, jnp.asarray(p), grads)
  np.testing.assert_array_equal(got[0], p.astype(np.float16).astype(np.float32))
  assert (got[0] != p).any()


def test_rounding_is_numpys_for_every_half_and_between():
  every = np.arange(2**16, dtype=np.uint16).view(np.float16)
  halves = np.sort(every[np.isfinite(every)].astype(np.float32))
  ties = (halves[1:] + halves[:-1]) / 2
  up, down = np.float32(np.inf), np.float32(-np.inf)
  special = [65519.0, 65520.0, 3e38, np.inf, -np.inf, np.nan, 1e-45, -0.0]
  x = np.concatenate(
    [halves, ties, np.nextafter(ties, up), np.nextafter(ties, down), special]
  ).astype(np.float32)
  with np.errstate(over='ignore'):
    want = x.astype(np.float16).astype(np.float32)
  got = np.asarray(jax.jit(bert_adam.to_half)(x))
  np.testing.assert_array_equal(got, want)
  np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
  assert float(bert_adam.to_half(jnp.float32(1e-6))) == 1.0132789611816406e-6


def test_a_resumed_run_is_bit_identical(tmp_path):
  """Through a checkpoint, half moments included."""
  p, grads = tensors(1e-3)
  params = {'clip': jnp.asarray(p), 'head': jnp.asarray(p) + 1}
  grads = [{'clip': g, 'head': 2 * g} for g in grads]
  tx, _ = optim.make(
    dict(
      name='bert_adam', lr=1e-3, wd=0.2, half=['clip'], clip_norm=1.0,
      limits=[('head', None, 1.1)],
    ),
    [('.*', dict(decay='warmup_cosine', warmup=0.25))],
    params=params,
    steps_per_epoch=4,
    total_steps=len(grads),
  )  # fmt: skip
  mesh = sharding.make_mesh()

  @jax.jit
  def update(state, g):
    u, opt = tx.update(g, state.opt_state, state.params)
    new = optax.apply_updates(state.params, u)
    return state_lib.TrainState(state.step + 1, new, {}, opt)

  def run(state, grads):
    for g in grads:
      state = update(state, g)
    return state

  start = jax.device_put(
    state_lib.start({'params': params}, tx), sharding.replicated(mesh)
  )
  target = state_lib.with_sharding(start, [('.*', 'replicate')], mesh)
  checkpoints = ckpt.Checkpoints(str(tmp_path), target)
  checkpoints.save(5, run(start, grads[:5]), {})
  checkpoints.wait()
  resumed = run(checkpoints.restore_newest(), grads[5:])
  checkpoints.close()
  jax.tree.map(np.testing.assert_array_equal, resumed, run(start, grads))
  kinds = {str(x.dtype) for x in jax.tree.leaves(resumed.opt_state)}
  assert kinds == {'float16', 'float32', 'int32'}
