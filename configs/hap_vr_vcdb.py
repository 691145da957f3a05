# SPDX-License-Identifier: Apache-2.0
r"""HAP-VR: trained without labels on frames of VCDB's background videos.

https://arxiv.org/abs/2407.15566

  python -m vidret_jax.tools.extract --what frames --videos videos --out frames
  python -m vidret_jax.main --config configs/hap_vr_vcdb.py --workdir runs/h \
      --config.input.data.root=frames \
      --config.init.parts.resnet=resnet50-0676ba61.pth \
      --config.init.parts.pca=pca_resnet50_vcdb_1M.pth \
      --config.init.parts.labeller=dino_deitsmall16_pretrain.pth
  ... --config configs/hap_vr_vcdb.py:loss=video       without frame labels
  ... --config configs/hap_vr_vcdb.py:loss=s2vs        the losses of S2VS
  ... --config configs/hap_vr_vcdb.py:negatives=global all clips of the batch
  ... --config configs/hap_vr_vcdb.py:labels=imagenet  DINO's own input
  ... --config configs/hap_vr_vcdb.py:backbone=cache   from extracted features

`backbone=cache` augments in time only: give the file of features by
--config.input.data.features. FIVR-5K is looked at while training, as upstream
does; no checkpoint is chosen by it. Published: docs/published.md; ours:
docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
hap_vr = cl.load_module(os.path.join(_HERE, 'common', 'hap_vr.py'))

STEPS = 30000  # Upstream goes on to the end of the epoch.
# `vidret_jax/data/augment/` says what they mean.
AUGMENT = dict(
  parts=('GT', 'FT', 'TT', 'ViV'),
  temporal=dict(
    shuffle_dropout=0.5,
    fast=0.1,
    slow=0.1,
    reverse=0.1,
    pause=0.1,
    shuffle=0.5,
    dropout=0.3,
    content=0.5,
  ),
  randaugment=2,
  magnitude=9,
  overlay=0.3,
  blur=0.5,
  mixing=0.3,
  share=(0.3, 0.7),
  weak_scale=(0.8, 1.0),
  strong_scale=(0.5, 1.0),
  flip=0.5,
  # As torchvision 0.14 resizes, which upstream runs with; 0.17 smooths. For
  # video in video: model.antialias.
  antialias=False,
  fonts=None,
  pictures=None,
)


def get_config(arg=None):
  arg = cl.parse_arg(arg, **hap_vr.TRAINING)
  hap_vr.check(arg)
  if arg.backbone == 'cache' and arg.labels != 'raw255':
    raise cl.ConfigError(
      f'labels={arg.labels!r}: what DINO saw was settled when the features '
      "were extracted; only backbone='step' runs it"
    )
  c = hap_vr.skeleton(arg)
  if arg.negatives == 'local':
    c.model.groups = 2  # Two devices of 64 pairs, compared on each alone.
  c.input = dict(
    data=dict(
      name='vcdb',
      split='train',
      root=None,
      percentage=1.0,
      window=28,
      size=224,
      resize=256,
      transform='exact',
      augment=AUGMENT,
      unreadable='mask',
      num_threads=None,
    ),
    batch_size=128,
    epoch_end='drop',
  )
  if arg.backbone == 'cache':
    c.input.data = dict(
      name='vcdb',
      split='train',
      window=28,
      percentage=1.0,
      features=os.path.join('data', 'VCDB', 'features.hdf5'),
      labels=bool(c.model.loss.frame),
      augment=dict(parts=('TT',), temporal=AUGMENT['temporal']),
    )
  else:
    hap_vr.networks(c, arg)
  c.total_steps = STEPS
  c.log_steps = 100
  c.ckpt_steps = 1500
  c.optim = dict(name='adamw', lr=4e-5, b1=0.9, b2=0.999, eps=1e-8, wd=0.01)
  decay = dict(
    # The cosine does not begin where the warm-up ends (`utils/misc.py`).
    decay='warmup_cosine',
    decay_steps=STEPS,
    warmup=1000 / STEPS,
    start=0.01,
    final=0.1,
  )
  c.schedule = [*hap_vr.FROZEN, ('.*', decay)]
  if c.model.backbone is None:
    c.schedule = c.schedule[1:]
  c.evals = dict(
    fivr5k=hap_vr.evaluation(
      data=dict(name='fivr', split='5k', storage='files', root=None),
      when='train',
    )
  )
  c.evals.fivr5k.log_steps = 1500
  return hap_vr.local(arg, c)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
