# SPDX-License-Identifier: Apache-2.0
r"""ReLoCLNet and XML on Charades-STA. https://arxiv.org/abs/1705.02101

  python -m vidret_jax.tools.prepare --config configs/reloclnet_charades.py
  python -m vidret_jax.main --config configs/reloclnet_charades.py --workdir r
  ... --config configs/reloclnet_charades.py:model=xml    the XML baseline

The paper has no numbers on this dataset. Clips of 3 s and the suppression at
0.6 are the code's (method_tvr/config.py), all else is TVR's recipe, but that a
moment may be one clip long. docs/own_moments.md says how features are made.

Published: docs/published.md; ours: docs/results.md.
"""

import os

from vidret_jax import config_lib as cl

_HERE = os.path.dirname(__file__)
reloclnet = cl.load_module(os.path.join(_HERE, 'common', 'reloclnet.py'))

RECIPE = dict(
  name='charades_moments',
  features=('resnet_i3d', 'resnet', 'i3d'),
  context='video_tef',
  alpha=dict(reloclnet=30.0, xml=20.0),
  nms=0.6,
  search=dict(min_length=1),
)


def get_config(arg=None):
  return reloclnet.make(cl.parse_arg(arg, **reloclnet.ARGS), RECIPE)


def sweep():
  for seed in range(3):
    yield dict(seed=seed)
