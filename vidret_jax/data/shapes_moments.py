# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus as described moments: events and what is said in them.

Its files are those of TVR and are read as those (see `shapes.moment_files`).
They and their records lie in the corpus folder (docs/shapes.md), so a corpus
that is made anew takes them along.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any

from vidret_jax.data import source as source_lib
from vidret_jax.data.moments import layout as layout_lib
from vidret_jax.data.moments import sets, views
from vidret_jax.data.shapes import corpus, instants, moment_files

LAYOUT = layout_lib.Layout(
  name='shapes_moments',
  prefix='shapes',
  folder='shapes',
  clip_seconds=instants.SECONDS,
  source='made by python -m vidret_jax.tools.prepare',
  families={'instants': layout_lib.Family('')},
)
SPLITS = moment_files.SPLITS
# Clips of a video at most: the longest ones last 7.75 seconds.
MAX_CLIPS = 32


def make(
  *,
  view: str,
  split: str,
  context: str = 'video_sub_tef',
  max_clips: int = MAX_CLIPS,
  max_words: int = 30,
  sampling: str = 'mean',
  precision: str = 'float32',
  cache: str | None = None,
  root: str | os.PathLike | None = None,
  seed: int | None = None,
  counts: Mapping[str, int] | None = None,
  num_workers: int | None = None,
  progress: bool = True,
) -> source_lib.Source:
  """Opens a view of a split; makes whatever is absent first.

  Args:
    view: 'pairs', 'items' or 'queries'; see `moments.views`.
    split: 'train', 'val' or 'test'.
    context: see `moments.sets.make`, also for the next five.
    max_clips: rows of a video at most.
    max_words: tokens of a query at most.
    sampling: of longer videos.
    precision: of the features in the records.
    cache: where they are kept.
    root: data folder; VIDRET_DATA_DIR or `data` by default.
    seed: of the corpus; see `shapes.corpus.prepare`, also for the next three.
    counts: videos per split.
    num_workers: processes that make and measure clips.
    progress: shows a bar while they do.

  Raises:
    ValueError: an unknown option, or a corpus of another recipe.
  """
  if view not in views.VIEWS:
    raise ValueError(f'Unknown view {view!r}; choose from {views.VIEWS}.')
  stored = dict(
    split=split, context=context, max_clips=max_clips, max_words=max_words,
    sampling=sampling, precision=precision,
  )  # fmt: skip
  folder = prepare(
    **stored, root=root, seed=seed, counts=counts, num_workers=num_workers,
    progress=progress,
  )  # fmt: skip
  return sets.make(
    view=view,
    cache=cache,
    videos=str(folder / 'videos'),
    **_located(folder),
    **stored,
  )


def prepare(
  *,
  split: str,
  context: str = 'video_sub_tef',
  max_clips: int = MAX_CLIPS,
  max_words: int = 30,
  sampling: str = 'mean',
  precision: str = 'float32',
  root: str | os.PathLike | None = None,
  seed: int | None = None,
  counts: Mapping[str, int] | None = None,
  num_workers: int | None = None,
  progress: bool = True,
  overwrite: bool = False,
  keep: Sequence[str | os.PathLike] = (),
) -> pathlib.Path:
  """Makes corpus, features and records, unless they are there.

  Args:
    split: see `make`, as are context to progress.
    context: see `make`.
    max_clips: see `make`.
    max_words: see `make`.
    sampling: see `make`.
    precision: see `make`.
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
  if split not in SPLITS:
    raise ValueError(
      f'shapes_moments has no split {split!r}; choose from {list(SPLITS)}.'
    )
  folder = corpus.prepare(
    root, seed=seed, counts=counts, num_workers=num_workers,
    progress=progress, overwrite=overwrite, keep=keep,
  )  # fmt: skip
  moment_files.write(folder, num_workers=num_workers, progress=progress)
  # Several processes may start together.
  with corpus.locked(folder / 'moments' / '.lock'):
    sets.prepare(
      split=split, context=context, max_clips=max_clips, max_words=max_words,
      sampling=sampling, precision=precision, progress=False,
      **_located(folder),
    )  # fmt: skip
  return folder


def _located(folder: pathlib.Path) -> dict[str, Any]:
  """Where the files and records of a corpus are, as `moments.sets` asks."""
  layout = dataclasses.replace(
    LAYOUT, folder=str((folder / 'moments').resolve()), records=str(folder)
  )
  paths = {
    'video': moment_files.VIDEO,
    'subtitle': moment_files.SUBTITLE,
    'query': moment_files.QUERY,
  }
  return {'layout': layout, 'paths': paths}
