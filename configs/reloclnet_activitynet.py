# SPDX-License-Identifier: Apache-2.0
r"""ReLoCLNet and XML on ActivityNet Captions. https://arxiv.org/abs/2105.06247

  python -m vidret_jax.tools.prepare --config configs/reloclnet_activitynet.py
  python -m vidret_jax.main --config configs/reloclnet_activitynet.py \
    --workdir r
  ... --config configs/reloclnet_activitynet.py:ctx=video    no places of clips
  ... --config configs/reloclnet_activitynet.py:model=xml    the XML baseline

Neither features nor code for this dataset were published with the paper: clips
of 5 s and the exponent 20 are the paper's and its code's, all else is TVR's
recipe. There are no subtitles. docs/own_moments.md says how features are made.

Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
reloclnet = cl.load_module(os.path.join(_HERE, 'common', 'reloclnet.py'))

RECIPE = dict(
  name='activitynet_moments',
  features=('resnet_i3d', 'resnet', 'i3d'),
  context='video_tef',
  alpha=dict(reloclnet=20.0, xml=20.0),
  nms=0.5,
)


def get_config(arg=None):
  return reloclnet.make(cl.parse_arg(arg, **reloclnet.ARGS), RECIPE)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
