# SPDX-License-Identifier: Apache-2.0
r"""From JPEGs to pairs of views, as HAP-VR trains, without a model.

  python -m benchmarks.augment_input [--videos 16] [--repeats 3]

Makes folders of 70 JPEGs of 340 x 256, reads all of them, eight at a time, as
a weak and a strong view of 28 frames of 224 x 224, with all augmentations and
with fewer, by one thread and by two; and from a file of features. Video in
video is not in these times: it runs on the devices. Writes
benchmarks/results/augment_input.json.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import h5py
import numpy as np
from PIL import Image

from benchmarks import machine
from vidret_jax.data import vcdb

FRAMES, WIDTH, HEIGHT = 70, 340, 256
REGIONS, DIM, LABELS = 9, 512, 384
BATCH = 8
WAYS = {
  'all augmentations': ('GT', 'FT', 'TT', 'ViV'),
  'without overlays and blur': ('GT', 'TT', 'ViV'),
  'time and crops only': ('TT', 'ViV'),
}


def picture(rng):
  """Noise at several scales, which compresses about as a photograph does."""
  out = np.zeros((HEIGHT, WIDTH, 3), np.float32)
  for step in (1, 4, 16, 64):
    size = HEIGHT // step, WIDTH // step, 3
    noise = rng.standard_normal(size).astype(np.float32) * step**0.7
    planes = [
      Image.fromarray(np.ascontiguousarray(noise[..., c])).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
      )
      for c in range(3)
    ]
    out += np.stack(planes, axis=-1) * 2.5
  return Image.fromarray(np.clip(out + 128, 0, 255).astype(np.uint8))


def write_frames(root, videos):
  """Folders of frames; returns the mean bytes of a JPEG."""
  rng, sizes = np.random.default_rng(0), []
  pictures = [picture(rng) for _ in range(16)]
  for i in range(videos):
    folder = root / f'video{i:03d}'
    folder.mkdir(parents=True)
    for number in range(FRAMES):
      path = folder / f'{number:05d}.jpg'
      pictures[(i + number) % len(pictures)].save(path, quality=90)
      sizes.append(path.stat().st_size)
  return statistics.fmean(sizes)


def write_features(path, videos):
  """A file of features of as many videos."""
  rng = np.random.default_rng(0)
  with h5py.File(path, 'w') as file:
    for i in range(videos):
      for kind, shape in (('regions', (REGIONS, DIM)), ('labels', (LABELS,))):
        file[f'{kind}/video{i:03d}'] = rng.standard_normal(
          (FRAMES, *shape)
        ).astype(np.float16)


def measure(source, repeats, **what):
  """Reads all pairs some times; the first time finds no file in memory."""
  seconds, used = [], 0.0
  for turn in range(repeats + 1):
    began, worked = time.perf_counter(), time.process_time()
    for start in range(0, len(source), BATCH):
      index = np.arange(start, min(start + BATCH, len(source)))
      # Other seeds every time, as in training.
      batch = source.gather(index, index + 1000 * turn)
      assert batch['_mask'].all()
    if turn:
      seconds.append((time.perf_counter() - began) / len(source))
      used += (time.process_time() - worked) / len(source) / repeats
  best = min(seconds)
  return dict(
    **what,
    seconds_per_pair=best,
    all=seconds,
    processor_seconds_per_pair=used,
    clips_per_second=2 / best,
    clips_per_second_and_core=2 / used,
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--videos', type=int, default=16)
  parser.add_argument('--repeats', type=int, default=3)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    size = write_frames(root / 'frames', args.videos)
    write_features(root / 'features.hdf5', args.videos)
    rows = [
      measure(
        vcdb.make(
          root=root / 'frames', augment=dict(parts=parts), num_threads=threads
        ),
        args.repeats,
        way=way,
        threads=threads,
      )
      for way, parts in WAYS.items()
      for threads in (1, 2)
    ]
    cached = vcdb.make(features=root / 'features.hdf5')
    rows.append(measure(cached, args.repeats, way='features', threads=1))
  machine.write(
    'augment_input',
    dict(
      videos=args.videos,
      jpegs=FRAMES,
      jpeg_size=[WIDTH, HEIGHT],
      jpeg_bytes=size,
      window=28,
      image_size=224,
      ways=rows,
    ),
  )


if __name__ == '__main__':
  main()
