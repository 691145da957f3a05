# SPDX-License-Identifier: Apache-2.0
"""The three views of a set of records; see `vidret_jax.data.experts`."""

import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.data import splitmix
from vidret_jax.data.batch_layout import BatchLayout
from vidret_jax.data.store import Records


class _View:
  """What the three views share."""

  def __init__(self, records: Records, layout: BatchLayout):
    self._records = records
    self._layout = layout

  def __len__(self) -> int:
    return len(self.ids)

  def _video_part(self, columns, rows, index) -> dict[str, Any]:
    """Experts and availability of videos; rows of -1 are empty."""
    experts, masks = {}, {}
    available = self._available(index)
    for m, name in enumerate(self._layout.names):
      packed = columns.experts[name]
      start, length = packed.spans(rows)
      length = np.where(available[:, m], length, 0)
      n = self._layout.lengths.get(name)
      value, mask = packed.padded(start, length, n or 1)
      if n is None:
        experts[name] = value[:, 0]
      else:
        experts[name], masks[name] = value, mask
    out = {'experts': experts, 'available': available}
    return {**out, 'experts_mask': masks} if masks else out

  def _available(self, video: np.ndarray) -> np.ndarray:
    """bool [b, m], which experts the videos have; -1 has none."""
    safe = np.maximum(video, 0)
    known = self._records.meta.available
    have = np.stack([known[n][safe] for n in self._layout.names], axis=1)
    return have & (video >= 0)[:, None]

  def _text_part(self, columns, start, length) -> dict[str, Any]:
    text, mask = columns.text.padded(start, length, self._layout.text_len)
    return {'text': text, 'text_mask': mask}

  def _caption_count(self, max_captions: int | None) -> np.ndarray:
    """int64 [v], captions of each video that a view may use."""
    count = self._records.caption_count
    return count if max_captions is None else np.minimum(count, max_captions)


class Items(_View):
  """One row per video.

  Attributes:
    ids: video ids.
    videos: per row, the path of a playable file, or None.
    names: expert names in the order of `available`.
  """

  def __init__(self, records: Records, layout: BatchLayout):
    super().__init__(records, layout)
    self.ids = tuple(records.meta.ids)
    self.names = layout.names
    self.spec = {**layout.video_spec(), '_mask': ((), np.dtype(bool))}

  @property
  def videos(self) -> list[str | None]:
    corpus = self._records.corpus
    return [_playable(corpus, path) for path in self._records.meta.videos]

  def captions(self, i: int) -> list[str]:
    """All captions of a video."""
    return list(self._records.meta.captions[i])

  def gather(self, index, seeds) -> dict[str, Any]:
    del seeds  # Nothing is drawn.
    index = np.asarray(index)
    columns, rows = self._records.read(index)
    return {**self._video_part(columns, rows, index), '_mask': index >= 0}


class Pairs(_View):
  """One row per video: its experts and one caption drawn from the row seed."""

  def __init__(
    self,
    records: Records,
    layout: BatchLayout,
    *,
    fuse: bool,
    max_captions: int | None,
    text_dropout: float,
    caption_masks,
    teachers,
  ):
    super().__init__(records, layout)
    self.ids = tuple(records.meta.ids)
    self._fuse = fuse
    self._count = self._caption_count(max_captions)
    self._text_dropout = text_dropout
    self._masks = caption_masks
    self._teachers = teachers
    self.spec = {
      **layout.text_spec(),
      **layout.video_spec(),
      '_mask': ((), np.dtype(bool)),
    }
    if caption_masks is not None:
      caption_masks.bind(self.ids, self._count)
    if teachers is not None:
      shape = teachers.bind(self.ids, None if fuse else self._count)
      for key in ('teacher_text', 'teacher_video'):
        self.spec[key] = (shape, np.dtype(np.float32))

  def picks(self, index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """int64 [b], the caption slot that each row draws; 0 when fused."""
    if self._fuse:
      return np.zeros(len(index), np.int64)
    uniform = splitmix.uniform(seeds, 0)
    if self._masks is not None:
      return self._masks.draw(index, uniform)
    count = self._count[np.maximum(index, 0)]
    return np.minimum((uniform * count).astype(np.int64), count - 1)

  def gather(self, index, seeds) -> dict[str, Any]:
    index, seeds = np.asarray(index), np.asarray(seeds)
    columns, rows = self._records.read(index)
    slots = self.picks(index, seeds)
    start, length = _caption_spans(
      columns, rows, slots, self._count[np.maximum(index, 0)], self._fuse
    )
    text = self._text_part(columns, start, length)
    if self._text_dropout:
      self._drop_tokens(text, columns, start, length, seeds)
    out = {
      **text,
      **self._video_part(columns, rows, index),
      '_mask': index >= 0,
    }
    if self._teachers is not None:
      out['teacher_text'], out['teacher_video'] = self._teachers.gather(
        index, slots
      )
    return out

  def _drop_tokens(self, text, columns, start, length, seeds) -> None:
    """Drops each token with probability 1/2 from a share of the captions."""
    hit = (splitmix.uniform(seeds, 1) < self._text_dropout) & (length > 0)
    for row in np.flatnonzero(hit):
      tokens = np.arange(length[row])
      seed = np.full(len(tokens), seeds[row])
      keep = splitmix.uniform(seed, 2 + tokens) >= 0.5
      if not keep.any():
        place = splitmix.uniform(seed[:1], 2)[0] * len(keep)
        keep[int(place)] = True
      tokens = tokens[keep][: self._layout.text_len]
      text['text'][row] = 0
      text['text'][row, : len(tokens)] = columns.text.flat[start[row] + tokens]
      text['text_mask'][row] = np.arange(self._layout.text_len) < len(tokens)


class Queries(_View):
  """One row per caption that exists.

  Attributes:
    ids: '<video id>#<caption slot>'.
    texts: captions as people read them.
  """

  def __init__(
    self,
    records: Records,
    layout: BatchLayout,
    *,
    fuse: bool,
    max_captions: int | None,
    average: bool,
    own_available: bool,
  ):
    super().__init__(records, layout)
    self._fuse = fuse
    self._own_available = own_available
    meta = records.meta
    count = self._caption_count(max_captions)
    if fuse or average:
      chosen = [np.zeros(1, np.int64)] * len(meta.ids)
    else:
      chosen = [
        np.arange(n) if slots is None else slots
        for n, slots in zip(count.tolist(), meta.slots, strict=True)
      ]
    self._count = count
    self._slots = int(count.max(initial=1)) if average and not fuse else None
    self._video = np.repeat(
      np.arange(len(meta.ids)), [len(slots) for slots in chosen]
    )
    self._slot = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    for video, slot in zip(self._video, self._slot, strict=True):
      if slot >= records.caption_count[video]:
        raise ValueError(
          f'{records.where}: caption {slot} of video {meta.ids[video]!r} is '
          f'to be evaluated, but it has {records.caption_count[video]}.'
        )
    self.ids = tuple(
      f'{meta.ids[v]}#{s}' for v, s in zip(self._video, self._slot, strict=True)
    )
    self.spec = {
      **layout.text_spec(self._slots),
      '_mask': ((), np.dtype(bool)),
    }
    if own_available:
      self.spec['available'] = ((len(layout.names),), np.dtype(bool))

  @property
  def texts(self) -> list[str]:
    captions = self._records.meta.captions
    if self._fuse or self._slots:
      return [' '.join(captions[v]) for v in self._video]
    pairs = zip(self._video, self._slot, strict=True)
    return [captions[v][s] for v, s in pairs]

  def ground_truth(self, items: Items) -> source_lib.GroundTruth:
    """Matches every query with its video among the items.

    Raises:
      ValueError: a query whose video is not an item.
    """
    place = {video: i for i, video in enumerate(items.ids)}
    ids = self._records.meta.ids
    absent = sorted({ids[v] for v in self._video} - set(place))
    if absent:
      raise ValueError(
        f'{self._records.where}: {len(absent)} query videos are not among the '
        f'{len(items.ids)} items, the first is {absent[0]!r}. Use the same '
        'split for queries and items.'
      )
    item = np.asarray([place[ids[v]] for v in self._video], np.int64)
    return source_lib.GroundTruth(self.ids, tuple(items.ids), item)

  def gather(self, index, seeds) -> dict[str, Any]:
    del seeds  # Nothing is drawn.
    index = np.asarray(index)
    valid, safe = index >= 0, np.maximum(index, 0)
    video = np.where(valid, self._video[safe], source_lib.PADDING)
    columns, rows = self._records.read(video, experts=False)
    count = self._count[np.maximum(video, 0)]
    if self._slots:
      slot = np.tile(np.arange(self._slots), len(index))
      count = np.repeat(count, self._slots)
      rows_of = np.where(slot < count, np.repeat(rows, self._slots), -1)
      start, length = _caption_spans(columns, rows_of, slot, count, False)
      text = {
        key: value.reshape(len(index), self._slots, *value.shape[1:])
        for key, value in self._text_part(columns, start, length).items()
      }
    else:
      start, length = _caption_spans(
        columns, rows, self._slot[safe], count, self._fuse
      )
      text = self._text_part(columns, start, length)
    out = {**text, '_mask': valid}
    if self._own_available:
      out['available'] = self._available(video)
    return out


def _caption_spans(columns, rows, slots, count, fuse):
  """(start, length) in the token rows of one caption, or of all when fused."""
  valid = rows >= 0
  first = columns.first_caption[np.maximum(rows, 0)]
  begin = first if fuse else first + slots
  end = first + count if fuse else begin + 1
  offset = columns.text.offset
  begin, end = np.where(valid, begin, 0), np.where(valid, end, 0)
  return offset[begin], offset[end] - offset[begin]


def _playable(corpus: str | None, path: str) -> str | None:
  if not corpus or not path:
    return None
  # Joining must not leave the corpus folder, whatever the record says.
  base = pathlib.Path(corpus)
  file = base / path
  if '..' in pathlib.PurePath(path).parts or pathlib.Path(path).is_absolute():
    return None
  return str(file) if file.is_file() else None
