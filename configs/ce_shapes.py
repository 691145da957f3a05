# SPDX-License-Identifier: Apache-2.0
r"""Collaborative Experts and MoEE on the embedded corpus, in a minute or two.

https://arxiv.org/abs/1907.13487, https://arxiv.org/abs/1804.02516

  python -m vidret_jax.main --config configs/ce_shapes.py --workdir runs/shapes
  ... --config configs/ce_shapes.py:model=moee
  ... --config configs/ce_shapes.py:model=mimic           CE - CG
  ... --config configs/ce_shapes.py:expert=colour         one expert alone
  ... --config configs/ce_shapes.py:experts=colour+motion

The corpus is made on first use. What to expect: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
ce = cl.load_module(os.path.join(_HERE, 'common', 'ce.py'))

# In every video; a lone expert has to be.
ALWAYS = ('colour', 'layout', 'motion', 'shape', 'texture')
# NetVLAD centres of the experts that are sequences, and of the captions.
CLUSTERS = dict(audio=8, ocr=4, speech=8, text=16)


def get_config(arg=None):
  arg = cl.parse_arg(
    arg, model='ce', experts='', expert='', seed=0, runlocal=False
  )
  if arg.expert and (arg.experts or arg.model != 'ce'):
    raise cl.ConfigError('expert=... stands alone; it takes no other choice')
  if arg.expert and arg.expert not in ALWAYS:
    raise cl.ConfigError(
      f'expert={arg.expert!r}: expected one that every video has: '
      f'{", ".join(ALWAYS)}'
    )
  chosen = arg.expert or arg.experts
  chosen = chosen.split('+') if chosen else list(ce.SHAPES['dims'])
  # One expert has nobody to collaborate with: as in the original's ablations.
  model = 'mimic' if arg.expert else arg.model

  inputs = ce.shapes_inputs(chosen, CLUSTERS, ghosts=1)
  c = ce.skeleton(model, arg.seed, **inputs)
  c.model.update(dim=192, margin=0.12)
  c.input.data.update(name='shapes', split='train')
  c.input.batch_size = 64
  c.total_epochs = 30
  c.optim = dict(name='adamw', lr=1e-3, wd=1e-3)
  c.schedule = [('.*', dict(decay='step', every_epochs=1, gamma=0.97))]
  c.evals = dict(
    val=ce.evaluation(c.model, name='shapes', split='val'),
    test=ce.evaluation(c.model, name='shapes', split='test', when='final'),
  )
  c.evals.val.log_epochs = 5
  c.ckpt_epochs = 5
  c.best = 'val/t2v_geom'
  c.select = 'best'
  return ce.finish(arg, c)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
