# SPDX-License-Identifier: Apache-2.0
"""HAP-VR on a handful of videos: the shipped config, made small.

It trains from features, so the data folder must hold those that the tests
write (`tests.data.feature_files`, `tests.data.copy_sets`), DIM wide.
"""

import os
import pathlib

from vidret_jax import config_lib as cl

_SHIPPED = pathlib.Path(__file__).parents[3] / 'configs' / 'hap_vr_vcdb.py'
VIDEOS, DIM = 20, 12
FEATURES = 'VCDB/features.hdf5'


def get_config(arg=None):
  arg = cl.parse_arg(arg, batch=8, steps=6, cache='')
  c = cl.load_module(str(_SHIPPED)).get_config('backbone=cache')
  data = pathlib.Path(os.environ['VIDRET_DATA_DIR'])
  c.input.data.update(features=str(data / FEATURES), window=8)
  # The last batch of an epoch is padded: one of the groups is all padding.
  c.input.epoch_end = 'pad'
  c.input.batch_size = arg.batch
  c.model.update(dim=DIM, max_frames=24)
  c.total_steps = arg.steps
  c.log_steps = c.ckpt_steps = 2
  c.evals.fivr5k.log_steps = 3
  # One program compares all.
  c.evals.fivr5k.search.update(chunk=24, batch_frames=240)
  c.evals.fivr5k.search.edges = (24,)
  c.evals.fivr5k.search.query_buckets = 1
  # A hundred times the published rate: what has moved must be the same, too.
  c.optim.lr = 0.004
  c.schedule = [('.*', dict(decay='constant'))]
  c.compile_cache = arg.cache or False
  return c
