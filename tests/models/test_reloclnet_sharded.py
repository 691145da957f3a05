# SPDX-License-Identifier: Apache-2.0
"""A training step on 8 devices equals the one on a single device.

Videos are compared and negatives drawn among the batch of all devices.
"""

from tests import devices

PROGRAM = """
import jax
import numpy as np
from vidret_jax import sharding
from vidret_jax.models import reloclnet

assert jax.device_count() == 8
jax.config.update('jax_disable_most_optimizations', True)
rng = np.random.default_rng(0)
rows, clips, words = 16, 6, 4
model = reloclnet.make(
    streams=('video',), dim=8, heads=2, max_clips=clips, max_words=words,
    dropout=0.0, input_dropout=0.0, margin=0.5, hard_start_epoch=0, hard_pool=3)
batch = dict(
    query=rng.normal(size=(rows, words, 5)).astype('f'),
    query_mask=np.arange(words) < rng.integers(1, words + 1, (rows, 1)),
    video=rng.normal(size=(rows, clips, 7)).astype('f'),
    clip_mask=np.arange(clips) < rng.integers(3, clips + 1, (rows, 1)),
    span=np.tile(np.array([[0, 2]], 'i4'), (rows, 1)),
    _mask=np.arange(rows) < 13)
shapes = jax.eval_shape(lambda key: model.init(
    key, batch, step=0, train=False, method='loss'), jax.random.key(0))
params = jax.tree.map(
    lambda x: 0.5 * rng.normal(size=x.shape).astype('f'), shapes)

@jax.jit
def step(params, batch):
  def loss(params):
    return model.apply(params, batch, step=0, train=True, method='loss',
                       rngs={'sample': jax.random.key(3)})
  return jax.value_and_grad(loss, has_aux=True)(params)

want = step(params, batch)
assert len(want[0][1]) == 5 and all(x != 0 for x in want[0][1].values())
mesh = sharding.make_mesh()
placed = sharding.put_batch(batch, mesh)
assert len(placed['video'].sharding.device_set) == 8
got = step(jax.device_put(params, sharding.replicated(mesh)), placed)
for (path, b), a in zip(jax.tree_util.tree_leaves_with_path(want),
                        jax.tree.leaves(got)):
  np.testing.assert_allclose(
      a, b, rtol=1e-4, atol=1e-5 * (0.1 + np.abs(b).max()), err_msg=str(path))
print('equal')
"""


def test_sharded_step():
  printed = devices.run(8, '-c', PROGRAM)
  assert 'equal' in printed
