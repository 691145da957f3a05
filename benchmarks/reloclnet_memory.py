# SPDX-License-Identifier: Apache-2.0
r"""Memory of training ReLoCLNet from records at TVR's widths, and its input.

  python -m benchmarks.reloclnet_memory --data runs/tvr_random

Makes a dataset in TVR's own files with random features, prepares records of it
as users do, reads the training stream without a model, then trains an epoch and
evaluates with the main command. Features stay on disk, so memory does not grow
with the number of videos. Writes benchmarks/results/reloclnet_memory.json.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

import h5py
import numpy as np

from benchmarks import clips, machine

CONFIG = 'configs/reloclnet_tvr.py'
_QUERIES = 5  # Of a video, as in TVR.


def make(root, videos):
  """Published files with random features: train and val."""
  from vidret_jax.data import tvr_moments

  layout = tvr_moments.LAYOUT
  files = {
    key: root / layout.folder / names[0]
    for key, names in layout.files('resnet_i3d', 'sub_query', 1.5).items()
  }
  for path in files.values():
    path.parent.mkdir(parents=True, exist_ok=True)
  drawn = clips.Clips([f'show_{i}' for i in range(2 * videos)], {}, seed=3)
  rng = np.random.default_rng(0)
  pool = rng.standard_normal((4096, 3072), np.float32)
  half = np.linalg.norm(pool.reshape(4096, 2, -1), axis=-1)
  pool = (pool.reshape(4096, 2, -1) / half[..., None]).reshape(4096, 3072)

  def rows(n, width):
    start = int(rng.integers(len(pool) - n))
    return pool[start : start + n, :width]

  durations = {'train': {}, 'val': {}}
  with (
    h5py.File(files['video'], 'w') as video,
    h5py.File(files['subtitle'], 'w') as subtitle,
    h5py.File(files['query'], 'w') as query,
  ):
    for split, first in (('train', 0), ('val', videos)):
      lines = []
      for i in range(first, first + videos):
        name, seconds = drawn.ids[i], float(drawn.durations[i])
        n = round(seconds / drawn.clip_seconds)
        durations[split][name] = [seconds, i]
        video[name], subtitle[name] = rows(n, 3072), rows(n, 768)
        for j in range(_QUERIES):
          number = i * _QUERIES + j
          start = float(rng.random() * (seconds - 9))
          query[str(number)] = rows(int(rng.integers(8, 29)), 768)
          lines.append(
            dict(
              desc_id=number,
              desc='somebody does something',
              vid_name=name,
              duration=seconds,
              ts=[start, start + 9],
              type='vt',
            )
          )
      text = '\n'.join(json.dumps(line) for line in lines)
      files[f'annotations_{split}'].write_text(text)
  files['durations'].write_text(json.dumps(durations))


def stream_seconds(config, batches=8):
  """(seconds, bytes) of a batch of the training stream without a model."""
  from vidret_jax.data import pipeline
  from vidret_jax.evaluators import base

  source = base.make_source(config.input.data.to_dict(), 'pairs')
  stream = pipeline.train_iter(
    source,
    batch_size=config.input.batch_size,
    seed=0,
    epoch_end=config.input.epoch_end,
  )
  size = sum(x.nbytes for x in next(stream).values())
  began = time.perf_counter()
  for _ in range(batches):
    next(stream)
  return (time.perf_counter() - began) / batches, size


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--data', type=pathlib.Path, required=True)
  parser.add_argument('--videos', type=int, default=256, help='of a split')
  args = parser.parse_args()
  os.environ['VIDRET_DATA_DIR'] = str(args.data)
  if not args.data.exists():
    make(args.data, args.videos)
  here = [sys.executable, '-m']
  prepare = [*here, 'vidret_jax.tools.prepare', '--config', CONFIG]
  subprocess.run(prepare, check=True)
  from vidret_jax import config_lib
  from vidret_jax.train import defaults

  config = defaults.resolve(config_lib.load(CONFIG))
  workdir = args.data / 'run'
  before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
  subprocess.run(
    [
      *(*here, 'vidret_jax.main', '--config', CONFIG),
      *('--workdir', str(workdir), '--config.total_epochs=1'),
    ],
    check=True,
  )
  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
  if peak == before:
    raise RuntimeError('prepare took more memory than training: unknown peak')
  seconds, size = stream_seconds(config)
  machine.write(
    'reloclnet_memory',
    dict(
      config=CONFIG,
      videos=args.videos,
      queries=args.videos * _QUERIES,
      batch_size=config.input.batch_size,
      batch_bytes=size,
      input_seconds=seconds,
      peak_rss_bytes=peak * 1024,
    ),
  )


if __name__ == '__main__':
  main()
