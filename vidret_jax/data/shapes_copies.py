# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus as videos without words: copies are to be found.

Trains on pairs of edited views of clips of the training split. Is asked with
the test clips that copies were made of, for these copies, among all test clips
and copies; relations are those of FIVR-200K (docs/shapes.md). What is read are
frames: a model with a backbone makes regions of them.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data.copies import annotations as annotations_lib
from vidret_jax.data.copies import clips as clips_lib
from vidret_jax.data.copies import views as views_lib
from vidret_jax.data.shapes import annotations, corpus, decoded

VIEWS = ('pairs', *views_lib.VIEWS)
# Split -> those of the corpus that are in it.
SPLITS = {'train': ('train',), 'val': ('val',), 'copies': ('test', 'copies')}


class Films:
  """Queries or database as frames.

  Attributes:
    annotations: of the split.
    ids: sorted.
    lengths: int64 [v], frames after `views.repeated`.
    found: bool [v], all.
    size: (height, width) of frames.
    videos: paths of playable files.
  """

  def __init__(self, told, ids, films, size: int, min_frames: int):
    """Wraps decoded clips.

    Args:
      told: the `Annotations`.
      ids: which videos, sorted.
      films: video -> (uint8 [t, R, R, 3], path).
      size: side of the centre that is taken.
      min_frames: shorter videos are repeated.
    """
    self.annotations, self.ids = told, tuple(ids)
    self.size = (size, size)
    self._films = [films[name][0] for name in self.ids]
    self.videos = [films[name][1] for name in self.ids]
    self.lengths = np.asarray(
      [views_lib.repeated(len(x), min_frames) for x in self._films], np.int64
    )
    self.found = self.lengths > 0

  def __len__(self) -> int:
    return len(self.ids)

  def frames(self, i: int) -> np.ndarray:
    """uint8 [lengths[i], size, size, 3], the centre of the frames."""
    film, size = self._films[i], self.size[0]
    first = (film.shape[1] - size) // 2
    film = film[:, first : first + size, first : first + size]
    times = int(self.lengths[i]) // max(len(film), 1)
    return np.concatenate([film] * times) if times > 1 else np.asarray(film)


def make(
  *,
  view: str,
  split: str,
  window: int = 12,
  image_size: int = 64,
  store_size: int = 72,
  framerate: int = 4,
  max_frames: int = 28,
  min_frames: int = 8,
  augment: Mapping[str, Any] | None = None,
  cache: str = 'ram',
  root: str | os.PathLike | None = None,
  seed: int | None = None,
  counts: Mapping[str, int] | None = None,
  num_workers: int | None = None,
  progress: bool = True,
):
  """Opens a view of a split; makes whatever is absent first.

  Args:
    view: 'pairs' of views of a clip, or 'queries' or 'items'.
    split: 'train', 'val' (both for pairs), or 'copies'.
    window: frames of a view of a pair.
    image_size: height and width of frames.
    store_size: height and width of frames before they are cropped.
    framerate: frames per second; a clip has 8 and lasts 3 to 7 seconds.
    max_frames: of a clip.
    min_frames: shorter clips are repeated for evaluation.
    augment: see `augment.recipe.Recipe`; of pairs.
    cache: 'disk' maps the file of decoded frames, 'ram' reads it whole.
    root: data folder; VIDRET_DATA_DIR or `data` by default.
    seed: of the corpus; see `shapes.corpus.prepare`, also for the next three.
    counts: videos per split.
    num_workers: processes that make clips, threads that decode them.
    progress: shows a bar while they do.

  Raises:
    ValueError: an unknown option, a view that the split does not have, or a
      corpus of another recipe.
  """
  if view not in VIEWS:
    raise ValueError(f'Unknown view {view!r}; choose from {VIEWS}.')
  if split not in SPLITS or (view == 'pairs') == (split == 'copies'):
    raise ValueError(
      f'shapes_copies has no split {split!r} for the view {view!r}: pairs are '
      "of 'train' or 'val', queries and items of 'copies'."
    )
  if not 0 < image_size <= store_size:
    raise ValueError(
      f'image_size={image_size}, store_size={store_size}: frames are cropped, '
      'so the first must be above 0 and not above the second.'
    )
  decoded.check(cache)
  folder = corpus.prepare(
    root, seed=seed, counts=counts, num_workers=num_workers, progress=progress
  )
  rows = annotations.read(folder)
  opened = {
    part: _opened(
      folder,
      part,
      [row['id'] for row in rows if row['split'] == part],
      dict(
        max_frames=max_frames,
        size=store_size,
        select='uniform',
        framerate=framerate,
        transform='exact',
      ),
      cache,
      num_workers,
      progress,
    )
    for part in SPLITS[split]
  }
  if view == 'pairs':
    ids, clips, frames, count = opened[split]
    store = clips_lib.Mapped(ids, frames, count)
    return clips_lib.Pairs(
      store, window=window, size=image_size, augment=augment
    )
  films = {
    name: (frames[i, : count[i]], clips.paths[i])
    for ids, clips, frames, count in opened.values()
    for i, name in enumerate(ids)
  }
  told = _relations(rows, f'{folder} [{split}]')
  ids = told.queries if view == 'queries' else told.database
  return Films(told, ids, films, image_size, min_frames)


def prepare(
  *,
  split: str,
  overwrite: bool = False,
  keep: Sequence[str | os.PathLike] = (),
  root: str | os.PathLike | None = None,
  seed: int | None = None,
  counts: Mapping[str, int] | None = None,
  num_workers: int | None = None,
  progress: bool = True,
  **options: Any,
) -> pathlib.Path:
  """Makes corpus and decoded frames, unless they are there.

  Args:
    split: see `make`.
    overwrite: makes the corpus and all that lies in it anew.
    keep: corpus folders that `overwrite` spares: those just made.
    root: see `make`.
    seed: see `make`.
    counts: see `make`.
    num_workers: see `make`.
    progress: see `make`.
    **options: further ones of `make`.

  Returns:
    The corpus folder.
  """
  film = {'seed': seed, 'counts': counts, 'num_workers': num_workers}
  film |= {'root': root, 'progress': progress}
  if overwrite:
    corpus.prepare(overwrite=True, keep=keep, **film)
  view = 'items' if split == 'copies' else 'pairs'
  make(view=view, split=split, **options, **film)
  return corpus.corpus_dir(root)


def _opened(folder, part, ids, sampling, cache, num_workers, progress):
  """(ids, clips, frames [v, f, R, R, 3], count [v]) of a split."""
  clips = decoded.clips(
    folder,
    part,
    ids,
    sampling,
    cache=cache,
    num_workers=num_workers,
    progress=progress,
  )
  if clips.unreadable:
    name, why = next(iter(clips.unreadable.items()))
    raise ValueError(
      f'{folder}: {len(clips.unreadable)} clips cannot be read, e.g. {name}: '
      f'{why}. Make the corpus again: tools.prepare with --overwrite.'
    )
  return ids, clips, clips.frames, clips.count


def _relations(rows, where: str) -> annotations_lib.Annotations:
  """Copies by source and relation."""
  labels: dict[str, dict[str, list[str]]] = {}
  for row in rows:
    if row['split'] == 'copies':
      copy = row['copy']
      found = labels.setdefault(copy['source'], {})
      found.setdefault(copy['relation'], []).append(row['id'])
  return annotations_lib.build(
    where,
    protocol='fivr',
    queries=list(labels),
    database=[row['id'] for row in rows if row['split'] in SPLITS['copies']],
    labels=labels,
  )
