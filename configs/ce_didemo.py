# SPDX-License-Identifier: Apache-2.0
r"""Collaborative Experts and MoEE on DiDeMo; a video's captions are one query.

https://arxiv.org/abs/1907.13487, https://arxiv.org/abs/1804.02516

  python -m vidret_jax.main --config configs/ce_didemo.py --workdir runs/didemo
  ... --config configs/ce_didemo.py:model=moee
  ... --config configs/ce_didemo.py:legacy_2019    leaks, see the README

Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
ce = cl.load_module(os.path.join(_HERE, 'common', 'ce.py'))

# fmt: off
RECIPE = dict(
  batch_size=64, epochs=30, lr=0.1, wd=1e-3, margin=0.16642835966287484,
  experts=ce.ALL, face=512, text='openai', ghosts=0,
  tokens=dict(text=48, audio=23, ocr=8, speech=48),
  clusters=dict(text=8, audio=16, ocr=13, speech=55),
)
LEGACY = dict(
  ce.RECIPE_2019, batch_size=64, epochs=25, lr=4e-4,
  tokens=dict(text=50, audio=30, ocr=30, speech=30),
)
# fmt: on


def get_config(arg=None):
  arg = cl.parse_arg(arg, legacy_2019=False, **ce.ARGS)
  c = ce.make(
    arg,
    LEGACY if arg.legacy_2019 else RECIPE,
    name='didemo',
    root=None,
    fuse_captions=True,
    train='train',
    evals=dict(
      val=dict(split='val'),
      test=dict(split='test', when='final'),
    ),
    best='val/t2v_geom',
  )
  if arg.legacy_2019:
    ce.as_in_2019(c, amsgrad=True)
  return ce.finish(arg, c)


def sweep():
  for seed in range(3):  # mean and deviation over three runs, as published
    yield dict(seed=seed)
