# SPDX-License-Identifier: Apache-2.0
"""Config of a small HAP-VR that trains on frames, with frozen networks."""

import ml_collections as mlc

from vidret_jax import config_lib as cl


def get_config(arg=None):
  arg = cl.parse_arg(arg, frozen=True)
  c = mlc.ConfigDict()
  c.system = 'hap_vr'
  c.model = dict(
    dim=6, attention=True, bits=None, frame_pool='topk', backbone=None
  )
  if arg.frozen:
    c.model.backbone = dict(
      stages=(1, 1, 1), width=2, dims=6, kernels=(8, 4, 2)
    )
    c.model.labeller = dict(patch=32, width=4, layers=1, heads=2, image_size=64)
  c.input = dict(data=dict(name='tests.train.tiny.views'), batch_size=2)
  c.init = dict(parts=dict(resnet=None, pca=None, labeller=None))
  c.total_steps = 1
  c.optim = dict(name='adamw', lr=0.01)
  c.schedule = [('.*', dict(decay='constant'))]
  if arg.frozen:
    c.schedule = [('(backbone|labeller)/.*', None), *c.schedule]
  c.compile_cache = False
  return c
