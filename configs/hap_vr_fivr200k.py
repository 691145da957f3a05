# SPDX-License-Identifier: Apache-2.0
r"""HAP-VR, S2VS or DnS weights on FIVR-200K, from published features.

https://arxiv.org/abs/2407.15566

  python -m vidret_jax.main --mode eval --config configs/hap_vr_fivr200k.py \
      --workdir runs/fivr200k --config.init.torch=model.pth
  ... --config configs/hap_vr_fivr200k.py:pool=chamfer        S2VS, DnS
  ... --config configs/hap_vr_fivr200k.py:features_only=True  no network
  ... --config configs/hap_vr_fivr200k.py:storage=records     16 bit, prepared
  ... --config configs/hap_vr_fivr200k.py:visit=0.05          the best 5 % only

Files: docs/data_formats.md. Published: docs/published.md; ours:
docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
hap_vr = cl.load_module(os.path.join(_HERE, 'common', 'hap_vr.py'))


def get_config(arg=None):
  arg = cl.parse_arg(arg, audio=False, **hap_vr.EVALUATION)
  return hap_vr.published(
    arg, 'fivr', '200k', audio=arg.audio, hard=True, ties='later'
  )


def sweep():
  yield dict()
