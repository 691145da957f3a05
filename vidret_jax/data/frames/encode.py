# SPDX-License-Identifier: Apache-2.0
"""The frames of a clip as encoded images, to be stored."""

import io
import pathlib

import numpy as np
from PIL import Image

from vidret_jax.data.frames import files, video
from vidret_jax.data.frames import select as select_lib
from vidret_jax.data.frames import transform as transform_lib

QUALITY = 95


def frames(
  path: pathlib.Path,
  span: tuple[int, int] | None,
  framerate: int,
  size: int,
  lossless: bool,
) -> list[bytes]:
  """All frames that a clip's reduction to `max_frames` may choose from.

  Args:
    path: a folder of JPEGs or a video file.
    span: (start, end) in seconds of a video file, or None.
    framerate: frames per second taken from a video file.
    size: shorter side that frames of a video file are shrunk to.
    lossless: stores these as PNG, not as JPEG of quality 95.

  Returns:
    The bytes of a folder's files, at most 256 of them, or encoded images.

  Raises:
    files.UnreadableClip: see `files.read`.
  """
  if path.is_dir():
    blobs = files.encoded(path)
    try:
      files.decode(blobs, 16)  # A damaged file is better found now.
    except files.UnreadableClip as error:
      raise files.UnreadableClip(f'{path}: {error}') from None
    return blobs

  def numbers(facts, readable):
    try:
      return select_lib.seconds(
        facts.fps, facts.reported, framerate, *(span or (None, None)), readable
      )
    except ValueError as error:
      raise video.UnreadableVideo(str(error)) from None

  try:
    found = video.read(
      path, numbers, lambda pixels: image(pixels, size, lossless), size
    )
  except (video.UnreadableVideo, transform_lib.UnreadableImage) as error:
    raise files.UnreadableClip(f'{path}: {error}') from None
  if not found:
    raise files.UnreadableClip(f'{path}: no frame in seconds {span}')
  return found


def image(
  pixels: np.ndarray, size: int | None, lossless: bool, quality: int = QUALITY
) -> bytes:
  """One frame as the bytes of a file.

  Args:
    pixels: uint8 [h, w, 3].
    size: shorter side to shrink to, if it is longer; None: never.
    lossless: PNG, not JPEG.
    quality: of JPEG.
  """
  picture = Image.fromarray(pixels)
  width, height = picture.size
  if size is not None and min(width, height) > size:
    # As `transform` does it, so that what is read there at this size is the
    # same: columns first, the longer side truncated.
    if width <= height:
      target = size, int(size * height / width)
    else:
      target = int(size * width / height), size
    bicubic = Image.Resampling.BICUBIC
    picture = picture.resize((target[0], height), bicubic)
    picture = picture.resize(target, bicubic)
  out = io.BytesIO()
  if lossless:
    picture.save(out, 'PNG')
  else:
    # Colours in full resolution: the frames are small already.
    picture.save(out, 'JPEG', quality=quality, subsampling=0)
  return out.getvalue()
