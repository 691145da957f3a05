# SPDX-License-Identifier: Apache-2.0
r"""RANP on EPIC-Kitchens-100. https://arxiv.org/abs/2203.08688

  python -m vidret_jax.main --workdir runs/r \
    --config configs/ranp_epic_kitchens.py
  ... --config configs/ranp_epic_kitchens.py:loss=triplet   the baseline, HGR
  ... --config configs/ranp_epic_kitchens.py:loss=ran       negatives only
  ... --config configs/ranp_epic_kitchens.py:threshold=0.4  of the conference
  ... --config configs/ranp_epic_kitchens.py:backbone=eao,loss=nce_ranp

Where HGR's and EAO's weights start, and Semi+ runs: see ranp_msrvtt.py.
Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
ranp = cl.load_module(os.path.join(_HERE, 'common', 'ranp.py'))

RECIPE = dict(
  name='epic_kitchens_graphs',
  features={'tbn': ('TBN.pth',)},
  usual=dict(hgr='tbn', eao='tbn', vse='tbn'),
  # The conference's files carry 0.4 (RANP) and 0.75 (RAN).
  thresholds=dict(hgr=0.15, eao=0.15, vse=0.15),
  mining='hard',
)


def get_config(arg=None):
  return ranp.make(cl.parse_arg(arg, **ranp.ARGS), RECIPE)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
