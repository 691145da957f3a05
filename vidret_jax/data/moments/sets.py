# SPDX-License-Identifier: Apache-2.0
"""The ways into described moments: `prepare` writes records, `make` opens them.

A dataset module binds both to its layout.
"""

from collections.abc import Iterable, Mapping, Sequence
import os
import pathlib

from vidret_jax.data import row_store
from vidret_jax.data import source as source_lib
from vidret_jax.data.moments import layout as layout_lib
from vidret_jax.data.moments import published, records, views
from vidret_jax.data.shapes import corpus

Paths = Mapping[str, str] | Iterable[tuple[str, str]]


def request(
  layout: layout_lib.Layout,
  split: str,
  *,
  context: str = 'video_sub_tef',
  features: str | None = None,
  max_clips: int = 128,
  max_words: int = 30,
  sampling: str = 'mean',
  norm_video: bool | None = None,
  norm_text: bool | None = None,
  clip_seconds: float | None = None,
  missing_subtitles: str = 'error',
  precision: str = 'float32',
  root: str | os.PathLike | None = None,
  paths: Paths = (),
) -> records.Request:
  """Turns the data part of a config into a request; see `make`.

  Raises:
    ValueError: an unknown option, or a bad number.
  """
  try:
    split = layout_lib.split_of(split)
  except ValueError as error:
    raise ValueError(f'{layout.name}: {error}') from None
  # What 'tef' alone knows of a video is its number of rows.
  streams = views.streams_of(context) or ('video',)
  given = {layout_lib.key_of(k): str(v) for k, v in dict(paths or ()).items()}
  family = features or next(iter(layout.families))
  if family not in layout.families and 'video' not in given:
    raise ValueError(
      f'{layout.name}: unknown features={family!r}; known: '
      f'{list(layout.families)}. For your own, name their file with '
      "paths=dict(video='<file>')."
    )
  if norm_video is None:
    own = layout.families.get(family)
    norm_video = own.normalise if own else True
  if 'video' not in streams:
    family, norm_video = '', False
  if root:
    given['root'] = str(root)
  if missing_subtitles != 'error' and 'subtitle' in streams:
    given['missing_subtitles'] = missing_subtitles
  return records.Request(
    dataset=layout.name,
    split=split,
    streams=streams,
    features=family,
    text='sub_query' if 'sub' in context else 'query_only',
    max_clips=max_clips,
    max_words=max_words,
    sampling=sampling,
    norm_video=bool(norm_video),
    norm_text=norm_text is not False,
    clip_seconds=float(clip_seconds or layout.clip_seconds),
    precision=precision,
    files=tuple(sorted(given.items())),
    home=layout.records,
  )


def make(
  layout: layout_lib.Layout,
  *,
  view: str,
  split: str,
  context: str = 'video_sub_tef',
  features: str | None = None,
  max_clips: int = 128,
  max_words: int = 30,
  sampling: str = 'mean',
  norm_video: bool | None = None,
  norm_text: bool | None = None,
  clip_seconds: float | None = None,
  length_slack: int = 2,
  span_slack: float = 1.0,
  missing_subtitles: str = 'error',
  precision: str = 'float32',
  cache: str | None = None,
  root: str | os.PathLike | None = None,
  paths: Paths = (),
  videos: str | None = None,
) -> source_lib.Source:
  """Opens a view of prepared records.

  Args:
    layout: where the published files are.
    view: 'pairs', 'items' or 'queries'.
    split: 'train', 'val', 'test_public' (or 'test') or 'test_challenge'.
    context: what batches hold of a video: features of what is seen ('video')
      and of what is said ('sub'), and where a clip lies in its video ('tef').
    features: family of the video features, a key of `layout.families`; any
      other name with paths=dict(video='<file>').
    max_clips: rows of a video at most.
    max_words: tokens of a query at most.
    sampling: of longer videos: 'mean' of neighbours, or 'first' rows (XML).
    norm_video: makes video rows unit vectors; None: unless the family has it.
    norm_text: makes subtitle and query rows unit vectors; None: yes.
    clip_seconds: length of a clip; that of the layout by default.
    length_slack: see `published.Checks`; read by `prepare` only.
    span_slack: see `published.Checks`; read by `prepare` only.
    missing_subtitles: see `published.Checks`.
    precision: of the features in the records, 'float32' or 'float16'.
    cache: see `row_store.open_rows`.
    root: folder of the published files; `<data folder>/<folder of the dataset>`
      by default, the data folder being VIDRET_DATA_DIR or `data`.
    paths: key of `layout.KEYS` -> file, relative to it, where it is not the
      usual one.
    videos: folder of files that the reports play.

  Returns:
    A source, see `vidret_jax.data.source` and `views`.

  Raises:
    ValueError: an unknown option.
    MissingRecords: nothing was prepared for this config.
  """
  for name, value, known in (
    ('view', view, views.VIEWS),
    ('cache', cache, row_store.CACHES),
  ):
    if value not in known:
      raise ValueError(f'Unknown {name}={value!r}; choose from {known}.')
  published.Checks(length_slack, span_slack, missing_subtitles)
  asked = request(
    layout, split, context=context, features=features, max_clips=max_clips,
    max_words=max_words, sampling=sampling, norm_video=norm_video,
    norm_text=norm_text, clip_seconds=clip_seconds,
    missing_subtitles=missing_subtitles, precision=precision, root=root,
    paths=paths,
  )  # fmt: skip
  opened = row_store.shared(
    asked.folder,
    lambda: records.open_records(asked, _root(layout, root), layout.source),
  )
  where = str(opened.folder)

  def rows(kind, disk):
    return row_store.shared(
      (asked.folder, kind, cache), lambda: row_store.open_rows(disk, cache)
    )

  if view != 'items':
    words = rows(records.QUERIES, opened.queries)
    if view == 'queries':
      return views.Queries(opened.table, words, where=where)
  used = rows(records.VIDEOS, opened.videos) if context != 'tef' else None
  clips = views.Clips(opened.table, used, context=context, max_clips=max_clips)
  if view == 'items':
    return views.Items(opened.table, clips, videos=videos)
  return views.Pairs(opened.table, clips, words, where=where)


def _root(layout, root) -> pathlib.Path:
  return pathlib.Path(root) if root else corpus.data_root() / layout.folder


def prepare(
  layout: layout_lib.Layout,
  *,
  split: str,
  context: str = 'video_sub_tef',
  features: str | None = None,
  max_clips: int = 128,
  max_words: int = 30,
  sampling: str = 'mean',
  norm_video: bool | None = None,
  norm_text: bool | None = None,
  clip_seconds: float | None = None,
  length_slack: int = 2,
  span_slack: float = 1.0,
  missing_subtitles: str = 'error',
  precision: str = 'float32',
  root: str | os.PathLike | None = None,
  paths: Paths = (),
  manual_dir: str | os.PathLike | None = None,
  overwrite: bool = False,
  keep: Sequence[pathlib.Path] = (),
  progress: bool = True,
) -> pathlib.Path:
  """Checks the published files of a split and writes records of them.

  Args:
    layout: see `make`, as are split to paths.
    split: see `make`.
    context: see `make`.
    features: see `make`.
    max_clips: see `make`.
    max_words: see `make`.
    sampling: see `make`.
    norm_video: see `make`.
    norm_text: see `make`.
    clip_seconds: see `make`.
    length_slack: see `published.Checks`.
    span_slack: see `published.Checks`.
    missing_subtitles: see `published.Checks`.
    precision: see `make`.
    root: see `make`.
    paths: see `make`.
    manual_dir: replaces `root` as the folder that is read.
    overwrite: makes records anew.
    keep: folders that `overwrite` must leave.
    progress: shows bars on standard error.

  Returns:
    The folder of the records.

  Raises:
    ValueError, FileNotFoundError: whatever is wrong, before anything is
      written.
  """
  checks = published.Checks(length_slack, span_slack, missing_subtitles)
  asked = request(
    layout, split, context=context, features=features, max_clips=max_clips,
    max_words=max_words, sampling=sampling, norm_video=norm_video,
    norm_text=norm_text, clip_seconds=clip_seconds,
    missing_subtitles=missing_subtitles, precision=precision, root=root,
    paths=paths,
  )  # fmt: skip
  home = pathlib.Path(manual_dir) if manual_dir else _root(layout, root)

  from vidret_jax.data.moments import builder

  return builder.write(
    layout, asked, home, paths=dict(paths or ()), checks=checks,
    overwrite=overwrite, keep=keep, progress=progress,
  )  # fmt: skip
