# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus as frames: clips decoded once, and a tokenizer of it.

Both lie in the corpus folder (docs/shapes.md), so a corpus that is made anew
takes them along:

  frames/<split>-<recipe>.npy  uint8 [v, f, R, R, 3], mapped into memory
  tokenizer-<size>.json        learnt from the captions of the training split
"""

from collections.abc import Mapping, Sequence
import os
import pathlib

from vidret_jax.data import source as source_lib
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.data.frames import captions as captions_lib
from vidret_jax.data.frames import select as select_lib
from vidret_jax.data.frames import transform as transform_lib
from vidret_jax.data.frames import views
from vidret_jax.data.shapes import annotations, corpus, decoded

SPLITS = ('train', 'val', 'test')
VOCAB_SIZE = 1000  # At most; the captions decide.


def make(
  *,
  view: str,
  split: str,
  max_frames: int = 12,
  image_size: int = 64,
  max_words: int = 32,
  select: str = 'uniform',
  frame_order: str = 'as_is',
  framerate: int = 4,
  transform: str = 'exact',
  captions: str = 'all',
  tokenizer: str | os.PathLike | None = None,
  vocab_size: int = VOCAB_SIZE,
  cache: str = 'disk',
  root: str | os.PathLike | None = None,
  seed: int | None = None,
  counts: Mapping[str, int] | None = None,
  num_workers: int | None = None,
  progress: bool = True,
) -> source_lib.Source:
  """Opens a view of a split; makes whatever is absent first.

  Args:
    view: 'pairs', 'items' or 'queries'.
    split: 'train', 'val' or 'test'.
    max_frames: frames of a clip at most.
    image_size: height and width of a frame.
    max_words: tokens of a row, start and end included.
    select: which frames of a clip with more; see `frames.select`.
    frame_order: 'as_is', 'reversed' or 'shuffled'.
    framerate: frames read per second; a clip has 8 and lasts 3 to 7 seconds.
    transform: see `frames.transform`.
    captions: 'all' or 'one', of the pairs; see `frames.views.Pairs`.
    tokenizer: a file for `tokenizer.load`; None learns one from the corpus.
    vocab_size: ids of the tokenizer that is learnt, at most.
    cache: 'disk' maps the file of decoded frames, 'ram' reads it whole.
    root: data folder; VIDRET_DATA_DIR or `data` by default.
    seed: of the corpus; see `shapes.corpus.prepare`, also for the next three.
    counts: videos per split.
    num_workers: processes that make clips, threads that decode them.
    progress: shows a bar while they do.

  Raises:
    ValueError: an unknown option, or a corpus of another recipe.
  """
  if view not in views.VIEWS:
    raise ValueError(f'Unknown view {view!r}; choose from {views.VIEWS}.')
  decoded.check(cache)
  select_lib.check(max_frames, select, frame_order)
  transform_lib.check(transform)
  folder = _corpus(split, root, seed, counts, num_workers, progress)
  rows = annotations.read(folder)
  table = captions_lib.table(
    [
      (row['id'], caption['text'])
      for row in rows
      if row['split'] == split
      for caption in row['captions']
    ],
    f'{folder} [{split}]',
  )
  if view == 'items':
    words = None
  elif tokenizer is not None:
    words = tokenizer_lib.load(tokenizer)
  else:
    words = _learnt(folder, rows, vocab_size)
  if view == 'queries':
    return views.Queries(table, words, max_words=max_words)
  sampling = {
    'max_frames': max_frames,
    'size': image_size,
    'select': select,
    'framerate': framerate,
    'transform': transform,
  }
  clips = decoded.clips(
    folder,
    split,
    table.ids,
    sampling,
    cache=cache,
    num_workers=num_workers,
    progress=progress,
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


def prepare(
  *,
  split: str,
  max_frames: int = 12,
  image_size: int = 64,
  select: str = 'uniform',
  framerate: int = 4,
  transform: str = 'exact',
  tokenizer: str | os.PathLike | None = None,
  vocab_size: int = VOCAB_SIZE,
  root: str | os.PathLike | None = None,
  seed: int | None = None,
  counts: Mapping[str, int] | None = None,
  num_workers: int | None = None,
  progress: bool = True,
  overwrite: bool = False,
  keep: Sequence[str | os.PathLike] = (),
) -> pathlib.Path:
  """Makes corpus, tokenizer and decoded frames, unless they are there.

  Args:
    split: see `make`, as are max_frames to progress.
    max_frames: see `make`.
    image_size: see `make`.
    select: see `make`.
    framerate: see `make`.
    transform: see `make`.
    tokenizer: see `make`.
    vocab_size: see `make`.
    root: see `make`.
    seed: see `make`.
    counts: see `make`.
    num_workers: see `make`.
    progress: see `make`.
    overwrite: makes the corpus and all that lies in it anew.
    keep: corpus folders that `overwrite` spares: those just made.

  Returns:
    The corpus folder.
  """
  film = {'seed': seed, 'counts': counts, 'num_workers': num_workers}
  film |= {'root': root, 'progress': progress}
  if overwrite:
    corpus.prepare(overwrite=True, keep=keep, **film)
  make(
    view='pairs',
    split=split,
    max_frames=max_frames,
    image_size=image_size,
    select=select,
    framerate=framerate,
    transform=transform,
    tokenizer=tokenizer,
    vocab_size=vocab_size,
    **film,
  )
  return corpus.corpus_dir(root)


def _corpus(split, root, seed, counts, num_workers, progress) -> pathlib.Path:
  if split not in SPLITS:
    raise ValueError(
      f'shapes_frames has no split {split!r}; choose from {list(SPLITS)}.'
    )
  return corpus.prepare(
    root, seed=seed, counts=counts, num_workers=num_workers, progress=progress
  )


def tokenizer_file(
  *,
  root: str | os.PathLike | None = None,
  vocab_size: int = VOCAB_SIZE,
  **others,
) -> pathlib.Path:
  """The tokenizer that `make` learnt; `others` are further options of it.

  Raises:
    FileNotFoundError: it has not been learnt on this machine.
  """
  del others
  path = _learnt_file(corpus.corpus_dir(root), vocab_size)
  if not path.is_file():
    raise FileNotFoundError(
      f'no tokenizer {path}: the corpus that it was learnt from is not here; '
      'copy the file from where the run was trained'
    )
  return path


def _learnt_file(folder: pathlib.Path, vocab_size: int) -> pathlib.Path:
  return folder / f'tokenizer-{vocab_size}.json'


def _learnt(folder, rows, vocab_size: int) -> tokenizer_lib.Tokenizer:
  """The corpus' own tokenizer."""
  path = _learnt_file(folder, vocab_size)
  if not path.is_file():
    texts = [
      caption['text']
      for row in rows
      if row['split'] == 'train'
      for caption in row['captions']
    ]
    # Several processes may learn it: they write equal files.
    part = path.with_suffix(f'.{os.getpid()}.part')
    tokenizer_lib.train(texts, part, vocab_size)
    os.replace(part, path)
  return tokenizer_lib.load(path)
