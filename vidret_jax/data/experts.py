# SPDX-License-Identifier: Apache-2.0
"""Training pairs, items and queries of a set of expert records.

The three views of one split share its records, in memory or on disk:

  pairs    one row per video with one of its captions, drawn from the row seed
  items    one row per video, its experts only
  queries  one row per caption that exists, or per video when captions are fused

Rules of padding and of caption choice follow the Collaborative Experts loader
(Liu et al. 2019); a missing expert is zeros with `available` False there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vidret_jax.data import batch_layout, store, views
from vidret_jax.data import source as source_lib

VIEWS = ('pairs', 'items', 'queries')


def make(
  directory: str,
  split: str,
  *,
  view: str,
  experts: Sequence[tuple[str, Mapping[str, Any]]],
  text: Mapping[str, Any],
  corpus: str | None = None,
  fuse_captions: bool = False,
  max_captions: int | None = None,
  text_dropout: float = 0.0,
  average_captions: bool = False,
  own_available: bool = False,
  drop: Sequence[str] = (),
  cache: str | None = 'ram',
  caption_masks: str | None = None,
  teachers: Sequence[str] = (),
) -> source_lib.Source:
  """Opens one view of prepared records.

  Args:
    directory: folder of a prepared TFDS builder config.
    split: name of a split in it.
    view: 'pairs', 'items' or 'queries'.
    experts: (name, {dim, max_tokens}) pairs; an expert with `max_tokens` has
      that many rows, one without has a single vector. Other keys are ignored.
    text: {dim, max_tokens}; other keys are ignored.
    corpus: folder that the records' video paths are relative to.
    fuse_captions: all captions of a video are one long caption.
    max_captions: only the first n captions of each video (upstream's
      restrict_train_captions and num_test_captions); None takes all. Fused
      captions are one and are never cut.
    text_dropout: pairs only: probability that a caption loses about half of
      its tokens.
    average_captions: queries only: one row per video with text [k, l, d] of
      all its captions, which the model averages.
    own_available: queries only: adds the availability of the caption's own
      video, which the retired 2019 rule reads (it leaks the answer).
    drop: experts to leave out.
    cache: 'ram' (float32), 'ram16' (half the memory, rounded to float16) or
      None (every batch is read from disk).
    caption_masks: pairs only: file of TeachText's caption masks.
    teachers: pairs only: files of TeachText's teachers; adds `teacher_text`
      and `teacher_video`. Both are paths as given or relative to the corpus.

  Returns:
    A source, see `vidret_jax.data.source`.

  Raises:
    ValueError: an option or expert that does not exist, or records that do
      not fit.
  """
  if view not in VIEWS:
    raise ValueError(f'Unknown view {view!r}; choose from {VIEWS}.')
  if max_captions is not None and max_captions < 1:
    raise ValueError(f'max_captions={max_captions}: expected at least 1.')
  if fuse_captions:
    max_captions = None
  layout = batch_layout.BatchLayout(experts, text, drop)
  records = store.open_records(
    directory, split, layout.dims, layout.text_dim, cache, corpus
  )
  if view == 'items':
    return views.Items(records, layout)
  if view == 'pairs':
    return views.Pairs(
      records,
      layout,
      fuse=fuse_captions,
      max_captions=max_captions,
      text_dropout=text_dropout,
      caption_masks=_masks(caption_masks, corpus),
      teachers=_teachers(teachers, corpus),
    )
  return views.Queries(
    records,
    layout,
    fuse=fuse_captions,
    max_captions=max_captions,
    average=average_captions,
    own_available=own_available,
  )


def _masks(path, corpus):
  from vidret_jax.data import teachers as teachers_lib

  if path is None:
    return None
  return teachers_lib.CaptionMasks(teachers_lib.find(path, corpus))


def _teachers(paths, corpus):
  from vidret_jax.data import teachers as teachers_lib

  if not paths:
    return None
  return teachers_lib.Teachers([teachers_lib.find(p, corpus) for p in paths])
