# SPDX-License-Identifier: Apache-2.0
"""The three views of clips with captions as role graphs.

  pairs    one row per (clip, caption), clip by clip
  items    one row per clip
  queries  one row per evaluated caption, equal captions kept

Batches: features float32 [b, f, d] and feature_mask bool [b, f] of clips; of
captions see `texts.Texts`; of pairs also the classes of caption and clip,
int32 [b, c], sorted, distinct, filled up with -1; _mask bool [b].
"""

from typing import Any

import numpy as np

from vidret_jax.data import playable
from vidret_jax.data import source as source_lib
from vidret_jax.data.graphs import classes as classes_lib
from vidret_jax.data.graphs import records, store, texts

VIEWS = ('pairs', 'items', 'queries')


class _Featured:
  """What pairs and items share: features of clips."""

  def __init__(self, clips: store.Clips):
    self._clips = clips

  def _feature_spec(self) -> dict[str, Any]:
    return {
      'features': (tuple(self._clips.shape), np.dtype(np.float32)),
      'feature_mask': (tuple(self._clips.shape[:1]), np.dtype(bool)),
      '_mask': ((), np.dtype(bool)),
    }

  def _features(self, clips: np.ndarray) -> dict[str, np.ndarray]:
    found, mask = self._clips.read(clips)
    return {'features': found, 'feature_mask': mask, '_mask': clips >= 0}


class Pairs(_Featured):
  """All (clip, caption) pairs, to train on.

  Attributes:
    ids: '<clip>#<caption slot>'.
    sizes: see `texts.Texts`.
    spec: see `data.source`; without classes where there are none.
  """

  def __init__(
    self,
    table: records.Table,
    clips: store.Clips,
    words: texts.Texts,
    *,
    pooled_share: float = 0.25,
  ):
    """Joins a table with its clips.

    Args:
      table: clips and captions.
      clips: their features.
      words: arrays of the table's texts.
      pooled_share: see `classes.pooled`.
    """
    super().__init__(clips)
    self._words = words
    self.sizes = words.sizes
    counts = [len(said) for said in table.captions]
    self._clip = np.repeat(np.arange(len(counts)), counts)
    self._text = np.concatenate([np.asarray(s) for s in table.captions])
    self._texts = table.texts
    self.ids = tuple(
      f'{clip}#{slot}'
      for clip, n in zip(table.ids, counts, strict=True)
      for slot in range(n)
    )
    self._caption, self._pooled = {}, {}
    if table.classes is not None:
      self._take_classes(table, pooled_share)
    self.spec = {**words.spec, **self._feature_spec()}
    for key, value in {**self._caption, **self._pooled}.items():
      self.spec[key] = (value.shape[1:], value.dtype)

  def _take_classes(self, table, share) -> None:
    for part, kind in enumerate(('verb', 'noun')):
      said = [[one[part] for one in clip] for clip in table.classes]
      own = classes_lib.padded([one for clip in said for one in clip])
      self._caption[f'{kind}_classes'] = own
      # One row serves all pairs of a clip. Where a clip has one caption
      # (EPIC-Kitchens-100), these are the caption's classes.
      pooled = [classes_lib.pooled(clip, share) for clip in said]
      self._pooled[f'video_{kind}_classes'] = classes_lib.padded(pooled)

  def __len__(self) -> int:
    return len(self.ids)

  def texts(self, index: np.ndarray) -> list[str]:
    """The captions of rows, as people read them."""
    rows = self._text[np.asarray(index)].tolist()
    return [self._texts[i] for i in rows]

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    """See `data.source`."""
    del seeds  # Nothing is drawn.
    index = np.asarray(index)
    absent, safe = index < 0, np.maximum(index, 0)
    none = source_lib.PADDING
    clip = np.where(absent, none, self._clip[safe])
    out = self._words.rows(np.where(absent, none, self._text[safe]))
    out |= self._features(clip)
    for key, value in self._caption.items():
      out[key] = value[safe]
    for key, value in self._pooled.items():
      out[key] = value[clip]
    for key in (*self._caption, *self._pooled):
      out[key][absent] = 0
    return out


class Items(_Featured):
  """One row per clip.

  Attributes:
    ids: of the clips.
    sizes: see `texts.Texts`.
    spec: see `data.source`.
  """

  def __init__(
    self,
    table: records.Table,
    clips: store.Clips,
    *,
    videos: str | None = None,
    sizes=(),
  ):
    """Wraps clips.

    Args:
      table: clips and captions.
      clips: their features.
      videos: folder of files that can be played, for reports.
      sizes: of what the captions are made of.
    """
    super().__init__(clips)
    self._table, self._videos = table, videos
    self.ids = tuple(table.ids)
    self.sizes = dict(sizes)
    self.spec = self._feature_spec()

  def __len__(self) -> int:
    return len(self.ids)

  @property
  def videos(self) -> list[str | None]:
    """Per row, the path of a playable file, or None."""
    return [playable.find(self._videos, clip) for clip in self.ids]

  def captions(self, i: int) -> list[str]:
    """All captions of a clip."""
    return [self._table.texts[text] for text in self._table.captions[i]]

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    """See `data.source`."""
    del seeds  # Nothing is drawn.
    return self._features(np.asarray(index))


class Queries:
  """One row per evaluated caption: the evaluation list of the split.

  Attributes:
    ids: '<clip>#<caption slot>', or 'narration#<row>' for a list of its own.
    texts: captions as people read them.
    sizes: see `texts.Texts`.
    spec: see `data.source`.
  """

  def __init__(
    self,
    table: records.Table,
    words: texts.Texts,
    relevance: np.ndarray | None = None,
    *,
    where: str = '',
  ):
    """Wraps the evaluated captions of a table.

    Args:
      table: clips and captions.
      words: arrays of the table's texts.
      relevance: float32 [q, v] or None.
      where: records, for errors.
    """
    self._table, self._words, self._where = table, words, where
    self._relevance = relevance
    self.sizes = words.sizes
    self._text = table.evaluated()
    self.texts = [table.texts[i] for i in self._text.tolist()]
    if table.owners is not None:
      self.ids = tuple(f'{table.ids[i]}#0' for i in table.owners)
    elif table.queries is not None:
      self.ids = tuple(f'narration#{i}' for i in range(len(self.texts)))
    else:
      self.ids = tuple(
        f'{clip}#{slot}'
        for clip, said in zip(table.ids, table.captions, strict=True)
        for slot in range(len(said))
      )
    self.spec = {**words.spec, '_mask': ((), np.dtype(bool))}
    if relevance is not None and relevance.shape != (
      want := (len(self.ids), len(table.ids))
    ):
      raise ValueError(
        f'{where}: the relevance matrix has shape {relevance.shape}, expected '
        f'{want}: queries x clips. Run prepare again with --overwrite.'
      )

  def __len__(self) -> int:
    return len(self.ids)

  def answers(self, items) -> tuple[np.ndarray, ...]:
    """Per query, rows of all clips that have its text among their captions.

    A query of its own list (EPIC-Kitchens-100) may have none. With 1k-A a
    query is answered by its own clip only.
    """
    self._check(items)
    table = self._table
    if table.owners is not None:
      return tuple(np.asarray([i], np.int64) for i in table.owners)
    having = [[] for _ in table.texts]
    for clip, said in enumerate(table.captions):
      for text in set(said):
        having[text].append(clip)
    having = [np.asarray(clips, np.int64) for clips in having]
    return tuple(having[i] for i in self._text.tolist())

  def ground_truth(self, items) -> source_lib.GroundTruth:
    """Matches queries with clips.

    Returns:
      GroundTruth: item_of_query is the first of the query's answers; where
      there is none, the clip of highest relevance (or the first). graded is
      float32 [q, v], mapped into memory, or None.

    Raises:
      ValueError: other items than the clips of this split.
    """
    first = np.zeros(len(self.ids), np.int64)
    for i, clips in enumerate(self.answers(items)):
      if len(clips):
        first[i] = clips[0]
      elif self._relevance is not None:
        first[i] = int(np.argmax(self._relevance[i]))
    return source_lib.GroundTruth(
      self.ids, tuple(items.ids), first, graded=self._relevance
    )

  def _check(self, items) -> None:
    if tuple(items.ids) != tuple(self._table.ids):
      raise ValueError(
        f'{self._where}: {len(items.ids)} items are not the '
        f'{len(self._table.ids)} clips of the queries in their order. Use the '
        'same data and split for queries and items.'
      )

  def gather(self, index, seeds) -> dict[str, np.ndarray]:
    """See `data.source`."""
    del seeds  # Nothing is drawn.
    index = np.asarray(index)
    rows = np.where(index < 0, index, self._text[np.maximum(index, 0)])
    return {**self._words.rows(rows), '_mask': index >= 0}
