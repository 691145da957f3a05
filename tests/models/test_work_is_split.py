# SPDX-License-Identifier: Apache-2.0
"""Of 8 devices each does about an eighth of a training step's work.

That a step on 8 devices finds the right numbers says nothing of this: an array
whose batch is merged into another axis may be gathered, and what follows is
then done by every device, in whole.

XLA's estimate of operations counts a loop's body once, so sentences have two
words here, and models are wide enough for products to prevail.
"""

import json

from tests import devices

# Beside the eighth: losses of the whole batch, and sums over devices.
MOST = 1.3 / 8

PROGRAM = """
import json
import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from vidret_jax import sharding
from vidret_jax.models import ce, eercf, hap_vr, ranp, reloclnet

jax.config.update('jax_disable_most_optimizations', True)
ROWS, WORDS = 64, 2
rng = np.random.default_rng(0)

def draw(*shape):
  return rng.normal(size=(ROWS, *shape)).astype('f')

def yes(*shape):
  return np.ones((ROWS, *shape), bool)

def zeros(*shape):
  return np.zeros((ROWS, *shape), 'i4')

def pixels(*shape):
  return np.zeros((ROWS, *shape, 3), 'u1')

def experts(gating):
  sizes = dict(dim=48, max_tokens=4, clusters=4)
  names = ('audio', 'face', 'scene')
  batch = dict(
      text=draw(4, 48), experts=dict(audio=draw(4, 48), face=draw(48),
                                     scene=draw(48)),
      available=yes(3))
  return ce.make([(n, sizes if n == 'audio' else dict(dim=48)) for n in names],
                 sizes, dim=64, gating=gating), batch

def graphs(backbone, **options):
  words = dict(words=zeros(WORDS), word_vectors=draw(WORDS, 48),
               word_mask=yes(WORDS))
  classes = {f'{side}{part}_classes': zeros(1)
             for side in ('', 'video_') for part in ('verb', 'noun')}
  batch = dict(
      features=draw(4, 64), feature_mask=yes(4), verb_mask=yes(1, WORDS),
      noun_mask=yes(2, WORDS), roles=zeros(3), edge_mask=yes(4, 4),
      **words, **classes)
  return ranp.make(backbone=backbone, dim=64, mining=dict(
      threshold=0.4, positives=True), **options), batch

def moments():
  return reloclnet.make(
      streams=('video',), dim=64, heads=4, max_clips=8, max_words=4,
      hard_start_epoch=0), dict(
      query=draw(4, 64), query_mask=yes(4), video=draw(8, 64), clip_mask=yes(8),
      span=np.tile(np.array([[0, 2]], 'i4'), (ROWS, 1)))

def pictures():
  clip = dict(
      vision_width=64, vision_layers=1, patch=8, image_size=16, text_width=64,
      text_layers=1, context=8, vocab=30, dim=64)
  return eercf.make(clip=clip, max_frames=3, temporal_layers=1), dict(
      text=zeros(6), frames=pixels(3, 16, 16), frame_mask=yes(3))

def copies(frames):
  shape = (4, 4, 64)
  if not frames:
    return hap_vr.make(dim=64), dict(
        weak=draw(*shape), strong=draw(*shape), weak_labels=draw(4, 64),
        strong_labels=draw(4, 64))
  small = dict(stages=(1, 1, 1), width=16, dims=32, kernels=(4, 2, 1))
  labels = dict(image_size=32, patch=16, width=48, layers=1, heads=3)
  return hap_vr.make(dim=32, backbone=small, labeller=labels), dict(
      weak=pixels(4, 32, 32), strong=pixels(4, 32, 32),
      mix=np.zeros((ROWS, 5), 'f'))

SYSTEMS = {
    'ce': lambda: experts('pairwise'),
    'ce triplet': lambda: experts('triplet'),
    'ce tensor': lambda: experts('pairwise_star_tensor'),
    'ranp hgr': lambda: graphs('hgr', word_dim=48, num_words=20),
    'ranp eao': lambda: graphs('eao', heads=4, projection_dim=64),
    'ranp vse': lambda: graphs('vse', word_dim=48, num_words=20),
    'reloclnet': moments,
    'eercf': pictures,
    'hap_vr': lambda: copies(False),
    'hap_vr frames': lambda: copies(True),
}

def place(tree, where):
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)

def work(model, batch, count):
  mesh = Mesh(np.array(jax.devices()[:count]), ('data',),
              axis_types=(AxisType.Auto,))
  variables = jax.eval_shape(lambda key: model.init(
      key, batch, step=0, train=False, method='loss'), jax.random.key(0))
  params = dict(variables['params'])
  frozen = {n: params.pop(n) for n in ('backbone', 'labeller') if n in params}

  def step(params, frozen, state, batch):
    def loss(params):
      (value, _), new = model.apply(
          {**state, 'params': {**params, **frozen}}, batch, step=0, train=True,
          method='loss', mutable=list(state),
          rngs={n: jax.random.key(1) for n in ('dropout', 'sample')})
      return value, new
    return jax.value_and_grad(loss, has_aux=True)(params)

  state = {n: x for n, x in variables.items() if n != 'params'}
  fixed = place((params, frozen, state), sharding.replicated(mesh))
  rows = place(batch, sharding.batch_sharding(mesh))
  compiled = jax.jit(step).lower(*fixed, rows).compile()
  return compiled.cost_analysis()['flops']

shares = {}
for name, make in SYSTEMS.items():
  model, batch = make()
  batch['_mask'] = yes()
  shares[name] = work(model, batch, 8) / work(model, batch, 1)
print(json.dumps(shares))
"""


def test_work_is_split():
  shares = json.loads(devices.run(8, '-c', PROGRAM).splitlines()[-1])
  assert not {name: x for name, x in shares.items() if not 0.12 < x < MOST}
