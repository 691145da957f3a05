# SPDX-License-Identifier: Apache-2.0
"""TeachText: embeddings of teachers, and masks that leave out noisy captions.

Files are those of the TeachText release (Croitoru et al., ICCV 2021).
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import containers, features, pickles, records


def find(path: str, corpus: str | None) -> pathlib.Path:
  """A file given as it is, or relative to the corpus or its feature folder.

  Raises:
    MissingFile: listing what was tried.
  """
  tried = [pathlib.Path(path)]
  if corpus:
    home = pathlib.Path(corpus)
    tried += [home / path, home / 'structured-symlinks' / path]
    tried.append(home / 'high-quality' / 'structured-symlinks' / path)
  for file in tried:
    if file.is_file():
      return file
  raise features.MissingFile(
    f'{path}: no such file. Looked at {", ".join(map(str, tried))}. TeachText '
    'publishes teachers and masks with its features; put the file there.'
  )


def _lookup(table: Any, video: str, path: pathlib.Path) -> Any:
  if not isinstance(table, Mapping):
    raise ValueError(
      f'{path}: expected a dict of video id to values, found '
      f'{type(table).__name__}. Fetch the file again.'
    )
  return containers.look_up([(path, table)], video)[1]


class CaptionMasks:
  """Chooses among the captions that a mask keeps.

  A mask is one array of 0 and 1 per video; a caption is drawn with
  probability mask / sum(mask).
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._table = pickles.load(path)

  def bind(self, ids: Sequence[str], count: np.ndarray) -> None:
    """Packs the masks of the training videos.

    Args:
      ids: videos, in row order.
      count: int [v], captions of each video that may be drawn.

    Raises:
      ValueError: a video without a mask.
      ValueError: a mask that is too short, not of 0 and 1, or keeps nothing.
    """
    masks = []
    for video, n in zip(ids, count.tolist(), strict=True):
      mask = np.asarray(_lookup(self._table, video, self._path), float).ravel()
      if len(mask) < n or not np.isin(mask, (0, 1)).all():
        raise ValueError(
          f'{self._path}: video {video!r}: expected {n} values of 0 or 1, one '
          f'per caption, found {len(mask)} values. Use the masks made for '
          'these captions.'
        )
      if not mask[:n].any():
        raise ValueError(
          f'{self._path}: video {video!r}: the mask keeps none of its {n} '
          'captions. Take the video off the training list (training_file).'
        )
      masks.append(np.flatnonzero(mask[:n]))
    self._kept = np.concatenate(masks)
    self._size = np.asarray([len(m) for m in masks], np.int64)
    self._start = np.cumsum(self._size) - self._size

  def draw(self, index: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """int64 [b], a kept caption of each video.

    Args:
      index: int64 [b], videos; -1 draws for video 0.
      uniform: float [b] in [0, 1).
    """
    row = np.maximum(index, 0)
    size = self._size[row]
    pick = np.minimum((uniform * size).astype(np.int64), size - 1)
    return self._kept[self._start[row] + pick]


class Teachers:
  """Embeddings that trained teachers gave to the training data.

  Per teacher and video: `vid_embds` {expert: [d]} and `text_embds` {expert:
  [captions, d]}. The experts' embeddings lie side by side, in name order, so
  that one dot product sums over experts.
  """

  def __init__(self, paths: Sequence[pathlib.Path]):
    if not paths:
      raise ValueError('`teachers` names no file; name one or leave it out.')
    self._paths = list(paths)

  def bind(
    self, ids: Sequence[str], count: np.ndarray | None
  ) -> tuple[int, int]:
    """Reads and packs the embeddings of the training videos.

    Args:
      ids: videos, in row order.
      count: int [v], captions that may be drawn; None when captions are fused.

    Returns:
      (t, e): teachers, width of the widest.

    Raises:
      ValueError: a teacher that does not know a video.
      ValueError: embeddings that do not fit each other or the captions.
    """
    counts = [1] * len(ids) if count is None else count.tolist()
    self._text, self._video = [], []
    for path in self._paths:
      table = pickles.load(path)
      names, text, video = None, None, []
      for key, n in zip(ids, counts, strict=True):
        entry = _lookup(table, key, path)
        names = names or sorted(entry['vid_embds'])
        spoken = _side_by_side(entry['text_embds'], names, n, path, key)
        seen = _side_by_side(entry['vid_embds'], names, 1, path, key)
        if text is None:
          text = records.Packed(spoken.shape[1])
        if spoken.shape[1] != text.flat.shape[1] or seen.shape != (
          1,
          text.flat.shape[1],
        ):
          raise ValueError(
            f'{path}: video {key!r}: embeddings of width {spoken.shape[1]} '
            f'(text) and {seen.shape[1]} (video), expected '
            f'{text.flat.shape[1]}. Fetch the file again.'
          )
        text.append(spoken, [len(spoken)])
        video.append(seen[0])
      text.close()
      self._text.append(text)
      self._video.append(np.stack(video))
    self._width = max(v.shape[1] for v in self._video)
    return len(self._paths), self._width

  def gather(
    self, index: np.ndarray, slots: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of a batch.

    Args:
      index: int64 [b], videos; -1 gives zeros.
      slots: int64 [b], the captions drawn.

    Returns:
      (float32 [b, t, e] of the captions, float32 [b, t, e] of the videos).
    """
    shape = (len(index), len(self._paths), self._width)
    text, video = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    valid = index >= 0
    row = index[valid]
    for t, (packed, seen) in enumerate(
      zip(self._text, self._video, strict=True)
    ):
      width = seen.shape[1]
      text[valid, t, :width] = packed.flat[packed.offset[row] + slots[valid]]
      video[valid, t, :width] = seen[row]
    return text, video


def _side_by_side(table, names, count, path, video) -> np.ndarray:
  """float32 [count, e]; the first `count` rows of each expert, joined."""
  parts = []
  for name in names:
    if name not in table:
      raise ValueError(
        f'{path}: video {video!r} has no expert {name!r}, only '
        f'{sorted(table)}. Every entry of a teacher needs the same experts.'
      )
    value = np.asarray(table[name], np.float32)
    value = value.reshape(-1, value.shape[-1]) if value.ndim else value
    if value.ndim != 2 or len(value) < count:
      raise ValueError(
        f'{path}: video {video!r}, expert {name!r}: expected {count} '
        f'embeddings, found shape {value.shape}. Use the teacher that was '
        'trained on these captions.'
      )
    parts.append(value[:count])
  joined = np.concatenate(parts, axis=1)
  if not np.isfinite(joined).all():
    raise ValueError(
      f'{path}: video {video!r}: expected finite embeddings, found NaN or Inf. '
      'Make the teacher file again.'
    )
  return joined
