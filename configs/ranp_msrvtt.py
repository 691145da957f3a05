# SPDX-License-Identifier: Apache-2.0
r"""RANP on MSR-VTT, with HGR, EAO or VSE++. https://arxiv.org/abs/2203.08688

  python -m vidret_jax.main --config configs/ranp_msrvtt.py --workdir runs/r
  ... --config configs/ranp_msrvtt.py:loss=triplet        the baseline, HGR
  ... --config configs/ranp_msrvtt.py:loss=ran            negatives only
  ... --config configs/ranp_msrvtt.py:threshold=0.4       of the conference
  ... --config configs/ranp_msrvtt.py:features=resnet152+resnext101
  ... --config configs/ranp_msrvtt.py:backbone=eao,loss=nce_ranp
  ... --config configs/ranp_msrvtt.py:backbone=eao,split=1ka

HGR starts from GloVe vectors in the original: --config.init.torch=FILE, the
authors' word_embeds.glove42b.th; so does EAO from its HowTo100M weights.
Semi+All and Semi+Hard start from a finished run:

  ... --config configs/ranp_msrvtt.py:mining=semi --workdir runs/semi
  ... --config configs/ranp_msrvtt.py:mining=semi_all \
    --config.init.run=runs/semi

Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
ranp = cl.load_module(os.path.join(_HERE, 'common', 'ranp.py'))

RECIPE = dict(
  name='msrvtt_graphs',
  features={
    'resnet152': ('resnet152.pth',),  # of the conference
    'resnet152+resnext101': ('EAO_resnet152.pth', 'EAO_resnext101.pth'),
  },
  usual=dict(
    hgr='resnet152', eao='resnet152+resnext101', vse='resnet152+resnext101'
  ),
  # The conference's files carry 0.4 (RANP) and 0.75 (RAN).
  thresholds=dict(hgr=0.10, eao=0.15, vse=0.10),
  mining='hard',
)


SPLITS = ('full', '1ka')


def get_config(arg=None):
  arg = cl.parse_arg(arg, split='full', **ranp.ARGS)
  if arg.split not in SPLITS:
    raise cl.ConfigError(f'split={arg.split!r}: expected full or 1ka')
  if arg.split == '1ka' and arg.backbone == 'hgr':
    raise cl.ConfigError(
      'split=1ka has no role graphs, which hgr reads; take backbone=eao or vse'
    )
  # 1k-A has no validation list; upstream selects weights on its test list.
  full = arg.split == 'full'
  return ranp.make(arg, RECIPE, validate=full, protocol=arg.split)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
