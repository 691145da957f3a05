# SPDX-License-Identifier: Apache-2.0
"""Config of a small caption model whose vocabulary is that of its data."""

import ml_collections as mlc

from vidret_jax import config_lib as cl


def get_config(arg=None):
  arg = cl.parse_arg(arg, vocabulary=9, width=7, tell=True)
  c = mlc.ConfigDict()
  c.system = 'ranp'
  c.model = dict(
    backbone='vse',
    num_words=None,
    dim=8,
    word_dim=5,
    video_dropout=0.2,
    mining=dict(margin=0.2, topk=1),
  )
  data = dict(name='tests.train.tiny.captions', **vars(arg))
  c.input = dict(data=data, batch_size=4)
  c.total_steps = 2
  c.optim = dict(name='adam', lr=0.01)
  c.schedule = [('.*', dict(decay='constant'))]
  c.compile_cache = False
  return c
