# SPDX-License-Identifier: Apache-2.0
r"""TeachText on LSMDC. https://arxiv.org/abs/2104.08271

  python -m vidret_jax.main --config configs/teachtext_lsmdc.py \
    --workdir runs/tt_lsmdc
  ... --config configs/teachtext_lsmdc.py:distill=False   CE+
  ... --config configs/teachtext_lsmdc.py:plus=False      TT-CE
  ... --config configs/teachtext_lsmdc.py:plus=False,distill=False
    a teacher; with text=w2v, another one

Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
teachtext = cl.load_module(os.path.join(_HERE, 'common', 'teachtext.py'))


def get_config(arg=None):
  arg = cl.parse_arg(arg, **teachtext.ARGS)
  return teachtext.make(arg, 'ce_lsmdc.py')


def sweep():
  for seed in range(3):  # mean and deviation over three runs, as published
    yield dict(seed=seed)
