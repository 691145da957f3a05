# SPDX-License-Identifier: Apache-2.0
r"""EERCF on the embedded corpus: a small CLIP from scratch, in minutes.

https://arxiv.org/abs/2401.00701

  python -m vidret_jax.tools.prepare --config configs/eercf_shapes.py
  python -m vidret_jax.main --config configs/eercf_shapes.py --workdir runs/e

Learning to see takes more clips than learning to combine given features: this
corpus has four times the training clips of ce_shapes.py, in a folder of its
own. What to expect: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
eercf = cl.load_module(os.path.join(_HERE, 'common', 'eercf.py'))

COUNTS = dict(train=4000, val=160, test=400, copies=0)
FRAMES = dict(max_frames=6, image_size=64, max_words=40)


def get_config(arg=None):
  arg = cl.parse_arg(arg, linear_patch='2d', seed=0, runlocal=False)
  data = dict(FRAMES, counts=COUNTS, root=os.path.join(eercf.DATA, 'large'))
  c = eercf.skeleton(arg.seed, arg.linear_patch, 'shapes_frames', data)
  c.model.clip = dict(
    vision_width=128,
    vision_layers=2,
    patch=16,
    image_size=FRAMES['image_size'],
    text_width=128,
    text_layers=2,
    context=FRAMES['max_words'],
    vocab=1000,
    dim=128,
  )
  c.model.update(temporal_layers=2, dtype='float32')
  # From scratch, patches have to be taught: CLIP's know their words already.
  c.model.loss_weights.patch_weak = 0.3
  c.model.rank_weights.patch_weak = 0.8  # chosen on val
  c.input.data.update(split='train', captions='one')
  c.input.batch_size = 64
  c.total_epochs = 12
  c.ckpt_epochs = 2
  c.optim = dict(
    name='adamw',
    lr=1e-3,
    wd=0.1,
    b2=0.98,
    clip_norm=1.0,
    limits=eercf.LIMITS,
  )
  c.schedule = [('.*', dict(decay='cosine', warmup_percent=10))]
  c.evals = dict(
    val=eercf.evaluation(name='shapes_frames', split='val', **data),
    test=eercf.evaluation(
      name='shapes_frames', split='test', when='final', **data
    ),
  )
  for e in c.evals.values():
    e.k = 20
  c.evals.val.log_epochs = 2
  c.best = 'val/t2v_rsum'
  c.select = 'best'
  return eercf.finish(arg, c)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
