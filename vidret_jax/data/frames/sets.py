# SPDX-License-Identifier: Apache-2.0
"""The ways into a set of videos as frames: `make` opens it, `prepare` checks.

A dataset module adds a `Published`, to which it binds both functions.
"""

from collections.abc import Mapping, Sequence
import functools
import os
import pathlib

import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.data.frames import files as files_lib
from vidret_jax.data.frames import records, store, views
from vidret_jax.data.frames import select as select_lib
from vidret_jax.data.frames import transform as transform_lib
from vidret_jax.data.frames.published import Place, Published, place

STORAGES = ('files', 'records')
CACHES = (None, 'ram')


def make(
  published: Published,
  *,
  view: str,
  split: str,
  tokenizer: str | os.PathLike | None = None,
  vocab_size: int | None = None,
  max_frames: int = 12,
  image_size: int = 224,
  max_words: int = 32,
  select: str = 'uniform',
  frame_order: str = 'as_is',
  framerate: int = 1,
  transform: str = 'exact',
  captions: str = 'all',
  paraphrases: Sequence[str] = (),
  storage: str = 'files',
  store_size: int | None = None,
  lossless: bool = False,
  cache: str | None = None,
  cache_bytes: int = 0,
  num_threads: int | None = None,
  root: str | os.PathLike | None = None,
  videos: str | None = None,
  paths: Mapping[str, str] | Sequence[tuple[str, str]] = (),
) -> source_lib.Source:
  """Opens a view of a split.

  Args:
    published: the dataset.
    view: 'pairs', 'items' or 'queries'.
    split: one of `published.splits`.
    tokenizer: file for `tokenizer.load`; not needed for items.
    vocab_size: ids that the tokenizer must have; None takes any number. (A
      model looks up an id beyond its table without a word.)
    max_frames: frames of a clip at most.
    image_size: height and width of a frame.
    max_words: tokens of a row, start and end included.
    select: which frames of a clip with more; see `frames.select`.
    frame_order: 'as_is', 'reversed' or 'shuffled' (by the row's seed).
    framerate: frames per second read from video files; folders of frames are
      taken as they are.
    transform: see `frames.transform`.
    captions: 'all' or 'one', of the pairs; see `views.Pairs`.
    paraphrases: further caption files with the same rows, of which every row
      draws one. (Upstream's --multi_data_path reads them and trains on the
      first file only: none here.)
    storage: 'files' decodes the published files, 'records' what `prepare`
      made of them.
    store_size: of records: shorter side of frames taken from videos; None
      stores them at `image_size`.
    lossless: of records: PNG, not JPEG.
    cache: 'ram' keeps all decoded frames.
    cache_bytes: keeps decoded frames up to this size.
    num_threads: that decode the clips of a batch; one per core by default.
    root: folder of the dataset; `<data folder>/<published.folder>` by default,
      the data folder being VIDRET_DATA_DIR or `data`.
    videos: folder of the clips, relative to it.
    paths: key -> file, relative to it.

  Returns:
    A source, see `vidret_jax.data.source` and `frames.views`.

  Raises:
    ValueError: an unknown option, or annotations that contradict themselves.
    FileNotFoundError: files or records that are not there; says what to do.
  """
  for name, value, known in (
    ('view', view, views.VIEWS),
    ('storage', storage, STORAGES),
    ('cache', cache, CACHES),
  ):
    if value not in known:
      raise ValueError(f'Unknown {name}={value!r}; choose from {known}.')
  where = place(published, split, root, videos, paths, paraphrases)
  if storage == 'records':
    asked = records.request(where, image_size, framerate, store_size, lossless)
    opened = records.open_records(asked, where)
    table = opened.table
  else:
    opened, table = None, where.table()
  words = None
  if view != 'items':
    if tokenizer is None:
      raise ValueError(
        f'{published.name}: view {view!r} needs `tokenizer`, the path of '
        'bpe_simple_vocab_16e6.txt.gz (published with CLIP) or of a '
        'tokenizer.json.'
      )
    words = tokenizer_lib.load(tokenizer, vocab_size)
  if view == 'queries':
    return views.Queries(table, words, max_words=max_words)
  select_lib.check(max_frames, select, frame_order)
  transform_lib.check(transform)
  if framerate < 1:
    raise ValueError(f'framerate={framerate}: expected 1 or more.')
  fixed = {'size': image_size, 'max_frames': max_frames, 'select': select}
  fixed |= {'transform': transform, 'order': 'as_is'}
  if opened:
    found, unreadable = opened.paths, opened.unreadable
    fetch = functools.partial(opened.read, **fixed)
  else:
    found = where.find(table)
    unreadable = _absent(where, table, found)
    fetch = functools.partial(_read, table, found, framerate=framerate, **fixed)
  store.tell(unreadable)
  clips = store.Store(
    table.ids,
    found,
    fetch,
    shape=(max_frames, image_size, image_size, 3),
    unreadable=unreadable,
    cache_bytes=None if cache == 'ram' else cache_bytes,
    num_threads=num_threads,
  )
  if view == 'items':
    return views.Items(table, clips, order=frame_order)
  return views.Pairs(
    table,
    clips,
    words,
    max_words=max_words,
    captions=captions,
    order=frame_order,
  )


def _read(table, paths, video: int, **options) -> np.ndarray:
  start, end = table.spans[video] or (None, None)
  return files_lib.read(paths[video], start=start, end=end, **options)


def _absent(where: Place, table, found) -> dict[str, str]:
  folder = where.folder()
  return {
    video: f'no file or folder of this name in {folder}'
    for video, path in zip(table.ids, found, strict=True)
    if path is None
  }


def prepare(
  published: Published,
  *,
  split: str,
  image_size: int = 224,
  framerate: int = 1,
  paraphrases: Sequence[str] = (),
  storage: str = 'files',
  store_size: int | None = None,
  lossless: bool = False,
  num_threads: int | None = None,
  root: str | os.PathLike | None = None,
  videos: str | None = None,
  paths: Mapping[str, str] | Sequence[tuple[str, str]] = (),
  manual_dir: str | os.PathLike | None = None,
  overwrite: bool = False,
  keep: Sequence[pathlib.Path] = (),
  progress: bool = True,
) -> pathlib.Path:
  """Checks the files of a split and, for storage='records', writes records.

  Args:
    published: the dataset.
    split: see `make`, as are image_size to paths.
    image_size: see `make`.
    framerate: see `make`.
    paraphrases: see `make`.
    storage: see `make`; for 'files' everything is checked, nothing written.
    store_size: see `make`.
    lossless: see `make`.
    num_threads: see `make`.
    root: see `make`.
    videos: see `make`.
    paths: see `make`.
    manual_dir: replaces `root`.
    overwrite: makes records anew.
    keep: folders that `overwrite` must leave.
    progress: shows a bar on standard error.

  Returns:
    The folder of the records, or of the dataset.

  Raises:
    ValueError, FileNotFoundError: see `make`.
  """
  if storage not in STORAGES:
    raise ValueError(f'Unknown storage={storage!r}; choose from {STORAGES}.')
  where = place(
    published, split, manual_dir or root, videos, paths, paraphrases
  )
  if storage == 'records':
    from vidret_jax.data.frames import builder

    asked = records.request(where, image_size, framerate, store_size, lossless)
    return builder.write(
      asked,
      where,
      overwrite=overwrite,
      keep=keep,
      num_threads=num_threads,
      progress=progress,
    )
  table = where.table()
  store.tell(_absent(where, table, where.find(table)))
  return where.root
