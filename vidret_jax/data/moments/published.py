# SPDX-License-Identifier: Apache-2.0
"""Opens the published files of a split and checks them against each other.

Everything but the numbers of the features is read and checked at once; those
are read video by video and query by query.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib

from absl import logging
import numpy as np

from vidret_jax.data import clip_files
from vidret_jax.data.moments import annotations, durations, places, records
from vidret_jax.data.moments import features as features_lib
from vidret_jax.data.moments import layout as layout_lib

MISSING_SUBTITLES = ('error', 'zeros')
_MASK = '-mask'  # '<video>-mask' in the file of subtitles tells what is said.


@dataclasses.dataclass(frozen=True)
class Checks:
  """How far files may contradict each other.

  Attributes:
    length_slack: clips that a video's rows may be more or fewer than its
      duration tells.
    span_slack: clips that a moment may reach beyond its video.
    missing_subtitles: 'error', or 'zeros' for a video that the file of
      subtitles does not know.
  """

  length_slack: int = 2
  span_slack: float = 1.0
  missing_subtitles: str = 'error'

  def __post_init__(self):
    if self.missing_subtitles not in MISSING_SUBTITLES:
      raise ValueError(
        f'Unknown missing_subtitles={self.missing_subtitles!r}; choose from '
        f'{MISSING_SUBTITLES}.'
      )
    for name in ('length_slack', 'span_slack'):
      if not getattr(self, name) >= 0:
        raise ValueError(
          f'{name}={getattr(self, name)}: expected 0 clips or more.'
        )


class Published:
  """The files of one split.

  Attributes:
    table: what goes beside the records.
    widths: stream, or 'query' -> d.
    files: all that were opened.
  """

  def __init__(
    self,
    layout: layout_lib.Layout,
    ask: records.Request,
    root: pathlib.Path,
    paths: Mapping[str, str],
    checks: Checks,
  ):
    """Opens a split.

    Args:
      layout: what the dataset looks like.
      ask: what is wanted of it.
      root: folder of the files.
      paths: see `places.find`.
      checks: how strict to be.

    Raises:
      places.MissingFiles: files that are not there, all of them.
      ValueError: a file that cannot be used, or two that contradict each other.
    """
    self._ask, self._checks = ask, checks
    self._where = f'{layout.name}, split {ask.split!r}'
    self.files = places.find(layout, ask, root, paths)
    rows = annotations.read(self.files['annotations'])
    videos = self._read_videos(rows)
    self._open = {}
    try:
      clips = self._open_videos(videos)
      self._open_queries([row for _, row in rows])
    except ValueError:
      self.close()
      raise
    self.widths = {key: file.width for key, file in self._open.items()}
    self.table = records.Table(
      videos=list(videos),
      numbers=[video.number for video in videos.values()],
      seconds=[video.seconds for video in videos.values()],
      clips=[min(n, ask.max_clips) for n in clips.values()],
      rows=[row for _, row in rows],
      clip_seconds=ask.clip_seconds,
    )

  def video(self, name: str) -> dict[str, np.ndarray]:
    """Stream -> float32 [T, d] of a video: sampled, and normalised if asked.

    Raises:
      ValueError: damaged, or NaN or Inf among them.
    """
    ask, out = self._ask, {}
    for stream in ask.streams:
      file = self._open[stream]
      if name in file:
        found = file.read(name)
      else:
        count = self._open['video'].count(name)
        found = np.zeros((count, file.width), np.float32)
      found = features_lib.sample(found, ask.max_clips, ask.sampling)
      unit = ask.norm_video if stream == 'video' else ask.norm_text
      out[stream] = features_lib.normalise(found) if unit else found
    return out

  def query(self, name: str) -> np.ndarray:
    """Float32 [tokens, d] of a query.

    Raises:
      ValueError: damaged, or NaN or Inf among them.
    """
    found = self._open['query'].read(name, self._ask.max_words)
    return features_lib.normalise(found) if self._ask.norm_text else found

  def close(self) -> None:
    """Closes the files."""
    for file in self._open.values():
      file.close()

  def _read_videos(self, rows) -> dict[str, durations.Video]:
    """Videos of the split in their order, once annotations agree with them."""
    split, path = self._ask.split, self.files.get('durations')
    if path is None:
      videos, others = durations.of_rows(rows), {}
      source = str(self.files['annotations'])
    else:
      known, source = durations.read(path), str(path)
      if not known.get(split):
        raise ValueError(
          f'{path}: no videos of split {split!r}, found {sorted(known)}. Add '
          'them, or correct `split`.'
        )
      videos = known[split]
      others = {v: s for s, some in known.items() for v in some if s != split}
    slack = self._checks.span_slack * self._ask.clip_seconds
    beyond = annotations.check_videos(
      rows, videos, slack=slack, source=source, others=others
    )
    if beyond:
      logging.warning(
        '%s: %d of %d moments end beyond their video, by %g s at most; labels '
        'end at its last clip.', self._where, beyond, len(rows), slack,
      )  # fmt: skip
    return videos

  def _open_videos(self, videos) -> dict[str, int]:
    """Opens the streams; the rows of every video."""
    for stream in self._ask.streams:
      self._open[stream] = clip_files.Rows(
        self.files[stream],
        names=frozenset(videos),
        companion=_MASK if stream == 'subtitle' else '',
      )
    first = self._ask.streams[0]
    self._refuse_missing(first, videos, 'video')
    if first != 'subtitle' and 'subtitle' in self._ask.streams:
      self._check_subtitles(videos)
    counts = {name: self._open[first].count(name) for name in videos}
    slack = self._checks.length_slack
    for name, video in videos.items():
      expected = math.ceil(video.seconds / self._ask.clip_seconds)
      if abs(counts[name] - expected) > slack:
        raise ValueError(
          f'{self.files[first]}: video {name!r} has {counts[name]} rows, '
          f'expected {expected}, give or take {slack}: it lasts '
          f'{video.seconds} s, a clip {self._ask.clip_seconds:g} s. Extract it '
          'again, or correct clip_seconds; length_slack=<clips> in the data of '
          'the config allows more.'
        )
    return counts

  def _check_subtitles(self, videos) -> None:
    file, video = self._open['subtitle'], self._open['video']
    absent = [name for name in videos if name not in file]
    if self._checks.missing_subtitles == 'error':
      self._refuse_missing(
        'subtitle', videos, 'video', " (or set missing_subtitles='zeros')"
      )
    elif len(absent) == len(videos):
      raise ValueError(
        f'{file.path}: subtitles of none of the {len(videos)} videos of this '
        "split. Name another file, or a context without 'sub'."
      )
    elif absent:
      logging.warning(
        '%s: %d of %d videos have no subtitles in %s, such as %r; they get '
        'zeros.', self._where, len(absent), len(videos), file.path, absent[0],
      )  # fmt: skip
    for name in videos:
      if name in file and file.count(name) != video.count(name):
        raise ValueError(
          f'{file.path}: video {name!r} has {file.count(name)} rows, but '
          f'{video.count(name)} in {video.path}; expected one per clip in '
          'both. Make the subtitle features again for these clips.'
        )

  def _open_queries(self, rows) -> None:
    names = [str(row['desc_id']) for row in rows]
    self._open['query'] = clip_files.Rows(
      self.files['query'], names=frozenset(names)
    )
    self._refuse_missing('query', names, 'query')

  def _refuse_missing(
    self, key: str, names: Sequence[str], what: str, other: str = ''
  ) -> None:
    file = self._open[key]
    absent = [name for name in names if name not in file]
    if absent:
      raise ValueError(
        f'{file.path}: no dataset {absent[0]!r}, the key of a {what}; '
        f'{len(absent)} of {len(names)} are missing. Make their features'
        f'{other}, or take them off the lists.'
      )
