# SPDX-License-Identifier: Apache-2.0
"""Pictures and video files to test with."""

import io

import av
import numpy as np
from PIL import Image


def natural(height, width, seed=0):
  """uint8 [h, w, 3] with edges and the spectrum of photographs."""
  rng = np.random.default_rng(seed)
  out = np.zeros((height, width, 3), np.float32)
  for k in (4, 8, 16, 32, 64, 128):
    shape = np.maximum(np.array([height, width]) * k // min(height, width), 2)
    noise = rng.normal(size=(3, *shape)).astype(np.float32)
    for channel, values in enumerate(noise):
      layer = Image.fromarray(values).resize((width, height), 3)
      out[..., channel] += np.asarray(layer) / k**0.9
  for _ in range(12):
    y, x = rng.integers(0, height), rng.integers(0, width)
    out[y : y + height // 5, x : x + width // 6] += rng.normal(0, 0.4, 3)
  out = (out - out.mean()) / out.std() * 55 + 125
  return np.clip(out, 0, 255).astype(np.uint8)


def encode(pixels, format='JPEG', **options):
  """The bytes of an image file."""
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  out = io.BytesIO()
  image.save(out, format, **options)
  return out.getvalue()


def grey_level(number):
  """The grey level of frame `number` of `write_video`."""
  return 20 + 6 * number


def numbers(frames):
  """The numbers that uint8 [n, h, w, 3] of `write_video` show."""
  levels = frames.reshape(len(frames), -1).mean(1)
  return np.rint((levels - 20) / 6).astype(int).tolist()


def write_video(
  path, count, rate=5, codec='mpeg4', size=(48, 32), options=None, **context
):
  """A video whose frames show their own number as a grey level, count < 39."""
  with av.open(str(path), 'w', options=options or {}) as container:
    stream = container.add_stream(codec, rate=rate)
    stream.width, stream.height = size
    stream.bit_rate = 8_000_000  # Or a codec leaves small changes out.
    stream.pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
    for key, value in context.items():
      setattr(stream.codec_context, key, value)
    for i in range(count):
      pixels = np.full((size[1], size[0], 3), grey_level(i), np.uint8)
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path
