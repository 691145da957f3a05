# SPDX-License-Identifier: Apache-2.0
"""Records of encoded frames: what decides them, and how they are read.

`<data>/records/frames/<dataset>-<split>-...-<hash>/1.0.0` holds everything that
training and evaluation read, captions included, so the published files are not
needed once it is written; see `builder`.
"""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np

from vidret_jax.data import store as records_store
from vidret_jax.data.frames import captions as captions_lib
from vidret_jax.data.frames import files
from vidret_jax.data.frames import select as select_lib
from vidret_jax.data.frames.published import Place
from vidret_jax.data.shapes import corpus

VERSION = '1.0.0'
SPLIT = 'clips'  # A folder holds one split of its dataset.


@dataclasses.dataclass(frozen=True)
class Request:
  """What decides the contents of records.

  Attributes:
    dataset: its name in configs.
    split: which part of it.
    framerate: frames per second taken from video files.
    store_size: shorter side of these frames in pixels, at most.
    lossless: PNG instead of JPEG for these frames.
    files: (key, file) of whatever is not where it usually is.
  """

  dataset: str
  split: str
  framerate: int
  store_size: int
  lossless: bool
  files: tuple[tuple[str, str], ...]

  @property
  def name(self) -> str:
    """Of the builder config; equal requests have equal names."""
    digest = hashlib.sha1(
      json.dumps(dataclasses.asdict(self), sort_keys=True).encode()
    ).hexdigest()[:8]
    kind = 'png' if self.lossless else 'jpeg'
    return (
      f'{self.dataset}-{self.split}-{self.framerate}fps-{self.store_size}px-'
      f'{kind}-{digest}'
    )

  @property
  def folder(self) -> pathlib.Path:
    return corpus.data_root() / 'records' / 'frames' / self.name / VERSION


def request(
  where: Place,
  image_size: int,
  framerate: int,
  store_size: int | None,
  lossless: bool,
) -> Request:
  """The request of a config; see `sets.make` for the arguments.

  Raises:
    ValueError: a size or rate that is not positive.
  """
  size = store_size or image_size
  if size < 1 or framerate < 1:
    raise ValueError(
      f'store_size={size}, framerate={framerate}: expected 1 or more.'
    )
  read = where.published.splits[where.split]
  given = [(k, v) for k, v in where.paths.items() if k in read]
  given.append(('videos', where.clips))
  given += [('paraphrases', name) for name in where.paraphrases]
  return Request(
    where.published.name,
    where.split,
    framerate,
    size,
    bool(lossless),
    tuple(sorted((key, str(name)) for key, name in given if name)),
  )


class Opened:
  """Records of one split.

  Attributes:
    table: videos and captions.
    paths: per video, the file or folder it was made from, or None.
    unreadable: id -> why a video has no frames.
  """

  def __init__(self, folder: pathlib.Path):
    found = json.loads((folder / 'metadata.json').read_text())
    self.table = captions_lib.Table.from_json(found['table'])
    self.paths = found['paths']
    self.unreadable = found['unreadable']
    self._folder = folder
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    self._data = builder.as_data_source(split=SPLIT)

  def read(
    self, video: int, *, size, max_frames, select, order, transform
  ) -> np.ndarray:
    """Frames of one video; decodes those that are kept.

    Args:
      video: row of the table.
      size: see `files.read`, as are max_frames to transform.
      max_frames: see `files.read`.
      select: see `files.read`.
      order: see `files.read`.
      transform: see `files.read`.

    Raises:
      files.UnreadableClip: damaged frames.
    """
    record = self._data[video]
    end = np.cumsum(record['lengths'], dtype=np.int64)
    chosen = select_lib.reduce(len(end), max_frames, select, order)
    blob = memoryview(np.ascontiguousarray(record['frames']))
    begin = end - record['lengths']
    blobs = [bytes(blob[begin[i] : end[i]]) for i in chosen.tolist()]
    try:
      return files.decode(blobs, size, transform)
    except files.UnreadableClip as error:
      raise files.UnreadableClip(
        f'{self._folder}: record {video}: {error}'
      ) from None


def open_records(ask: Request, where: Place) -> Opened:
  """Opens records.

  Raises:
    MissingRecords: they were not written, or not to the end.
  """
  folder = ask.folder
  if not folder.exists():
    there = 'is there' if where.root.is_dir() else 'is not there'
    raise records_store.MissingRecords(
      f'{ask.dataset}: no records for this config.\n'
      f'  expected: {folder}\n'
      f'  they are made from: {where.root} (which {there})\n'
      f'  published: {where.published.source}\n'
      '  next: python -m vidret_jax.tools.prepare --config <your config> '
      "[--manual_dir <folder of the published files>], or set storage='files'"
    )
  records_store.check_complete(str(folder))
  return Opened(folder)
