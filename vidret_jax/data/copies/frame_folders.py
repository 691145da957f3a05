# SPDX-License-Identifier: Apache-2.0
"""Videos to folders of frames: `<out>/<video>/00000.jpg`, `00001.jpg`, ...

The layout of HAP-VR's `tools/extract_frames.py` (https://github.com/yafeng19/
HAP-VR), which `data.vcdb` reads.
"""

import os
import pathlib
import shutil
import uuid

from vidret_jax.data.copies import video_frames
from vidret_jax.data.frames import encode
from vidret_jax.data.frames import video as video_lib

HIDDEN = '.extract'  # Below the folder of the videos; readers pass over it.


def is_done(out: str | os.PathLike, name: str) -> bool:
  """Whether a video has its folder, which is whole then."""
  return pathlib.Path(out, name).is_dir()


def write(
  path: str | os.PathLike,
  out: str | os.PathLike,
  name: str,
  *,
  fps: float = 1.0,
  shorter_side: int | None = None,
  quality: int = encode.QUALITY,
) -> int:
  """Writes the frames of one video; its folder appears when all are there.

  Args:
    path: of the video.
    out: folder of the folders.
    name: of the new one.
    fps: frames per second.
    shorter_side: pixels that larger frames are shrunk to; None: none is.
    quality: of the JPEG files.

  Returns:
    How many frames.

  Raises:
    video_lib.UnreadableVideo: it cannot be decoded.
    OSError: it cannot be written.
  """

  def finish(frame):
    return encode.image(video_lib.rgb(frame), shorter_side, False, quality)

  # A name of its own: several may try the same video, and one will be first.
  temporary = pathlib.Path(out, HIDDEN, uuid.uuid4().hex)
  temporary.mkdir(parents=True)
  try:
    count = 0
    for blob in video_frames.ticks(path, finish, fps=fps):
      (temporary / f'{count:05d}.jpg').write_bytes(blob)
      count += 1
    try:
      temporary.rename(pathlib.Path(out, name))
    except OSError:
      if not is_done(out, name):
        raise
    return count
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def clean(out: str | os.PathLike) -> None:
  """Removes what a killed run left half done; no other may be running."""
  for path in pathlib.Path(out, HIDDEN).glob('*'):
    if path.is_dir():
      shutil.rmtree(path, ignore_errors=True)
