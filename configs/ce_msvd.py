# SPDX-License-Identifier: Apache-2.0
r"""Collaborative Experts and MoEE on MSVD, whose clips are silent.

https://arxiv.org/abs/1907.13487, https://arxiv.org/abs/1804.02516

  python -m vidret_jax.main --config configs/ce_msvd.py --workdir runs/msvd
  ... --config configs/ce_msvd.py:model=moee
  ... --config configs/ce_msvd.py:legacy_2019    leaks, see the README

Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
ce = cl.load_module(os.path.join(_HERE, 'common', 'ce.py'))

# fmt: off
RECIPE = dict(
  batch_size=16, epochs=300, lr=0.01, wd=5e-5, margin=0.30764700456522676,
  experts=tuple(e for e in ce.ALL if e not in ce.SILENT),
  face=512, text='openai', ghosts=0,
  tokens=dict(text=30, ocr=30),
  clusters=dict(text=12, ocr=75),
)
LEGACY = dict(
  ce.RECIPE_2019, batch_size=16, epochs=150, lr=2e-3,
  experts=tuple(e for e in ce.ALL_2019 if e not in ce.SILENT),
)
# fmt: on


def get_config(arg=None):
  arg = cl.parse_arg(arg, legacy_2019=False, **ce.ARGS)
  c = ce.make(
    arg,
    LEGACY if arg.legacy_2019 else RECIPE,
    name='msvd',
    root=None,
    train='train',
    evals=dict(
      val=dict(split='val'),
      test=dict(split='test', when='final'),
    ),
    best='val/t2v_geom',
  )
  if arg.legacy_2019:
    ce.as_in_2019(c, amsgrad=False)
  return ce.finish(arg, c)


def sweep():
  for seed in range(3):  # mean and deviation over three runs, as published
    yield dict(seed=seed)
