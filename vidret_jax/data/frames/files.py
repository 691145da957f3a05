# SPDX-License-Identifier: Apache-2.0
"""Clips on disk: a folder of numbered JPEGs, or a video file."""

from collections.abc import Mapping, Sequence
import functools
import os
import pathlib

import numpy as np

from vidret_jax.data.frames import select as select_lib
from vidret_jax.data.frames import transform as transform_lib
from vidret_jax.data.frames import video

_MAX_FILE = 64 << 20  # Bytes of one frame's file.
_PREFERRED = {suffix: i for i, suffix in enumerate(video.SUFFIXES)}


class UnreadableClip(ValueError):
  """A clip that cannot be read: names the file and says why.

  Evaluations mask such a clip and count it; nothing is made up for it.
  """


def read(
  path: str | os.PathLike[str],
  *,
  size: int = 224,
  max_frames: int = 12,
  select: str = 'uniform',
  order: str = 'as_is',
  framerate: int = 1,
  start: float | None = None,
  end: float | None = None,
  transform: str = 'exact',
  rng: np.random.Generator | None = None,
) -> np.ndarray:
  """The frames of a clip; only these are decoded and resized.

  Args:
    path: a folder of `<anything>_<integer>.jpg` or a video file.
    size: R, side of the frames in pixels.
    max_frames: frames to return at most.
    select: 'first', 'last' or 'uniform'; see `select.reduce`.
    order: 'as_is', 'reversed' or 'shuffled'.
    framerate: frames per second of a video file that are looked at; of a
      folder all are.
    start, end: seconds of a video file; see `select.seconds`.
    transform: 'exact' or 'fast'; see `transform.py`.
    rng: for 'shuffled'.

  Returns:
    uint8 [n, R, R, 3] RGB, 1 <= n <= max_frames.

  Raises:
    UnreadableClip: absent, empty, damaged or not a clip.
    ValueError: an option that nothing can be read with.
  """
  select_lib.check(max_frames, select, order)
  select_lib.check_part(framerate, start, end)
  transform_lib.check(transform)
  path = pathlib.Path(path)

  def chosen(n):
    return select_lib.reduce(n, max_frames, select, order, rng)

  if path.is_dir():
    blobs = _folder(path, chosen)
    return _decode(blobs, [path / name for name in blobs], size, transform)
  if not path.is_file():
    raise UnreadableClip(f'{path}: no such folder or video file')

  def numbers(facts, readable):
    try:
      looked_at = select_lib.seconds(
        facts.fps, facts.reported, framerate, start, end, readable
      )
    except ValueError as e:
      raise video.UnreadableVideo(str(e)) from None
    return looked_at[chosen(len(looked_at))]

  try:
    frames = video.read(
      path,
      numbers,
      lambda pixels: transform_lib.resize(pixels, size, transform),
      size,
    )
  except (video.UnreadableVideo, transform_lib.UnreadableImage) as e:
    raise UnreadableClip(f'{path}: {e}') from None
  if not frames:
    raise UnreadableClip(f'{path}: no frame between {start} s and {end} s')
  return np.stack(frames)


def decode(
  blobs: Sequence[bytes], size: int = 224, transform: str = 'exact'
) -> np.ndarray:
  """Encoded frames, as records hold them.

  Args:
    blobs: n JPEG (or PNG, BMP, WebP) files.
    size: R, side of the frames in pixels.
    transform: 'exact' or 'fast'.

  Returns:
    uint8 [n, R, R, 3] RGB.

  Raises:
    UnreadableClip: a frame cannot be decoded, or there is none.
  """
  names = [f'frame {i} of {len(blobs)}' for i in range(len(blobs))]
  return _decode(blobs, names, size, transform)


def encoded(
  path: str | os.PathLike[str],
  *,
  max_frames: int | None = None,
  select: str = 'uniform',
) -> list[bytes]:
  """The encoded frames of a folder, in order; for records.

  Args:
    path: a folder of `<anything>_<integer>.jpg`.
    max_frames: frames to return at most; None: all that `select.folder` keeps.
    select: 'first', 'last' or 'uniform'.

  Returns:
    The bytes of each frame's file.

  Raises:
    UnreadableClip: absent, empty, or a frame's file is too large.
  """

  def chosen(n):
    return (
      np.arange(n)
      if max_frames is None
      else select_lib.reduce(n, max_frames, select)
    )

  return list(_folder(pathlib.Path(path), chosen).values())


def find(root: str | os.PathLike[str], video_id: str) -> pathlib.Path | None:
  """The clip of an id: `<id>.mp4`, `<id>.avi`, a folder or file `<id>`.

  Args:
    root: the folder of the clips.
    video_id: the id; one that would lead out of the folder has no clip.

  Returns:
    The path, or None.
  """
  if video_id in ('', '.', '..') or set(video_id) & set('/\\\0'):
    return None
  root = pathlib.Path(root)
  for name in (f'{video_id}.mp4', f'{video_id}.avi'):
    if (root / name).is_file():
      return root / name
  return root / video_id if (root / video_id).exists() else None


class Index:
  """The clips below a folder, by id.

  What `find` finds directly in the folder comes first, unless it is a folder
  without frames (a video may lie in one of its own). Further below, the id of
  a video file is its name without the last extension (ids contain dots),
  that of a folder of frames its name; where an id occurs twice, a video counts
  before a folder of frames, .mp4 before .avi before the others, and then the
  first path in alphabetical order.
  """

  def __init__(self, root: str | os.PathLike[str]):
    """Reads nothing below the folder until an id is not directly in it.

    Raises:
      ValueError: there is no such folder.
    """
    self._root = pathlib.Path(root)
    if not self._root.is_dir():
      raise ValueError(f'{root}: no such folder; it should hold the clips')

  def find(self, video_id: str) -> pathlib.Path | None:
    """The path of a clip.

    Args:
      video_id: the id. Where it ends in a video's extension (ids of DiDeMo are
        file names), a clip of the id without it will do.

    Returns:
      The path, or None.
    """
    stem, suffix = os.path.splitext(video_id)
    short = stem if suffix.lower() in _PREFERRED else video_id
    direct = find(self._root, video_id)
    if direct and not _is_bare(direct):
      return direct
    return self._below.get(video_id) or self._below.get(short) or direct

  @functools.cached_property
  def _below(self) -> dict[str, pathlib.Path]:
    found, visited = {}, set()
    # Collections are often put together from links; each folder counts once.
    for folder, folders, names in os.walk(self._root, followlinks=True):
      real = os.path.realpath(folder)
      if real in visited:
        folders.clear()
        continue
      visited.add(real)
      folders.sort()
      here = pathlib.Path(folder)
      ranked = [(_rank(name), here / name) for name in names]
      ranked = [(p.stem, (r, p)) for r, p in ranked if r is not None]
      if here != self._root and any(map(select_lib.is_frame, names)):
        ranked.append((here.name, (len(_PREFERRED), here)))
      for key, value in ranked:
        found[key] = min(found.get(key, value), value)
    return {key: path for key, (_, path) in found.items()}


def _is_bare(path):
  return path.is_dir() and not any(map(select_lib.is_frame, os.listdir(path)))


def _rank(name):
  return _PREFERRED.get(os.path.splitext(name)[1].lower())


def _folder(path, chosen):
  """{name: bytes} of the chosen frames of a folder, in their order."""
  try:
    names = select_lib.sort_names(
      [n for n in sorted(os.listdir(path)) if _may_be_frame(n)]
    )
    if not names:
      raise UnreadableClip(
        f'{path}: holds no frames, expected <anything>_<integer>.jpg'
      )
    kept = select_lib.folder(len(names))
    names = [names[i] for i in kept[chosen(len(kept))]]
    return {name: _bytes(path / name) for name in names}
  except UnreadableClip:
    raise
  except (OSError, ValueError) as e:
    raise UnreadableClip(f'{path}: {e}') from None


def _may_be_frame(name):
  """Leaves out what file browsers and scripts put beside frames."""
  return name.lower().endswith(('.jpg', '.jpeg')) and name[0] != '.'


def _bytes(path):
  if not path.is_file():
    raise UnreadableClip(f'{path}: is no file')
  size = path.stat().st_size
  if size > _MAX_FILE:
    raise UnreadableClip(
      f'{path}: has {size} bytes, expected at most {_MAX_FILE}'
    )
  return path.read_bytes()


def _decode(blobs, names, size, transform):
  """The frames one after the other; `names` are for messages."""
  frames = blobs.values() if isinstance(blobs, Mapping) else blobs
  if not len(names):
    raise UnreadableClip('holds no frames')
  out = np.empty((len(names), size, size, 3), np.uint8)
  for i, (blob, name) in enumerate(zip(frames, names)):
    try:
      out[i] = transform_lib.decode(blob, size, transform)
    except transform_lib.UnreadableImage as e:
      raise UnreadableClip(f'{name}: {e}') from None
  return out
