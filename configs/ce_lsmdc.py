# SPDX-License-Identifier: Apache-2.0
r"""Collaborative Experts and MoEE on LSMDC.

https://arxiv.org/abs/1907.13487, https://arxiv.org/abs/1804.02516

  python -m vidret_jax.main --config configs/ce_lsmdc.py --workdir runs/lsmdc
  ... --config configs/ce_lsmdc.py:model=moee
  ... --config configs/ce_lsmdc.py:legacy_2019    leaks, see the README

Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
ce = cl.load_module(os.path.join(_HERE, 'common', 'ce.py'))

# fmt: off
RECIPE = dict(
  batch_size=256, epochs=15, lr=0.01, wd=1e-3, margin=0.12132983763957966,
  experts=ce.ALL, face=128, text='w2v', ghosts=0,
  tokens=dict(text=36, audio=11, ocr=6, speech=35),
  clusters=dict(text=43, audio=3, ocr=30, speech=5),
)
LEGACY = dict(
  ce.RECIPE_2019, batch_size=512, epochs=9, lr=1e-4, face=128, text='w2v',
  experts=tuple(e for e in ce.ALL_2019 if e != 'speech'),
  tokens=dict(text=30, audio=50, ocr=50),
)
# fmt: on


def get_config(arg=None):
  arg = cl.parse_arg(arg, legacy_2019=False, **ce.ARGS)
  c = ce.make(
    arg,
    LEGACY if arg.legacy_2019 else RECIPE,
    name='lsmdc',
    root=None,
    train='train',
    evals=dict(
      val=dict(split='val'),
      # Licensed clips: the page shows one query, as the original's.
      test=dict(split='test', when='final', num_samples=1),
    ),
    # The tables of 2019 took the last weights.
    best=None if arg.legacy_2019 else 'val/t2v_geom',
  )
  if arg.legacy_2019:
    ce.as_in_2019(c, amsgrad=True)
  return ce.finish(arg, c)


def sweep():
  for seed in range(3):  # mean and deviation over three runs, as published
    yield dict(seed=seed)
