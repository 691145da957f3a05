# SPDX-License-Identifier: Apache-2.0
r"""EERCF on VATEX. https://arxiv.org/abs/2401.00701

  python -m vidret_jax.main --config configs/eercf_vatex.py --workdir runs/e
  ... --config configs/eercf_vatex.py:update=adamw
  ... --config configs/eercf_vatex.py:clip=ViT-B/16
  ... --config configs/eercf_vatex.py:storage=records   after tools.prepare

Recipe: that of MSVD; the authors' own is not published.
Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
eercf = cl.load_module(os.path.join(_HERE, 'common', 'eercf.py'))

RECIPE = dict(batch_size=128, epochs=5, max_words=32, max_frames=12, ranks=4)


def get_config(arg=None):
  return eercf.with_usual_splits(
    arg, RECIPE, name='vatex_frames', val='val', test='test', form='captions'
  )


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
