# SPDX-License-Identifier: Apache-2.0
"""mp4 files: H.264 and AAC, written and read with PyAV.

Written with one thread and libav's bit-exact flags, so that equal frames give
equal files.
"""

import os
import pathlib

import av
import numpy as np

from vidret_jax.data.shapes import script as script_lib

FPS, RATE = script_lib.FPS, script_lib.RATE


def write(path: str | os.PathLike, film: np.ndarray, sound: np.ndarray) -> None:
  """Writes one clip; a killed write leaves no file under `path`.

  Args:
    path: the .mp4 to make.
    film: uint8 [t, h, w, 3], even h and w, shown at 8 frames a second.
    sound: float32 [s] in [-1, 1], mono at 16 kHz.

  Raises:
    ValueError: no frame or no sound sample.
  """
  if not len(film) or not len(sound):
    raise ValueError(
      f'{path}: {len(film)} frames and {len(sound)} samples; a clip needs both.'
    )
  path = pathlib.Path(path)
  # A killed run's worker may still be at the same clip: do not share a file.
  part = path.with_suffix(f'.{os.getpid()}.part')
  options = {'fflags': '+bitexact', 'movflags': '+faststart'}
  with av.open(str(part), 'w', format='mp4', options=options) as box:
    video = box.add_stream('libx264', rate=FPS)
    video.height, video.width = film.shape[1:3]
    video.pix_fmt = 'yuv420p'
    video.thread_count = 1
    video.options = {
      'preset': 'veryfast', 'crf': '24', 'g': '24', 'threads': '1',
      'flags': '+bitexact',
    }  # fmt: skip
    audio = box.add_stream('aac', rate=RATE, layout='mono')
    audio.bit_rate = 32000
    audio.thread_count = 1
    audio.options = {'aac_coder': 'fast', 'flags': '+bitexact'}
    for image in film:
      box.mux(video.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
    box.mux(video.encode())
    for start in range(0, len(sound), 1024):
      frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(sound[None, start : start + 1024]),
        'fltp',
        layout='mono',
      )
      frame.sample_rate, frame.pts = RATE, start
      box.mux(audio.encode(frame))
    box.mux(audio.encode())
  os.replace(part, path)


def read(
  path: str | os.PathLike, pix_fmt: str = 'yuv420p'
) -> tuple[np.ndarray, np.ndarray]:
  """Decodes one clip whole.

  Args:
    path: an mp4.
    pix_fmt: 'rgb24' gives [t, h, w, 3]; 'yuv420p' the planes one above the
      other, [t, 3 h / 2, w].

  Returns:
    (uint8 frames, float32 [s] first channel of the sound).

  Raises:
    ValueError: the file has no picture or no sound.
  """
  film, sound = [], []
  with av.open(str(path)) as box:
    if not box.streams.video or not box.streams.audio:
      raise ValueError(f'{path} lacks a video or an audio stream.')
    box.streams.video[0].thread_count = 1
    for frame in box.decode(video=0, audio=0):
      if isinstance(frame, av.VideoFrame):
        film.append(frame.to_ndarray(format=pix_fmt))
      else:
        sound.append(frame.to_ndarray()[0])
  if not film or not sound:
    raise ValueError(f'{path} decodes to no frame or no sound.')
  return np.stack(film), np.concatenate(sound).astype(np.float32)
