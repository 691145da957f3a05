# SPDX-License-Identifier: Apache-2.0
r"""HAP-VR, S2VS or DnS weights on SVD, from published features.

https://arxiv.org/abs/2407.15566

  python -m vidret_jax.main --mode eval --config configs/hap_vr_svd.py \
      --workdir runs/svd --config.init.torch=model.pth
  ... --config configs/hap_vr_svd.py:pool=chamfer        S2VS, DnS
  ... --config configs/hap_vr_svd.py:features_only=True  no network
  ... --config configs/hap_vr_svd.py:storage=records     16 bit, prepared
  ... --config configs/hap_vr_svd.py:visit=0.05          the best 5 % only

Files: docs/data_formats.md. Published: docs/published.md; ours:
docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
hap_vr = cl.load_module(os.path.join(_HERE, 'common', 'hap_vr.py'))


def get_config(arg=None):
  arg = cl.parse_arg(arg, split='all', **hap_vr.EVALUATION)
  # All scores of 206 queries with 532,738 videos would be gigabytes of JSON.
  return hap_vr.published(arg, 'svd', arg.split, similarities_top=1000)


def sweep():
  yield dict()
