# SPDX-License-Identifier: Apache-2.0
"""Config of the small system of the trainer's tests."""

import ml_collections as mlc

from vidret_jax import config_lib as cl

_HERE = 'tests.train.tiny'


def get_config(arg=None):
  arg = cl.parse_arg(arg, epochs=4, batch=8, rows=40, ckpt_steps=5)
  data = dict(name=f'{_HERE}.data', rows=arg.rows, seed=0)
  c = mlc.ConfigDict()
  c.system = f'{_HERE}.model'
  c.model = dict(dim=8, drop=0.1)
  c.input = dict(data=data, batch_size=arg.batch, epoch_end='pad')
  c.input.data.nan_row = None
  c.input.data.fail_row = None
  c.total_epochs = arg.epochs
  c.optim = dict(name='adam', lr=0.01)
  c.schedule = [('.*', dict(decay='step', every_epochs=1, gamma=0.95))]
  c.log_steps = 2
  c.ckpt_steps = arg.ckpt_steps
  c.accum_steps = 1
  c.evals = dict(
    val=dict(
      type=f'{_HERE}.evaluator',
      data=dict(data, seed=1),
      log_epochs=1,
      fail=False,
    ),
    test=dict(
      type=f'{_HERE}.evaluator',
      data=dict(data, seed=2),
      when='final',
      report=True,
    ),
  )
  c.best = 'val/t2v_R@1'
  c.select = 'best'
  c.compile_cache = False
  return c
