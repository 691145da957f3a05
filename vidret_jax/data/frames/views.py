# SPDX-License-Identifier: Apache-2.0
"""The three views of a set of videos as frames.

  pairs    one row per (video, caption), or per video with a drawn caption
  items    one row per video
  queries  one row per caption, video after video

Batches: text int32 [b, l], frames uint8 [b, f, R, R, 3], frame_mask bool
[b, f] and _mask bool [b]. A video that cannot be read has no frame: its
frame_mask is False everywhere, and a pair with it is no example.
"""

import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.data import splitmix
from vidret_jax.data.frames import captions as captions_lib
from vidret_jax.data.frames import select as select_lib
from vidret_jax.data.frames import store

VIEWS = ('pairs', 'items', 'queries')
ORDERS = select_lib.ORDERS
CAPTIONS = ('all', 'one')
# Streams of the random numbers of a row.
_CAPTION, _VARIANT, _FRAME = 0, 1, 16


class Tokens:
  """Token rows of captions; each is made when first asked for."""

  def __init__(self, tokenizer, texts, max_words: int, where: str):
    tokenizer.rows([], max_words)  # Refuses a bad max_words now.
    self._where = where
    self._tokenizer = tokenizer
    self._texts = texts
    self._max_words = max_words
    self._rows = np.zeros((len(texts), max_words), np.int32)
    self._done = np.zeros(len(texts), bool)

  def __getitem__(self, index: np.ndarray) -> np.ndarray:
    """int32 [b, l] of int64 [b]; -1 gives zeros."""
    valid = index >= 0
    new = np.unique(index[valid])
    new = new[~self._done[new]]
    if new.size:
      # Threads may make the same row: they make it equal.
      said = [self._texts[i] for i in new.tolist()]
      self._rows[new] = self._tokenizer.rows(said, self._max_words)
      self._done[new] = True
      if self._done.all():
        self._tokenizer.report(self._where, len(self._texts))
    out = np.zeros((len(index), self._max_words), np.int32)
    out[valid] = self._rows[index[valid]]
    return out


def ordered(
  frames: np.ndarray, count: np.ndarray, order: str, seeds: np.ndarray
) -> np.ndarray:
  """Puts the frames of every clip in another order, padding last.

  Upstream does the same after it has chosen the frames (train_frame_order,
  eval_frame_order).

  Args:
    frames: [b, f, ...].
    count: int [b], frames of each clip.
    order: one of `ORDERS`.
    seeds: int64 [b], of 'shuffled'.
  """
  if order == 'as_is':
    return frames
  slots = np.arange(frames.shape[1])
  real = slots < count[:, None]
  if order == 'reversed':
    key = -slots.astype(np.float64)[None]
  else:
    drawn = [splitmix.uniform(seeds, _FRAME + s) for s in slots.tolist()]
    key = np.stack(drawn, axis=1)
  place = np.argsort(np.where(real, key, slots + 1), axis=1, kind='stable')
  return np.take_along_axis(
    frames, place.reshape(*place.shape, *[1] * (frames.ndim - 2)), axis=1
  )


class _Framed:
  """What pairs and items share: clips of a table, in a frame order."""

  def __init__(self, table: captions_lib.Table, clips: store.Clips, order: str):
    if order not in ORDERS:
      raise ValueError(
        f'frame_order={order!r} is unknown; choose from {ORDERS}.'
      )
    self._table, self._clips, self._order = table, clips, order

  def __len__(self) -> int:
    return len(self.ids)

  @property
  def unreadable(self) -> dict[str, str]:
    """Id -> why, of the videos found to have no frames so far."""
    return dict(self._clips.unreadable)

  def _frame_spec(self) -> dict[str, Any]:
    return {
      'frames': (self._clips.shape, np.dtype(np.uint8)),
      'frame_mask': (self._clips.shape[:1], np.dtype(bool)),
      '_mask': ((), np.dtype(bool)),
    }

  def _frames(self, videos, seeds) -> dict[str, np.ndarray]:
    frames, count = self._clips.read(videos)
    return {
      'frames': ordered(frames, count, self._order, seeds),
      'frame_mask': np.arange(frames.shape[1]) < count[:, None],
    }


class Pairs(_Framed):
  """Videos with captions, to train on.

  Attributes:
    ids: '<video id>#<caption slot>', or video ids where captions are drawn.
  """

  def __init__(
    self,
    table: captions_lib.Table,
    clips: store.Clips,
    tokenizer,
    *,
    max_words: int,
    captions: str = 'all',
    order: str = 'as_is',
  ):
    """Joins a table with its clips.

    Args:
      table: videos and captions.
      clips: their frames.
      tokenizer: `vidret_jax.data.tokenizer.Tokenizer`.
      max_words: tokens of a row, start and end included.
      captions: 'all' makes every caption a row, in file order; 'one' makes
        every video a row, whose caption is drawn from the row's seed.
      order: of the frames, one of `ORDERS`.

    Raises:
      ValueError: an unknown option.
    """
    super().__init__(table, clips, order)
    if captions not in CAPTIONS:
      raise ValueError(
        f'captions={captions!r} is unknown; choose from {CAPTIONS}.'
      )
    self._count = np.asarray([len(said) for said in table.captions])
    self._first = np.concatenate([[0], np.cumsum(self._count)])
    self._drawn = captions == 'one'
    self._rows = table.rows
    if self._drawn:
      self.ids = tuple(table.ids)
    else:
      self.ids = tuple(f'{table.ids[v]}#{s}' for v, s in table.rows.tolist())
    every = (table.captions, *table.variants)
    self._texts = [c for version in every for said in version for c in said]
    self._variants = len(every)
    self._tokens = Tokens(tokenizer, self._texts, max_words, table.where)
    self.spec = {
      'text': ((max_words,), np.dtype(np.int32)),
      **self._frame_spec(),
    }

  def picks(self, index: np.ndarray, seeds: np.ndarray):
    """What rows hold: (video int64 [b], number of the caption int64 [b])."""
    valid, safe = index >= 0, np.maximum(index, 0)
    if self._drawn:
      video = safe
      count = self._count[video]
      slot = (splitmix.uniform(seeds, _CAPTION) * count).astype(np.int64)
      slot = np.minimum(slot, count - 1)
    else:
      video, slot = self._rows[safe].T
    caption = self._first[video] + slot
    if self._variants > 1:
      # One of the paraphrases of the same row.
      drawn = splitmix.uniform(seeds, _VARIANT) * self._variants
      caption = caption + self._first[-1] * drawn.astype(np.int64)
    none = source_lib.PADDING
    return np.where(valid, video, none), np.where(valid, caption, none)

  def texts(self, index: np.ndarray, seeds: np.ndarray) -> list[str]:
    """The captions that `gather` would give, as people read them."""
    _, caption = self.picks(np.asarray(index), np.asarray(seeds))
    return [self._texts[i] if i >= 0 else '' for i in caption.tolist()]

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    index, seeds = np.asarray(index), np.asarray(seeds)
    video, caption = self.picks(index, seeds)
    out = {'text': self._tokens[caption], **self._frames(video, seeds)}
    # Without a frame there is nothing to learn from. (Upstream's loss becomes
    # NaN there.)
    return {**out, '_mask': out['frame_mask'].any(axis=1)}


class Items(_Framed):
  """One row per video.

  Attributes:
    ids: video ids.
  """

  def __init__(self, table, clips: store.Clips, *, order: str = 'as_is'):
    super().__init__(table, clips, order)
    self.ids = tuple(table.ids)
    self.spec = self._frame_spec()

  @property
  def videos(self) -> list[str | None]:
    """Per row, the path of a playable file; a folder of frames is none."""
    return [
      str(path) if path and pathlib.Path(path).is_file() else None
      for path in self._clips.paths
    ]

  def captions(self, i: int) -> list[str]:
    """All captions of a video."""
    return list(self._table.captions[i])

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    index = np.asarray(index)
    return {**self._frames(index, np.asarray(seeds)), '_mask': index >= 0}


class Queries:
  """One row per caption: of the first video, of the second, and so on.

  Attributes:
    ids: '<video id>#<caption slot>'.
    texts: captions as people read them.
  """

  def __init__(self, table, tokenizer, *, max_words: int):
    self._where = table.where
    self._videos = table.ids
    counts = [len(said) for said in table.captions]
    self._video = np.repeat(np.arange(len(counts)), counts)
    self.texts = [c for said in table.captions for c in said]
    self.ids = tuple(
      f'{video}#{slot}'
      for video, n in zip(table.ids, counts, strict=True)
      for slot in range(n)
    )
    self._tokens = Tokens(tokenizer, self.texts, max_words, table.where)
    self.spec = {
      'text': ((max_words,), np.dtype(np.int32)),
      '_mask': ((), np.dtype(bool)),
    }

  def __len__(self) -> int:
    return len(self.ids)

  def ground_truth(self, items: Items) -> source_lib.GroundTruth:
    """Matches every query with its video among the items.

    Raises:
      ValueError: a query whose video is not an item.
    """
    place = {video: i for i, video in enumerate(items.ids)}
    absent = [video for video in self._videos if video not in place]
    if absent:
      raise ValueError(
        f'{self._where}: {len(absent)} query videos are not among the '
        f'{len(items.ids)} items, the first is {absent[0]!r}. Use the same '
        'split for queries and items.'
      )
    row = np.asarray([place[video] for video in self._videos], np.int64)
    return source_lib.GroundTruth(self.ids, tuple(items.ids), row[self._video])

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    del seeds  # Nothing is drawn.
    index = np.asarray(index)
    return {'text': self._tokens[index], '_mask': index >= 0}
