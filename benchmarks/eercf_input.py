# SPDX-License-Identifier: Apache-2.0
r"""From JPEGs to batches, as EERCF reads clips, without a model.

  python -m benchmarks.eercf_input [--clips 64] [--repeats 3]

Makes clips of 20 JPEGs of 320 x 240 in the published form of MSR-VTT, prepares
records from them, and reads all clips, eight at a time, as 12 frames of
224 x 224: from files and from records, with both ways of resizing, by one
thread and by two. Writes benchmarks/results/eercf_input.json.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np
from PIL import Image

from benchmarks import machine
from vidret_jax.data import msrvtt_frames

# Seconds of the original for one such clip, on a machine of this kind (2 cores,
# PyTorch 2.13); it decodes with one thread.
ORIGINAL = 0.079
JPEGS, WIDTH, HEIGHT = 20, 320, 240
BATCH = 8


def picture(rng):
  """Noise at several scales, which compresses about as a photograph does."""
  out = np.zeros((HEIGHT, WIDTH, 3), np.float32)
  for step in (1, 4, 16, 64):
    size = WIDTH // step, HEIGHT // step
    noise = rng.standard_normal((size[1], size[0], 3)) * step**0.7
    image = np.stack(
      [
        Image.fromarray(noise[..., c].astype(np.float32)).resize(
          (WIDTH, HEIGHT), Image.Resampling.BICUBIC
        )
        for c in range(3)
      ],
      axis=-1,
    )
    out += image * 2.5
  return Image.fromarray(np.clip(out + 128, 0, 255).astype(np.uint8))


def write_clips(root, clips):
  """The test split of 1k-A with these clips; returns bytes of a JPEG."""
  rng, sizes = np.random.default_rng(0), []
  for i in range(clips):
    folder = root / 'videos' / 'frames' / f'video{i}'
    folder.mkdir(parents=True)
    for number in range(JPEGS):
      path = folder / f'frame_{number:04d}.jpg'
      picture(rng).save(path, 'JPEG', quality=90)
      sizes.append(path.stat().st_size)
  lines = [f'ret{i},msr{i},video{i},a clip of noise\n' for i in range(clips)]
  (root / 'MSRVTT_JSFUSION_test.csv').write_text(
    'key,vid_key,video_id,sentence\n' + ''.join(lines)
  )
  return statistics.fmean(sizes)


def measure(data, repeats):
  """Reads all clips some times; the first time finds no file in memory."""
  items = msrvtt_frames.make(view='items', **data)
  seconds, used = [], time.process_time()
  for _ in range(repeats + 1):
    began = time.perf_counter()
    for start in range(0, len(items), BATCH):
      index = np.arange(start, min(start + BATCH, len(items)))
      batch = items.gather(index, index)
    seconds.append((time.perf_counter() - began) / len(items))
  used = (time.process_time() - used) / len(seconds) / len(items)
  assert batch['frame_mask'].all() and batch['frames'].any()
  best = min(seconds[1:])
  return dict(
    storage=data['storage'],
    transform=data['transform'],
    threads=data['num_threads'],
    seconds_per_clip=best,
    all=seconds,
    processor_seconds_per_clip=used,
    clips_per_second=1 / best,
    original_seconds=ORIGINAL,
    speedup=ORIGINAL / best,
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--clips', type=int, default=64)
  parser.add_argument('--repeats', type=int, default=3)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    os.environ['VIDRET_DATA_DIR'] = folder
    size = write_clips(pathlib.Path(folder, 'MSRVTT'), args.clips)
    began = time.perf_counter()
    msrvtt_frames.prepare(split='test_1ka', storage='records', progress=False)
    prepared = time.perf_counter() - began
    common = dict(split='test_1ka', max_frames=12, image_size=224)
    rows = [
      measure(
        dict(common, storage=storage, transform=transform, num_threads=threads),
        args.repeats,
      )
      for storage in ('files', 'records')
      for transform in ('exact', 'fast')
      for threads in (1, 2)
    ]
  machine.write(
    'eercf_input',
    dict(
      clips=args.clips,
      jpegs=JPEGS,
      jpeg_size=[WIDTH, HEIGHT],
      jpeg_bytes=size,
      frames=common['max_frames'],
      image_size=common['image_size'],
      prepare_seconds_per_clip=prepared / args.clips,
      ways=rows,
    ),
  )


if __name__ == '__main__':
  main()
