# SPDX-License-Identifier: Apache-2.0
"""How fast `tools.extract` reads videos, and sees regions, on one core.

  python -m benchmarks.extract_speed

Two parts that a machine does at the same time: decoding, of which all frames of
a file have to be done to have one a second, and the networks. Seconds are those
of the processor, so that others on the machine matter less. Weights are drawn;
they make no difference to time. The original makes 8 frames/s of regions
and 9 of labels on one core of a machine of this kind (PyTorch 2.13).
"""

import argparse
import os
import pathlib
import tempfile
import time

import av
import jax
import numpy as np

from benchmarks import machine
from vidret_jax.data.copies import frame_folders, video_frames
from vidret_jax.tools import extract_networks

_SECONDS, _RATE = 20, 25
_SIZES = {'360p': (640, 360), '720p': (1280, 720)}


def film(path, size, seed=0):
  """H.264 with what is hard to compress: noise in motion over a picture."""
  rng = np.random.default_rng(seed)
  width, height = size
  coarse = rng.integers(0, 255, (height // 8 + 40, width // 8 + 40, 3))
  picture = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=_RATE)
    stream.width, stream.height = size
    stream.pix_fmt = 'yuv420p'
    for i in range(_SECONDS * _RATE):
      at = i % 256
      pixels = picture[at : at + height, at : at + width]
      noise = rng.integers(0, 16, pixels.shape, dtype=np.uint8)
      frame = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(pixels // 2 + noise), format='rgb24'
      )
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def fastest(call, repeats):
  """Processor seconds of the fastest of some runs."""
  times = []
  for i in range(repeats):
    began = time.process_time()
    call(i)
    times.append(time.process_time() - began)
  return min(times)


def decoding(folder, repeats):
  """Of files of two sizes: to pixels, and to folders of JPEGs."""
  out = {}
  for name, size in _SIZES.items():
    path = film(folder / f'{name}.mp4', size)
    pixels = fastest(
      lambda _, path=path: video_frames.read(path, min_frames=1), repeats
    )
    jpeg = fastest(
      lambda i, path=path: frame_folders.write(
        path, folder, f'{path.stem}_{i}'
      ),
      repeats,
    )
    out[name] = dict(
      seconds_of_video=_SECONDS,
      frames_in_file=_SECONDS * _RATE,
      bytes=path.stat().st_size,
      decoded_frames_per_second=_SECONDS * _RATE / pixels,
      frames_per_second=_SECONDS / pixels,
      frames_per_second_to_jpeg=_SECONDS / jpeg,
    )
  return out


def seeing(batch, repeats):
  """Frames per second of the published networks."""
  out = dict(batch=batch)
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
  for labels in (False, True):
    spec = extract_networks.spec(
      None, labels=labels, parts={}, untrained=True, batch=batch
    )
    networks = extract_networks.Networks(spec)
    networks(frames)  # Compiles.
    seconds = fastest(lambda _, n=networks: n(frames), repeats)
    name = 'regions_and_labels' if labels else 'regions'
    out[f'{name}_frames_per_second'] = batch / seconds
  return out


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--repeats', type=int, default=3)
  args = parser.parse_args()
  # Before JAX counts them: figures are those of one core.
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  with tempfile.TemporaryDirectory() as folder:
    results = dict(
      cores=1,
      decoding=decoding(pathlib.Path(folder), args.repeats),
      networks=seeing(args.batch, args.repeats),
      device=jax.devices()[0].device_kind,
    )
  machine.write('extract_speed', results)


if __name__ == '__main__':
  main()
