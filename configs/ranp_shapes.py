# SPDX-License-Identifier: Apache-2.0
r"""RANP on the embedded corpus: a small HGR from scratch, in minutes.

https://arxiv.org/abs/2203.08688

  python -m vidret_jax.main --config configs/ranp_shapes.py --workdir runs/r
  ... --config configs/ranp_shapes.py:loss=triplet     the baseline
  ... --config configs/ranp_shapes.py:loss=ran         negatives only
  ... --config configs/ranp_shapes.py:threshold=0.3
  ... --config configs/ranp_shapes.py:backbone=eao

The corpus is made on first use. What to expect: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
ranp = cl.load_module(os.path.join(_HERE, 'common', 'ranp.py'))

SIZES = dict(
  hgr=dict(dim=192, word_dim=96),
  eao=dict(dim=128, word_dim=64, heads=4, projection_dim=192, max_frames=12),
  vse=dict(dim=192, word_dim=96),
)
THRESHOLD = 0.3


def get_config(arg=None):
  arg = cl.parse_arg(
    arg, **{k: v for k, v in ranp.ARGS.items() if k != 'features'}
  )
  ranp.check(arg)
  c = ranp.skeleton(
    arg,
    loss=arg.loss,
    # From scratch the hardest negatives teach little in so few epochs.
    mining=arg.mining or 'all',
    threshold=arg.threshold or THRESHOLD,
  )
  c.model.update(SIZES[arg.backbone])
  # By the twelve nouns of the corpus, nearly everything is relevant to all.
  data = ranp.shapes_inputs(arg.backbone, classes='concepts')
  c.input.data = dict(split='train', **data)
  c.input.batch_size = 64
  c.total_epochs = 20
  c.ckpt_epochs = 2
  c.optim = dict(name='adamw', lr=1e-3, wd=1e-3)
  c.schedule = [('.*', dict(decay='cosine', warmup_percent=5))]
  c.evals = dict(
    val=ranp.evaluation(split='val', **data),
    test=ranp.evaluation(split='test', when='final', **data),
  )
  c.evals.val.log_epochs = 2
  c.best = 'val/nDCG_avg'
  c.select = 'best'
  return ranp.finish(arg, c)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
