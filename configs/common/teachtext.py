# SPDX-License-Identifier: Apache-2.0
"""TeachText on top of a CE config. https://arxiv.org/abs/2104.08271

Arguments of every config of the family:

  plus      True: CE+, tokens of gpt2-xl-finetune and RAdam; False: CE with
            the dataset's own text and Ranger, as the teachers were trained
  text      another text encoder, e.g. to train a teacher (plus=False)
  distill   learn from the published teachers (TT-CE+, TT-CE)
  denoise   leave out noisy captions: '' or what the dataset has
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
ce = cl.load_module(os.path.join(_HERE, 'ce.py'))

ARGS = dict(
  plus=True, text='', distill=True, denoise='', seed=0, runlocal=False
)
ROOT = 'high-quality/structured-symlinks'
TEACHERS = tuple(
  f'teachers/train-full-ce-refined-text-{encoder}.pkl'
  for encoder in ('w2v', 'gpt2-xl', 'gpt2-xl-finetuned')
)


def make(arg, base, *, denoise=()):
  """Builds the config.

  Args:
    arg: parsed ARGS.
    base: file name of the CE config of the dataset.
    denoise: masks that are published for the dataset.
  """
  base = cl.load_module(os.path.join(os.path.dirname(_HERE), base))
  if arg.denoise and arg.denoise not in denoise:
    raise cl.ConfigError(
      f'denoise={arg.denoise!r}: this dataset has masks for '
      f'{", ".join(denoise) or "nothing"}'
    )
  experts = [
    e for e in ce.REFINED if e not in ce.SILENT or e in base.RECIPE['experts']
  ]
  text = arg.text or ('gpt2-xl-finetune' if arg.plus else '')
  c = base.get_config(
    f'experts={"+".join(experts)},text={text},seed={arg.seed}'
  )
  for node in (c.input, *c.evals.values()):
    node.data.root = ROOT
  if arg.plus:
    c.optim = dict(name='radam', lr=1e-3, wd=1e-5, b1=0.9, b2=0.999, eps=1e-8)
  if arg.distill:
    c.model.distill = 1.0
    c.input.data.teachers = TEACHERS
  if arg.denoise:
    c.input.data.caption_masks = f'denoising_masks/denoise-{arg.denoise}.pkl'
  if arg.denoise == 'less80':
    # Videos without a caption left are off the list. All splits name it, so
    # that they share their records.
    for node in (c.input, *c.evals.values()):
      node.data.training_file = 'denoising_masks/denoise-less80.txt'
  return ce.finish(arg, c)
