# SPDX-License-Identifier: Apache-2.0
"""CE on a handful of real clips: the shipped config, made small."""

import pathlib

from vidret_jax import config_lib as cl

_SHIPPED = pathlib.Path(__file__).parents[3] / 'configs' / 'ce_shapes.py'
_EXPERTS = ('audio', 'colour', 'motion')  # Three compile in half the time.
COUNTS = dict(train=24, val=12, test=12, copies=4)


def get_config(arg=None):
  arg = cl.parse_arg(arg, batch=8, steps=6, cache='')
  c = cl.load_module(str(_SHIPPED)).get_config('runlocal')
  experts = [e for e in c.model.experts if e[0] in _EXPERTS]
  c.model.experts = experts
  for node in (c.input, *c.evals.values()):
    node.data.update(experts=experts, counts=COUNTS, progress=False)
  for entry in c.evals.values():
    entry.query_block = entry.item_block = 8
  c.input.batch_size = arg.batch
  c.total_steps = arg.steps
  # Gentle, so that scores are not so near to one another that rounding ranks.
  c.optim.lr = 0.005
  c.compile_cache = arg.cache or False
  return c
