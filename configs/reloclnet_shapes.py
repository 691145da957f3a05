# SPDX-License-Identifier: Apache-2.0
r"""ReLoCLNet and XML on the embedded corpus: small, from scratch, in minutes.

https://arxiv.org/abs/2105.06247

  python -m vidret_jax.main --config configs/reloclnet_shapes.py --workdir r
  ... --config configs/reloclnet_shapes.py:contrast=False  no VideoCL, FrameCL
  ... --config configs/reloclnet_shapes.py:model=xml       the XML baseline
  ... --config configs/reloclnet_shapes.py:ctx=video_tef   no subtitles
  ... --config configs/reloclnet_shapes.py:ctx=sub_tef     nothing else

The corpus is made on first use. What to expect: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
reloclnet = cl.load_module(os.path.join(_HERE, 'common', 'reloclnet.py'))

ARGS = ('model', 'ctx', 'task', 'contrast', 'seed', 'runlocal')
# Clips last a quarter of a second, videos at most 32 of them, moments 3 to 18.
SIZES = dict(dim=96, heads=4, max_clips=32, max_words=16)
# More than published, for few updates from scratch; where not 0.
WEIGHTS = dict(frame=0.1, video=0.1, span=0.05)
SEARCH = dict(
  alpha=30.0,  # chosen on val
  max_length=19,
  end_offset=0,  # for XML, too: both learn from the same labels
)


def get_config(arg=None):
  arg = cl.parse_arg(arg, **{name: reloclnet.ARGS[name] for name in ARGS})
  reloclnet.check(arg)
  arg.ctx = arg.ctx or 'video_sub_tef'
  c = reloclnet.skeleton(arg)
  c.model.update(SIZES)
  for name, weight in WEIGHTS.items():
    if c.model.loss[name]:
      c.model.loss[name] = weight
  c.model.hard_start_epoch = 12
  data = dict(
    name='shapes_moments',
    context=arg.ctx,
    max_clips=SIZES['max_clips'],
    max_words=SIZES['max_words'],
    cache='ram',
  )
  c.input.data = dict(split='train', **data)
  c.input.batch_size = 64
  c.total_epochs = 24
  c.patience = None
  c.ckpt_epochs = 3
  c.optim = dict(name='adamw', lr=2e-3, wd=0.01, clip_norm=1.0)
  c.schedule = [('.*', dict(decay='cosine', warmup_percent=5))]
  c.evals = dict(
    val=reloclnet.evaluation(arg, data=dict(split='val', **data), **SEARCH),
    test=reloclnet.evaluation(
      arg, data=dict(split='test', **data), when='final', **SEARCH
    ),
  )
  c.evals.val.log_epochs = 3
  return reloclnet.finish(arg, c)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
