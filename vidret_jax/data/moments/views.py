# SPDX-License-Identifier: Apache-2.0
"""The three views of described moments.

  pairs    one row per query, with its video and the clips of its moment
  items    one row per video
  queries  one row per query

Batches: query float32 [b, l, d] and query_mask bool [b, l] of queries; video
and subtitle float32 [b, t, d], as far as the context has them, and clip_mask
bool [b, t] of videos; span int32 [b, 2] of pairs, see `features.labels`; _mask
bool [b].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidret_jax.data import playable, row_store
from vidret_jax.data import source as source_lib
from vidret_jax.data.moments import features as features_lib
from vidret_jax.data.moments import layout as layout_lib
from vidret_jax.data.moments import records

VIEWS = ('pairs', 'items', 'queries')
_TEF = 2  # Columns.


def streams_of(context: str) -> tuple[str, ...]:
  """The streams whose features a context has; none of 'tef' alone.

  Raises:
    ValueError: an unknown context.
  """
  if context not in layout_lib.CONTEXTS:
    raise ValueError(
      f'Unknown context={context!r}; choose from {layout_lib.CONTEXTS}.'
    )
  known = {'video': 'video', 'sub': 'subtitle'}
  return tuple(s for part, s in known.items() if part in context)


class Clips:
  """Videos as a model reads them.

  Attributes:
    spec: see `data.source`, without `_mask`.
  """

  def __init__(
    self,
    table: records.Table,
    rows: row_store.Rows | None,
    *,
    context: str,
    max_clips: int,
  ):
    """Wraps rows.

    Args:
      table: of the videos.
      rows: the streams of the context; None for 'tef', which has none.
      context: one of `layout.CONTEXTS`.
      max_clips: L.
    """
    streams = streams_of(context)
    self._rows = rows if streams else None
    self._counts = np.asarray(table.clips, np.int64)
    self._max, self._tef = max_clips, _TEF * ('tef' in context)
    widths = {s: rows.shapes[s][1] for s in streams} or {'video': 0}
    self.spec = {
      stream: ((max_clips, width + self._tef), np.dtype(np.float32))
      for stream, width in widths.items()
    }
    self.spec['clip_mask'] = ((max_clips,), np.dtype(bool))

  def read(self, videos: np.ndarray) -> dict[str, np.ndarray]:
    """Videos, int64 [b]; -1 gives zeros."""
    counts = np.where(videos >= 0, self._counts[np.maximum(videos, 0)], 0)
    if self._rows is None:
      out = {'video': np.zeros((len(videos), self._max, _TEF), np.float32)}
    else:
      found = self._rows.read(videos, spare=self._tef)
      out = {s: found[s][0] for s in self.spec if s in found}
    if self._tef:
      columns = features_lib.endpoints(counts, self._max)
      for value in out.values():
        value[..., -_TEF:] = columns
    out['clip_mask'] = np.arange(self._max) < counts[:, None]
    return out


class _Asked:
  """What pairs and queries share: the rows of queries."""

  def __init__(self, table, words):
    self._table, self._words = table, words
    self.numbers = np.asarray([r['desc_id'] for r in table.rows], np.int64)
    shape = tuple(words.shapes['query'])
    self._query_spec = {
      'query': (shape, np.dtype(np.float32)),
      'query_mask': (shape[:1], np.dtype(bool)),
    }

  def __len__(self) -> int:
    return len(self._table.rows)

  def _query(self, index):
    query, mask = self._words.read(index)['query']
    return {'query': query, 'query_mask': mask, '_mask': index >= 0}


class Pairs(_Asked):
  """All queries with their videos and moments, to train on.

  Attributes:
    ids: '<video>#<desc_id>'.
    numbers: int64 [q], desc_id.
    spec: see `data.source`.
  """

  def __init__(
    self,
    table: records.Table,
    clips: Clips,
    words: row_store.Rows,
    *,
    where: str = '',
  ):
    """Joins queries with their videos.

    Args:
      table: of both.
      clips: the videos.
      words: the stream 'query'.
      where: records, for errors.

    Raises:
      ValueError: a hidden test set.
    """
    super().__init__(table, words)
    _refuse_hidden(table, where, 'it can be searched but not trained on')
    self._clips = clips
    self._video, self._label = table.video_of_row, table.labels
    names = (table.videos[i] for i in self._video.tolist())
    self.ids = tuple(
      f'{name}#{number}'
      for name, number in zip(names, self.numbers.tolist(), strict=True)
    )
    self.spec = {
      **self._query_spec,
      **clips.spec,
      'span': ((2,), np.dtype(np.int32)),
      '_mask': ((), np.dtype(bool)),
    }

  def texts(self, index: np.ndarray) -> list[str]:
    """The sentences of rows."""
    return [self._table.rows[i]['desc'] for i in np.asarray(index).tolist()]

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    """See `data.source`."""
    del seeds  # Nothing is drawn.
    index = np.asarray(index)
    absent, safe = index < 0, np.maximum(index, 0)
    video = np.where(absent, source_lib.PADDING, self._video[safe])
    span = np.where(absent[:, None], 0, self._label[safe]).astype(np.int32)
    return {**self._query(index), **self._clips.read(video), 'span': span}


class Items:
  """One row per video.

  Attributes:
    ids: names of the videos.
    numbers: int64 [v], their ids in prediction files.
    durations: float64 [v], seconds.
    clip_seconds: length of a clip.
    spec: see `data.source`.
  """

  def __init__(
    self, table: records.Table, clips: Clips, *, videos: str | None = None
  ):
    """Wraps videos.

    Args:
      table: of the videos.
      clips: their features.
      videos: folder of files that can be played, for reports.
    """
    self._table, self._clips, self._folder = table, clips, videos
    self.ids = tuple(table.videos)
    self.numbers = np.asarray(table.numbers, np.int64)
    self.durations = np.asarray(table.seconds, np.float64)
    self.clip_seconds = float(table.clip_seconds)
    self.spec = {**clips.spec, '_mask': ((), np.dtype(bool))}

  def __len__(self) -> int:
    return len(self.ids)

  @property
  def videos(self) -> list[str | None]:
    """Per row, the path of a playable file, or None."""
    return [playable.find(self._folder, name) for name in self.ids]

  def captions(self, i: int) -> list[str]:
    """All sentences about a video, in the order of the annotations."""
    if not self._table.answered:
      return []
    rows = np.flatnonzero(self._table.video_of_row == i).tolist()
    return [self._table.rows[j]['desc'] for j in rows]

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    """See `data.source`."""
    del seeds  # Nothing is drawn.
    index = np.asarray(index)
    return {**self._clips.read(index), '_mask': index >= 0}


class Queries(_Asked):
  """One row per query, in the order of the annotations.

  Attributes:
    ids: str(desc_id).
    numbers: int64 [q], desc_id.
    texts: the sentences.
    kinds: per query 'v', 't' or 'vt': what of a video it is about; '' where
      that is not known.
    answered: False of a hidden test set.
    rows: the annotations, see `annotations.read`.
    spec: see `data.source`.
  """

  def __init__(
    self, table: records.Table, words: row_store.Rows, *, where: str = ''
  ):
    """Wraps queries.

    Args:
      table: of the queries.
      words: the stream 'query'.
      where: records, for errors.
    """
    super().__init__(table, words)
    self._where = where
    self.rows: Sequence[Mapping[str, Any]] = table.rows
    self.ids = tuple(str(number) for number in self.numbers.tolist())
    self.texts = [row['desc'] for row in table.rows]
    self.kinds = tuple(row.get('type', '') for row in table.rows)
    self.answered = table.answered
    self.spec = {**self._query_spec, '_mask': ((), np.dtype(bool))}

  def ground_truth(self, items) -> source_lib.GroundTruth:
    """Matches queries with videos.

    Returns:
      GroundTruth, with spans float64 [q, 2] in seconds; of several annotators
      the first one's.

    Raises:
      ValueError: a hidden test set, or items without the video of a query.
    """
    _refuse_hidden(self._table, self._where, 'there is nothing to compare with')
    place = {name: i for i, name in enumerate(items.ids)}
    names = [row['vid_name'] for row in self.rows]
    absent = [name for name in names if name not in place]
    if absent:
      raise ValueError(
        f'{self._where}: video {absent[0]!r} of a query is not among the '
        f'{len(place)} items. Use the same data and split for both.'
      )
    first = np.asarray([place[name] for name in names], np.int64)
    return source_lib.GroundTruth(
      self.ids, tuple(items.ids), first, spans=self._table.spans
    )

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    """See `data.source`."""
    del seeds  # Nothing is drawn.
    return self._query(np.asarray(index))


def _refuse_hidden(table, where, consequence):
  if not table.answered:
    raise ValueError(
      f'{where}: its annotations tell neither videos nor moments (a hidden '
      f'test set), so {consequence}. Use another split, or the views '
      "'items' and 'queries' to write predictions."
    )
