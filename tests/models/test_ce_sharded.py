# SPDX-License-Identifier: Apache-2.0
"""A training step on 8 devices equals the one on a single device."""

from tests import devices

PROGRAM = """
import jax
import numpy as np
from vidret_jax import sharding
from vidret_jax.models import ce

assert jax.device_count() == 8
rng = np.random.default_rng(0)
model = ce.make(
    (('audio', dict(dim=5, max_tokens=4, clusters=3)), ('face', dict(dim=7))),
    dict(dim=10, max_tokens=6, clusters=4, ghosts=1), dim=6)
batch = dict(
    text=rng.normal(size=(16, 6, 10)).astype('f'),
    experts=dict(audio=rng.normal(size=(16, 4, 5)).astype('f'),
                 face=rng.normal(size=(16, 7)).astype('f')),
    available=np.stack([np.ones(16, bool), rng.random(16) > 0.3], 1),
    _mask=np.arange(16) < 13)
variables = jax.jit(lambda key: model.init(
    key, batch, step=0, train=False, method='loss'))(jax.random.key(0))

@jax.jit
def step(variables, batch):
  def loss(params):
    (value, _), state = model.apply(
        {**variables, 'params': params}, batch, step=0, train=True,
        method='loss', mutable=['batch_stats'])
    return value, state
  return jax.value_and_grad(loss, has_aux=True)(variables['params'])

want = step(variables, batch)
mesh = sharding.make_mesh()
placed = sharding.put_batch(batch, mesh)
assert len(placed['text'].sharding.device_set) == 8
with_mesh = jax.device_put(variables, sharding.replicated(mesh))
got = step(with_mesh, placed)
for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
  np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
print('equal')
"""


def test_sharded_step():
  printed = devices.run(8, '-c', PROGRAM)
  assert 'equal' in printed
