# SPDX-License-Identifier: Apache-2.0
r"""A small search for copies, also as a program for several processes.

  python -m tests.search.toy_copies FOLDER OUT visit=0.2 [storage=float16 ...]

writes what was found to OUT.npz. With `spoil=v3` that video is not finite. With
`VIDRET_COORDINATOR` and so on in the environment it is one of several
processes, which search without a folder, too.
"""

import dataclasses
import sys
import time

import jax
import numpy as np

from vidret_jax import sharding
from vidret_jax.models import hap_vr
from vidret_jax.search import copies

REGIONS, DIM = 3, 6
# Odd lengths, missing videos, chunks of 24 with a rest that is kept or dropped.
QUERIES = (5, 0, 9, 8, 30)
ITEMS = (8, 11, 0, 24, 4, 60, 50, 16, 7, 8, 23, 12, 49, 13)
# Small batches: several of each length, the last of them not full.
OPTIONS = copies.Options(
  chunk=24,
  edges=(8, 16),
  query_buckets=2,
  batch_frames=48,
  shard_frames=96,
  readers=2,
)


class View:
  """Unit vectors, drawn from the id of a video.

  Attributes:
    ids, lengths, regions, dim: see `copy_reading.View`.
    reads: ids that were read, in order.
    pause: seconds that reading a video takes.
    spoil: id of a video that is not finite.
  """

  def __init__(
    self, prefix, lengths, *, regions=REGIONS, dim=DIM, pause=0.0, spoil=''
  ):
    self.ids = tuple(f'{prefix}{i}' for i in range(len(lengths)))
    self.lengths = np.asarray(lengths, np.int64)
    self.regions, self.dim, self.pause = regions, dim, pause
    self.spoil, self.reads = spoil, []

  def read(self, i):
    time.sleep(self.pause)
    self.reads.append(self.ids[i])
    seed = [ord(c) for c in self.ids[i]]
    # The fifth item has one vector a frame.
    regions = 1 if self.ids[i] == 'v4' else self.regions
    shape = (self.lengths[i], regions, self.dim)
    x = np.random.default_rng(seed).normal(size=shape) + 0.5
    x = (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
    return x * np.nan if self.ids[i] == self.spoil else x


def views(**options):
  return View('q', QUERIES, **options), View('v', ITEMS, **options)


def model(**options):
  options = {'features_only': True, **options}
  return hap_vr.make(
    dim=DIM, frame_rate=0.5, video_rate=0.3, max_frames=64, **options
  )


def variables(seed=0):
  """Weights far from those of a start, so that scores differ."""
  zeros = np.zeros((2, 4, REGIONS, DIM), np.float32)
  batch = {'weak': zeros, 'strong': zeros}
  network = model(loss={'frame': 0.0}, features_only=False)
  shapes = jax.eval_shape(
    lambda key: network.init(key, batch, step=0, train=False, method='loss'),
    jax.random.key(0),
  )
  rng = np.random.default_rng(seed)

  def draw(x):
    return (rng.normal(size=x.shape) / np.sqrt(x.size)).astype(np.float32) * 2

  return jax.tree.map(draw, shapes)


def find(*, folder=None, pair=None, seed=0, **options):
  """`copies.find` of the views here, or of other ones."""
  return copies.find(
    model(),
    sharding.make_mesh(),
    variables(seed),
    *(pair or views()),
    dataclasses.replace(OPTIONS, **options),
    folder=folder,
  )


def main(folder, out, *changes):
  jax.config.update('jax_disable_most_optimizations', True)
  sharding.start_processes()
  changes = dict(change.split('=') for change in changes)
  pause, spoil = float(changes.pop('pause', 0)), changes.pop('spoil', '')
  changes = {k: type(getattr(OPTIONS, k))(v) for k, v in changes.items()}
  pair = views(pause=pause, spoil=spoil)
  found = find(folder=folder, pair=pair, **changes)
  if jax.process_count() > 1:
    again = find(pair=pair, **changes)
    np.testing.assert_array_equal(again.scores, found.scores)
  np.savez(out, **vars(found))
  print('devices', jax.device_count(), 'local', jax.local_device_count())


if __name__ == '__main__':
  main(*sys.argv[1:])
