# SPDX-License-Identifier: Apache-2.0
"""EERCF on 8 devices computes what it computes on a single one."""

from tests import devices

PROGRAM = """
import jax
import jax.numpy as jnp
import numpy as np
from vidret_jax import sharding
from vidret_jax.models import eercf

assert jax.device_count() == 8
sizes = dict(vision_width=256, vision_layers=1, patch=4, image_size=8,
             text_width=64, text_layers=1, context=8, vocab=30, dim=64)

def make(dtype):
  return eercf.make(clip=sizes, max_frames=3, temporal_layers=1, dtype=dtype,
                    loss_weights=dict(patch_strong=0.6, intra_patch=0.5))

rng = np.random.default_rng(0)
rows = 16
text = rng.integers(1, 28, (rows, 6)).astype('i4')
text[:, 4], text[:, 5] = 29, 0
batch = dict(
    text=text,
    frames=rng.integers(0, 256, (rows, 3, 8, 8, 3)).astype('u1'),
    frame_mask=np.arange(3) < rng.integers(1, 4, (rows, 1)),
    _mask=np.arange(rows) < 13)
model = make('float32')
start = jax.jit(lambda key: model.init(
    key, batch, step=0, train=False, method='loss'))(jax.random.key(0))
start = jax.tree.map(
    lambda x: x + 0.1 * rng.normal(size=x.shape).astype('f'), start)

def loss_and_grads(dtype):
  model = make(dtype)
  def loss(params, batch):
    return model.apply(
        {'params': params}, batch, step=0, train=True, method='loss')[0]
  return jax.jit(jax.value_and_grad(loss))

def compare(got, want, share):
  np.testing.assert_allclose(got[0], want[0], rtol=share)
  for (path, b), a in zip(jax.tree_util.tree_leaves_with_path(want[1]),
                          jax.tree.leaves(got[1])):
    assert np.isfinite(a).all(), path
    np.testing.assert_allclose(
        a, b, rtol=0, atol=share * (0.1 + np.abs(b).max()), err_msg=str(path))

mesh = sharding.make_mesh()
placed = sharding.put_batch(batch, mesh)
assert len(placed['frames'].sharding.device_set) == 8
rules = (('params/clip/.*', 'fsdp'), ('.*', 'replicate'))
spread = sharding.tree_sharding(start, rules, mesh)
split = [s for s in jax.tree.leaves(spread) if not s.is_fully_replicated]
assert split, 'no array is large enough to be split'

exact = loss_and_grads('float32')
want = exact(start['params'], batch)
for where in (sharding.replicated(mesh), spread):
  params = jax.device_put(start, where)['params']
  compare(exact(params, placed), want, 2e-4)
params = jax.device_put(start, spread)['params']
rough = loss_and_grads('bfloat16')(params, placed)
np.testing.assert_allclose(rough[0], want[0], rtol=0.05)
for x in jax.tree.leaves(rough[1]):
  assert x.dtype == jnp.float32 and np.isfinite(x).all()

one = jax.jit(lambda v, b: (
    model.apply(v, b, method='encode_query'),
    model.apply(v, b, method='encode_item')))
fine = jax.jit(lambda v, q, i: model.apply(v, q, i, method='fine'))
want = fine(start, *one(start, batch))
on_mesh = jax.device_put(start, spread)
got = fine(on_mesh, *one(on_mesh, placed))
np.testing.assert_allclose(got, want, atol=2e-3)
print('equal')
"""


def test_sharded_step_and_scores():
  printed = devices.run(8, '-c', PROGRAM)
  assert 'equal' in printed
