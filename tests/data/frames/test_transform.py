# SPDX-License-Identifier: Apache-2.0
"""Resizing: exact against the rule, fast against exact; hostile images."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from tests.data.frames import pictures
from vidret_jax.data.frames import transform


def kernel(x):
  """Bicubic, a = -1/2."""
  x = np.abs(x)
  near = (1.5 * x - 2.5) * x * x + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0))


def one_pass(pixels, out):
  """Resizes axis 0 of uint8 [n, ...] in fixed point, as the spec writes it."""
  n = len(pixels)
  if n == out:
    return pixels
  scale = n / out
  wide = max(scale, 1.0)
  rows = []
  for x in range(out):
    centre = (x + 0.5) * scale
    low = max(int(centre - 2 * wide + 0.5), 0)
    high = min(int(centre + 2 * wide + 0.5), n)
    weight = kernel((np.arange(low, high) - centre + 0.5) / wide)
    weight = weight / weight.sum() * (1 << 22)
    fixed = np.trunc(weight + np.copysign(0.5, weight)).astype(np.int64)
    total = np.tensordot(fixed, pixels[low:high].astype(np.int64), 1)
    rows.append(np.clip((total + (1 << 21)) >> 22, 0, 255))
  return np.stack(rows).astype(np.uint8)


def by_the_rule(pixels, size):
  height, width = pixels.shape[:2]
  if width <= height:
    height, width = int(size * height / width), size
  else:
    height, width = size, int(size * width / height)
  pixels = one_pass(pixels.swapaxes(0, 1), width).swapaxes(0, 1)
  pixels = one_pass(pixels, height)
  top = int(round((height - size) / 2.0))
  left = int(round((width - size) / 2.0))
  return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize(
  'shape',
  [
    *((45, 60), (60, 45), (33, 97), (32, 32), (20, 28), (32, 75), (64, 64)),
    # Taller than 2:1, where some releases of Pillow begin with the rows.
    *((150, 40), (100, 33), (9, 9), (1, 5)),
  ],
)
def test_exact_is_the_rule(shape):
  pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
  for size in (32, 15):
    np.testing.assert_array_equal(
      transform.resize(pixels, size), by_the_rule(pixels, size)
    )


def test_exact_is_one_call_of_pillow_and_a_crop():
  pixels = pictures.natural(240, 320)
  whole = Image.fromarray(pixels).resize((298, 224), Image.Resampling.BICUBIC)
  want = np.asarray(whole)[:, 37:261]
  np.testing.assert_array_equal(transform.resize(pixels, 224), want)
  blob = pictures.encode(pixels, 'PNG')
  np.testing.assert_array_equal(transform.decode(blob, 224), want)


@pytest.mark.parametrize(
  'shape', [(240, 320), (320, 240), (480, 640), (720, 1280), (224, 224)]
)
def test_fast_is_near_exact(shape, record_property):
  """The deviation that `transform.py` quotes."""
  blob = pictures.encode(pictures.natural(*shape, seed=1), quality=90)
  exact = transform.decode(blob, 224).astype(int)
  gap = np.abs(transform.decode(blob, 224, 'fast') - exact)
  record_property('grey levels', f'mean {gap.mean():.2f} max {gap.max()}')
  assert gap.mean() < 0.5 and gap.max() <= 20


def test_fast_of_pixels_is_near_exact():
  pixels = pictures.natural(240, 320)
  exact = transform.resize(pixels, 224).astype(int)
  gap = np.abs(transform.resize(pixels, 224, 'fast') - exact)
  assert 0 < gap.mean() < 0.5 and gap.max() <= 20


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'LA', '1', 'CMYK', 'YCbCr'])
def test_other_modes_become_rgb(mode):
  image = Image.fromarray(pictures.natural(40, 50)).convert(mode)
  format = 'JPEG' if mode in ('L', 'CMYK', 'YCbCr') else 'PNG'
  blob = pictures.encode(image, format)
  with Image.open(io.BytesIO(blob)) as stored:
    want = transform.resize(np.asarray(stored.convert('RGB')), 32)
  np.testing.assert_array_equal(transform.decode(blob, 32), want)
  assert transform.decode(blob, 32, 'fast').shape == (32, 32, 3)


def test_turned_by_its_camera():
  pixels = pictures.natural(40, 60)
  exif = Image.Exif()
  exif[0x0112] = 6  # Turn a quarter clockwise to see it upright.
  blob = pictures.encode(pixels, 'PNG', exif=exif)
  np.testing.assert_array_equal(
    transform.decode(blob, 24), transform.resize(np.rot90(pixels, -1), 24)
  )


def png_header(width, height):
  """A PNG that claims a size and holds nothing."""
  head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  out = b'\x89PNG\r\n\x1a\n'
  for kind, body in ((b'IHDR', head), (b'IDAT', b''), (b'IEND', b'')):
    crc = zlib.crc32(kind + body)
    out += struct.pack('>I', len(body)) + kind + body + struct.pack('>I', crc)
  return out


def sixteen_bits():
  return pictures.encode(Image.fromarray(np.zeros((9, 9), np.uint16)), 'PNG')


def cut():
  return pictures.encode(pictures.natural(40, 50))[:-200]


@pytest.mark.parametrize('name', transform.TRANSFORMS)
@pytest.mark.parametrize(
  'blob, message',
  [
    (b'', 'cannot be decoded'),
    (b'GIF89a' + bytes(99), 'cannot be decoded'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n', 'cannot be decoded'),
    (cut(), 'cannot be decoded.*truncated'),
    (sixteen_bits(), 'pixels of mode I;16, expected 8 bits'),
    (png_header(1 << 20, 1 << 20), 'bomb'),
    (png_header(9_000, 9_000), '9000 x 9000 pixels'),
    (png_header(1, 1_000_000), '1 x 1000000 pixels need'),
    (png_header(0, 5), '0 x 5|cannot be decoded'),
  ],
  ids='empty gif eps cut 16bit huge large tall flat'.split(),
)
def test_refuses(blob, message, name):
  with pytest.raises(transform.UnreadableImage, match=message):
    transform.decode(blob, 224, name)


def test_unknown_transform():
  with pytest.raises(ValueError, match="transform='best'.*exact"):
    transform.decode(cut(), 32, 'best')
  with pytest.raises(ValueError, match="transform='best'.*exact"):
    transform.resize(pictures.natural(40, 50), 32, 'best')
