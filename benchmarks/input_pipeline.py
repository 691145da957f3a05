# SPDX-License-Identifier: Apache-2.0
r"""The training stream alone, from records, at MSR-VTT sizes.

  python -m benchmarks.input_pipeline [--videos 512] [--seconds 5]

Writes a feature pack in the published form with random values at the paper's
sizes (nine experts, twenty captions per video), prepares records from it, and
reads batches of 64 as training does, without a model: from memory (float32 and
float16) and from disk. Writes benchmarks/results/input_pipeline.json.
"""

import argparse
import os
import pathlib
import tempfile
import time

from benchmarks import machine
from tests.data import packs
from vidret_jax import config_lib
from vidret_jax.data import msrvtt, pipeline


def measure(data, batch_size, cache, seconds):
  """Opens the training split and reads it for some seconds."""
  began = time.perf_counter()
  source = msrvtt.make(view='pairs', **{**data, 'cache': cache})
  opened = time.perf_counter() - began
  stream = pipeline.train_iter(source, batch_size=batch_size, seed=0)
  for _ in range(10):
    next(stream)
  count, began = 0, time.perf_counter()
  while (spent := time.perf_counter() - began) < seconds:
    next(stream)
    count += 1
  stream.close()
  return dict(
    open_seconds=opened,
    batches=count,
    milliseconds_per_batch=spent / count * 1e3,
    examples_per_second=count * batch_size / spent,
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--videos', type=int, default=512)
  parser.add_argument('--seconds', type=float, default=5)
  args = parser.parse_args()

  config = config_lib.load('configs/ce_msrvtt.py')
  data = dict(config_lib.freeze(config.input.data))
  data.pop('name')
  with tempfile.TemporaryDirectory() as folder:
    os.environ['VIDRET_DATA_DIR'] = folder
    corpus = packs.write_pack(
      'msrvtt',
      folder,
      experts=data['experts'],
      text=data['text'],
      protocol='full',
      videos=dict(train=args.videos, val=2, test=2),
      captions=20,
    )
    began = time.perf_counter()
    asked = {k: data[k] for k in ('split', 'experts', 'text', 'root')}
    msrvtt.prepare(manual_dir=str(corpus), **asked)
    prepared = time.perf_counter() - began
    size = sum(
      f.stat().st_size
      for f in pathlib.Path(folder, 'records').rglob('*')
      if f.is_file()
    )
    results = {
      str(cache or 'disk'): measure(
        data, config.input.batch_size, cache, args.seconds
      )
      for cache in ('ram', 'ram16', None)
    }
  machine.write(
    'input_pipeline',
    dict(
      videos=args.videos,
      batch_size=config.input.batch_size,
      prepare_milliseconds_per_video=prepared / (args.videos + 4) * 1e3,
      record_bytes_per_video=size / (args.videos + 4),
      caches=results,
    ),
  )


if __name__ == '__main__':
  main()
