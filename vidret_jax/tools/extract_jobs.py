# SPDX-License-Identifier: Apache-2.0
"""What `tools.extract` does with some videos, on whatever machine.

A job is plain values, so that a worker of a pipeline can have it. It leaves
what it makes below its output, where whoever started it looks afterwards.
"""

from collections.abc import Callable, Iterator, Mapping
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import time
from typing import Any
import uuid

import numpy as np

from vidret_jax.data import whole_files
from vidret_jax.data.copies import feature_parts, frame_folders, video_frames
from vidret_jax.data.frames import encode
from vidret_jax.data.frames import store as store_lib
from vidret_jax.data.frames import video as video_lib
from vidret_jax.tools import copies_eyes, extract_networks

Look = Callable[[str], None]  # Is told each video that was looked at.
_PART_BYTES = 256 << 20  # What one part holds at most, ...
_PART_SECONDS = 120  # ... and how much time a kill can cost.
_PIECE = 32  # Frames that a decoder hands over at a time.


@dataclasses.dataclass
class Result:
  """What is there after a job.

  Attributes:
    done: videos that are extracted.
    unreadable: video -> why it could not be read.
  """

  done: set[str]
  unreadable: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Frames:
  """Videos to folders of JPEG files.

  Attributes:
    videos: folder of the videos.
    out: folder of the folders.
    fps: frames per second.
    shorter_side: pixels that larger frames are shrunk to; None: none is.
    quality: of JPEG.
    threads: videos at a time; None: one per core.
    names: rule by which videos were named; by two of them a video would be
      there twice.
  """

  videos: str
  out: str
  fps: float = 1.0
  shorter_side: int | None = None
  quality: int = encode.QUALITY
  threads: int | None = None
  names: str = 'stem'

  @contextlib.contextmanager
  def begun(self) -> Iterator[None]:
    """Makes the folder, or goes on in it.

    Raises:
      ValueError: it was begun with other settings, nobody knows with which, or
        is in use.
    """
    settings = dataclasses.asdict(self)
    for name in ('out', 'threads', 'videos'):
      settings.pop(name)
    out = pathlib.Path(self.out)
    hidden = out / frame_folders.HIDDEN
    # A folder counts as a video that is done.
    if out.is_dir() and not hidden.exists():
      if any(path.is_dir() for path in out.iterdir()):
        raise ValueError(
          f'{out}: holds folders, and nothing says how their frames were made. '
          'Name another folder.'
        )
    with feature_parts.begun(hidden, settings):
      frame_folders.clean(self.out)
      for file in hidden.glob('unreadable-*.json'):
        file.unlink()  # They are tried again.
      yield

  def result(self, names: Mapping[str, str]) -> Result:
    """What is there of {id: path below the folder}."""
    bad: dict[str, str] = {}
    for file in pathlib.Path(self.out, frame_folders.HIDDEN).glob(
      'unreadable-*.json'
    ):
      bad |= whole_files.read_json(file, dict)
    done = {name for name in names if frame_folders.is_done(self.out, name)}
    return Result(done, {k: v for k, v in bad.items() if k not in done})

  def extract(self, names: Mapping[str, str], look: Look) -> None:
    """Writes {id: path below the folder}."""
    unreadable = {}

    def write(item):
      name, path = item
      if not frame_folders.is_done(self.out, name):
        try:
          frame_folders.write(
            os.path.join(self.videos, path),
            self.out,
            name,
            fps=self.fps,
            shorter_side=self.shorter_side,
            quality=self.quality,
          )
        except video_lib.UnreadableVideo as error:
          unreadable[name] = f'{path} {error}'
      look(name)

    threads = self.threads or store_lib.cores()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
      running = [pool.submit(write, item) for item in names.items()]
      try:
        for one in concurrent.futures.as_completed(running):
          one.result()
      except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    if unreadable:
      hidden = pathlib.Path(self.out, frame_folders.HIDDEN)
      file = hidden / f'unreadable-{uuid.uuid4().hex}.json'
      whole_files.write_json(file, unreadable)

  def finish(self, result: Result, look: Look) -> None:
    """Nothing is left to do."""
    del result, look


@dataclasses.dataclass(frozen=True)
class Regions:
  """Videos to features in HDF5.

  Attributes:
    videos: folder of the videos.
    out: file.
    networks: that look at frames.
    fps: frames per second.
    resize: shorter side of a frame.
    crop: side of the square that is cut out of its middle.
    dtype: of the features, 'float32' or 'float16'.
    layout: of the file, see `feature_parts.LAYOUTS`.
    max_frames: of a video; a longer one counts as unreadable.
    overwrite: replace the file, if it is there.
    threads: that decode; None: one per core.
  """

  videos: str
  out: str
  networks: extract_networks.Spec
  fps: float = 1.0
  resize: int = video_frames.RESIZE
  crop: int = video_frames.CROP
  dtype: str = 'float32'
  layout: str = 'flat'
  max_frames: int = 86_400
  overwrite: bool = False
  threads: int | None = None

  @property
  def _parts(self):
    return feature_parts.Parts(self.out)

  @contextlib.contextmanager
  def begun(self) -> Iterator[None]:
    """Makes the folder of parts, or goes on in it.

    Raises:
      FileExistsError: the file is there.
      ValueError: parts were begun with other settings, or are in use.
    """
    whole_files.refuse_existing(self.out, self.overwrite)
    names = ('fps', 'resize', 'crop', 'dtype', 'max_frames')
    settings = {name: getattr(self, name) for name in names}
    with self._parts.begun(settings | self.networks.settings()):
      yield

  def result(self, names: Mapping[str, str]) -> Result:
    """What the parts have of {id: path below the folder}."""
    done = self._parts.done()
    bad = {k: v for k, v in done.unreadable.items() if k in names}
    return Result(set(done.frames) & set(names), bad)

  def extract(self, names: Mapping[str, str], look: Look) -> None:
    """Writes {id: path below the folder} into new parts."""
    networks = extract_networks.networks(self.networks)
    pieces = copies_eyes.Pieces(
      {name: os.path.join(self.videos, path) for name, path in names.items()},
      copies_eyes.Frames(self.fps, self.resize, self.crop, min_frames=1),
      piece=_PIECE,
      num_threads=self.threads,
    )
    stream = of_videos(networks, pieces, np.dtype(self.dtype), self.max_frames)
    more = True
    while more:
      more, began = False, time.monotonic()
      with self._parts.write() as part:
        for name, found in stream:
          if isinstance(found, str):
            part.unreadable[name] = f'{names[name]} {found}'
          else:
            part.add(name, found)
          look(name)
          late = time.monotonic() - began > _PART_SECONDS
          if late or part.size > _PART_BYTES:
            more = True
            break

  def finish(self, result: Result, look: Look) -> None:
    """Joins the parts."""
    done = self._parts.done()
    for name in set(done.frames) - result.done:
      del done.frames[name], done.part[name]
    self._parts.join(self.layout, done, self.overwrite, look)


def of_videos(
  networks: extract_networks.Networks,
  pieces: copies_eyes.Pieces,
  dtype: np.dtype,
  max_frames: int,
) -> Iterator[tuple[str, dict[str, np.ndarray] | str]]:
  """Features of videos; frames of several are looked at together.

  Args:
    networks: that look at frames.
    pieces: of the videos.
    dtype: of the features.
    max_frames: of a video.

  Yields:
    (video, features [t, ...] by kind), or (video, why it could not be read).
  """
  rows: list[tuple[str, np.ndarray]] = []  # Frames not yet looked at.
  found: dict[str, list[dict[str, np.ndarray]]] = {}
  count: dict[str, int] = {}
  ended: list[str] = []

  def run():
    batch, names = rows[: networks.batch], {}
    del rows[: networks.batch]
    out = networks(np.stack([x for _, x in batch]))
    for i, (name, _) in enumerate(batch):
      names.setdefault(name, []).append(i)
    for name, at in names.items():
      part = {k: x[at].astype(dtype) for k, x in out.items()}
      found.setdefault(name, []).append(part)

  def whole():
    waiting = {name for name, _ in rows}
    while ended and ended[0] not in waiting:
      yield ended[0], _joined(ended[0])
      ended.pop(0)

  def _joined(name):
    parts, total = found.pop(name, []), count.pop(name, 0)
    if name in pieces.unreadable:
      return pieces.unreadable[name]
    if total > max_frames:
      return f'has {total} frames, more than {max_frames} (--max_frames)'
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}

  for name, piece in pieces:
    if piece is None:
      ended.append(name)
    else:
      count[name] = count.get(name, 0) + len(piece)
      if count[name] <= max_frames:
        rows += [(name, frame) for frame in piece]
      while len(rows) >= networks.batch:
        run()
    yield from whole()
  while rows:
    run()
  yield from whole()


def settings_of(job: Frames | Regions) -> dict[str, Any]:
  """A job as JSON values, for the report of a run."""
  return json.loads(json.dumps(dataclasses.asdict(job)))
