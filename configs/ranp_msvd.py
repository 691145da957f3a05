# SPDX-License-Identifier: Apache-2.0
r"""RANP on MSVD. https://doi.org/10.1016/j.cviu.2024.104035

  python -m vidret_jax.main --config configs/ranp_msvd.py --workdir runs/r
  ... --config configs/ranp_msvd.py:loss=triplet         the baseline, HGR
  ... --config configs/ranp_msvd.py:backbone=eao
  ... --config configs/ranp_msvd.py:backbone=eao,loss=nce_ranp

Upstream's EAO scripts named RANPHN and baseSemiHN train the softmax losses,
because their flags come last (eao_match.py): loss=nce_ranp and loss=nce here.

Where HGR's and EAO's weights start, and Semi+ runs: see ranp_msrvtt.py.
Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
ranp = cl.load_module(os.path.join(_HERE, 'common', 'ranp.py'))

RECIPE = dict(
  name='msvd_graphs',
  features={'vit': ('ViT',), 'vit+swin3d': ('ViT', 'Swin3D')},
  usual=dict(hgr='vit', eao='vit+swin3d', vse='vit'),
  thresholds=dict(hgr=0.10, eao=0.10, vse=0.10),
  mining='hard',
)


def get_config(arg=None):
  return ranp.make(cl.parse_arg(arg, **ranp.ARGS), RECIPE)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
