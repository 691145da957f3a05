# SPDX-License-Identifier: Apache-2.0
"""ReLoCLNet on a handful of real clips: the shipped config, made small."""

import pathlib

from vidret_jax import config_lib as cl

_SHIPPED = pathlib.Path(__file__).parents[3] / 'configs' / 'reloclnet_tvr.py'
COUNTS = dict(train=12, val=8, test=8, copies=0)


def get_config(arg=None):
  arg = cl.parse_arg(arg, batch=8, steps=6, cache='')
  # The last batch of an epoch is padded, and negatives are drawn: both have to
  # be the same on any number of devices.
  c = cl.load_module(str(_SHIPPED)).get_config('runlocal')
  del c.evals.loss  # The loss is that of training.
  for node in (c.input, *c.evals.values()):
    node.data.update(counts=COUNTS, progress=False)
  for entry in c.evals.values():
    entry.query_block = entry.item_block = 8
    entry.search.before_nms = 40  # Compiles faster.
  c.input.batch_size = arg.batch
  with c.model.ignore_type():
    c.model.short_clips = None  # Two plans take twice the compiling.
  c.total_steps = arg.steps
  # Ten times the published rate: what has moved must be the same, too.
  c.optim.lr = 0.001
  c.compile_cache = arg.cache or False
  return c
