# SPDX-License-Identifier: Apache-2.0
"""A training step on 8 devices equals the one on a single device.

Clips are compared among the batch of all devices, or among the clips of their
group, however many devices hold it.
"""

from tests import devices

PROGRAM = """
import jax
import numpy as np
from vidret_jax import sharding
from vidret_jax.models import hap_vr

assert jax.device_count() == 8
jax.config.update('jax_disable_most_optimizations', True)
rng = np.random.default_rng(0)
rows, frames, dim = 16, 4, 6
shape = (rows, frames, 2, dim)
weak = rng.normal(size=shape)
batch = dict(
    weak=weak / np.linalg.norm(weak, axis=-1, keepdims=True),
    strong=weak + 0.3 * rng.normal(size=shape),
    weak_labels=rng.normal(size=(rows, frames, 5)),
    strong_labels=rng.normal(size=(rows, frames, 5)))
batch = {k: x.astype('f') for k, x in batch.items()}
batch['_mask'] = np.arange(rows) < 13
mesh = sharding.make_mesh()
placed = sharding.put_batch(batch, mesh)
assert len(placed['weak'].sharding.device_set) == 8

for groups in (1, 2):
  # The second time half the compiling.
  loss = dict(frame=0.0) if groups > 1 else None
  model = hap_vr.make(dim=dim, groups=groups, loss=loss)
  shapes = jax.eval_shape(lambda key: model.init(
      key, batch, step=0, train=False, method='loss'), jax.random.key(0))
  draw = np.random.default_rng(1)
  params = jax.tree.map(lambda x: (
      draw.normal(size=x.shape) / max(x.size, 4) ** 0.4).astype('f'), shapes)

  @jax.jit
  def step(params, batch):
    def loss(params):
      return model.apply(params, batch, step=0, train=True, method='loss')
    if groups > 1:
      return loss(params), ()
    return jax.value_and_grad(loss, has_aux=True)(params)

  want = step(params, batch)
  parts = dict(want[0][1], reg=1)  # Nothing may lie outside of the bounds.
  assert len(parts) == 7 - groups and all(x != 0 for x in parts.values())
  got = step(jax.device_put(params, sharding.replicated(mesh)), placed)
  for (path, b), a in zip(jax.tree_util.tree_leaves_with_path(want),
                          jax.tree.leaves(got)):
    np.testing.assert_allclose(
        a, b, rtol=1e-4, atol=1e-5 * (0.1 + np.abs(b).max()),
        err_msg=f'{groups} {path}')
  print('equal', groups, *want[0][1].items())
"""


def test_sharded_step():
  printed = devices.run(8, '-c', PROGRAM)
  assert printed.count('equal') == 2
