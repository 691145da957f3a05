# SPDX-License-Identifier: Apache-2.0
"""A training step on 8 devices equals the one on a single device.

Negatives and positives are mined from the batch of all devices: every caption
has its only other positive on another device.
"""

import pytest

from tests import devices

PROGRAM = """
import sys
import jax
import numpy as np
from vidret_jax import sharding
from vidret_jax.models import ranp

assert jax.device_count() == 8
rng = np.random.default_rng(0)
rows, frames, words, verbs, nouns = 16, 3, 4, 1, 2
options = dict(
    hgr=dict(dim=8, word_dim=6, word_dropout=0.0, video_dropout=0.0,
             graph_dropout=0.0, num_words=20),
    eao=dict(dim=8, heads=2, projection_dim=10))[sys.argv[1]]
mining = dict(
    hgr=dict(threshold=0.4, positives=True, semi_hard=True),
    eao=dict(threshold=0.4, positives=True, loss='softmax'))[sys.argv[1]]
model = ranp.make(backbone=sys.argv[1], mining=mining, **options)
word_mask = np.arange(words) < rng.integers(1, words + 1, (rows, 1))
spans = rng.random((rows, verbs + nouns, words)) > 0.5
spans &= word_mask[:, None]
real = np.concatenate([np.ones((rows, 1), bool), spans.any(-1)], 1)
# Caption i and clip i + 8 share their classes: never on one device.
classes = (np.arange(rows) % 8)[:, None].astype('i4')
batch = dict(
    features=rng.normal(size=(rows, frames, 7)).astype('f'),
    feature_mask=np.arange(frames) < rng.integers(1, frames + 1, (rows, 1)),
    words=rng.integers(2, 20, (rows, words)).astype('i4'),
    word_vectors=rng.normal(size=(rows, words, 6)).astype('f'),
    word_mask=word_mask,
    verb_mask=spans[:, :verbs], noun_mask=spans[:, verbs:],
    roles=rng.integers(0, 16, (rows, verbs + nouns)).astype('i4'),
    edge_mask=real[:, None] & real[:, :, None],
    verb_classes=classes, noun_classes=classes,
    video_verb_classes=classes, video_noun_classes=classes,
    _mask=np.arange(rows) < 13)
params = jax.jit(lambda key: model.init(
    key, batch, step=0, train=False, method='loss'))(jax.random.key(0))
params = jax.tree.map(
    lambda x: x + 0.1 * rng.normal(size=x.shape).astype('f'), params)

@jax.jit
def step(params, batch):
  def loss(params):
    return model.apply(params, batch, step=0, train=True, method='loss')
  return jax.value_and_grad(loss, has_aux=True)(params)

want = step(params, batch)
(loss, parts), _ = want
assert loss > 0 and parts['positives'] > 0
# Relevance matters: were it not global, these would be the same.
alone = {**batch, 'verb_classes': classes + 9, 'noun_classes': classes + 9}
assert abs(step(params, alone)[0][0] - loss) > 1e-3
mesh = sharding.make_mesh()
placed = sharding.put_batch(batch, mesh)
assert len(placed['features'].sharding.device_set) == 8
rules = (('params/video/(level_.|token/.*)/kernel', (None, 'data')),
         ('.*', 'replicate'))
for spread in (sharding.replicated(mesh),
               sharding.tree_sharding(params, rules, mesh)):
  got = step(jax.device_put(params, spread), placed)
  for (path, b), a in zip(jax.tree_util.tree_leaves_with_path(want),
                          jax.tree.leaves(got)):
    np.testing.assert_allclose(
        a, b, rtol=1e-4, atol=1e-5 * (0.1 + np.abs(b).max()),
        err_msg=str(path))
print('equal')
"""


@pytest.mark.parametrize('backbone', ['hgr', 'eao'])
def test_sharded_step(backbone):
  printed = devices.run(8, '-c', PROGRAM, backbone)
  assert 'equal' in printed
