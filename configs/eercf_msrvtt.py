# SPDX-License-Identifier: Apache-2.0
r"""EERCF on MSR-VTT. https://arxiv.org/abs/2401.00701

  python -m vidret_jax.main --config configs/eercf_msrvtt.py --workdir runs/e
  ... --config configs/eercf_msrvtt.py:split=7k
  ... --config configs/eercf_msrvtt.py:split=full
  ... --config configs/eercf_msrvtt.py:clip=ViT-B/16
  ... --config configs/eercf_msrvtt.py:update=adamw
  ... --config configs/eercf_msrvtt.py:linear_patch=3d
  ... --config configs/eercf_msrvtt.py:freeze=6
  ... --config configs/eercf_msrvtt.py:storage=records    after tools.prepare

Weights of the authors, without training:

  ... --mode eval --config.init.torch=pytorch_model.bin.0

Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
eercf = cl.load_module(os.path.join(_HERE, 'common', 'eercf.py'))

RECIPE = dict(batch_size=240, epochs=5, max_words=32, max_frames=12, ranks=4)
SPLITS = ('9k', '7k', 'full')


def get_config(arg=None):
  arg = cl.parse_arg(arg, split='9k', storage='files', **eercf.ARGS)
  if arg.split not in SPLITS:
    raise cl.ConfigError(
      f'split={arg.split!r}: expected 9k, 7k (both tested on 1k-A) or full'
    )
  full = arg.split == 'full'
  # 1k-A has no validation list. Upstream selects weights on its test list; we
  # take the last ones.
  evals = eercf.published_evals(
    'val_full' if full else None, 'test_full' if full else 'test_1ka'
  )
  c = eercf.make(
    arg,
    RECIPE,
    name='msrvtt_frames',
    root=None,
    storage=arg.storage,
    train=f'train_{arg.split}',
    evals=evals,
    best='val/t2v_rsum' if full else None,
  )
  return eercf.finish(arg, c)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
