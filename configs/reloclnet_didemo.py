# SPDX-License-Identifier: Apache-2.0
r"""ReLoCLNet and XML on DiDeMo. https://arxiv.org/abs/1708.01641

  python -m vidret_jax.tools.prepare --config configs/reloclnet_didemo.py
  python -m vidret_jax.main --config configs/reloclnet_didemo.py --workdir r
  ... --config configs/reloclnet_didemo.py:model=xml    the XML baseline

The paper has no numbers on this dataset. Clips of 2.5 s are the code's
(method_tvr/config.py); annotations lie on a grid of two clips, and so do the
answers (advice of the author of XML). docs/own_moments.md says how features
are made.

Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
reloclnet = cl.load_module(os.path.join(_HERE, 'common', 'reloclnet.py'))

RECIPE = dict(
  name='didemo_moments',
  features=('resnet_i3d', 'resnet', 'i3d'),
  context='video_tef',
  alpha=dict(reloclnet=30.0, xml=20.0),
  nms=0.5,
  search=dict(grid=2),
)


def get_config(arg=None):
  return reloclnet.make(cl.parse_arg(arg, **reloclnet.ARGS), RECIPE)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
