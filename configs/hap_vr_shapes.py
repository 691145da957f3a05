# SPDX-License-Identifier: Apache-2.0
r"""HAP-VR on the embedded corpus: from random networks, in minutes.

https://arxiv.org/abs/2407.15566

  python -m vidret_jax.main --config configs/hap_vr_shapes.py --workdir runs/h
  ... --config configs/hap_vr_shapes.py:loss=infonce  InfoNCE alone
  ... --config configs/hap_vr_shapes.py:loss=none     Chamfer, not trained

The frozen networks are the code of ResNet and ViT, small and with random
weights; only the whitening of region vectors is fitted, to training clips. The
corpus is made on first use. What to expect: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
hap_vr = cl.load_module(os.path.join(_HERE, 'common', 'hap_vr.py'))

ARGS = dict(loss='hap', seed=0, runlocal=False)
# As published, but clips of three seconds are shuffled less: an excerpt or a
# faster copy is still in order.
AUGMENT = dict(temporal=dict(shuffle_dropout=0.2, shuffle=0.2))


def get_config(arg=None):
  arg = cl.parse_arg(arg, **ARGS)
  untrained = arg.loss == 'none'
  if untrained:
    arg.loss = 'infonce'
  hap_vr.check(arg)
  c = hap_vr.skeleton(arg)
  c.model.update(
    dim=hap_vr.SMALL_BACKBONE['dims'],
    features_only=untrained,
    max_frames=64,
  )
  with c.model.ignore_type():
    c.model.backbone = dict(hap_vr.SMALL_BACKBONE)
    if c.model.loss.frame:
      c.model.labeller = dict(hap_vr.SMALL_LABELLER)
  c.init = dict(fit=dict(pca=16))
  c.input = dict(
    data=dict(split='train', window=12, augment=AUGMENT, **hap_vr.FILMS),
    batch_size=16,
  )
  if untrained:
    c.total_steps = c.ckpt_steps = 1
  else:
    c.total_epochs = 6
    c.ckpt_epochs = 3
  c.log_steps = 20
  c.optim = dict(name='adamw', lr=1e-3, wd=0.01, clip_norm=1.0)
  c.schedule = [
    *hap_vr.FROZEN,
    ('.*', dict(decay='cosine', warmup_percent=5)),
  ]
  c.evals = dict(
    test=hap_vr.evaluation(
      data=dict(split='copies', **hap_vr.FILMS), hard=False
    )
  )
  return hap_vr.local(arg, c)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
