# SPDX-License-Identifier: Apache-2.0
"""Records of videos that carry expert features, as packed columns.

One record is one video: captions, the token features of all its captions and
the rows of every expert. Rows of different length lie end to end in one array
per column, so a batch is a handful of block copies.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

_FLUSH_VALUES = 1 << 24  # Numbers that may wait before they are moved.


def features(
  experts: Mapping[str, int],
  text_dim: int,
  extra: Mapping[str, Any] | None = None,
):
  """The TFDS features of one record.

  Tensors are stored as raw bytes: they read eight times faster than lists of
  protobuf floats.

  Args:
    experts: name -> width.
    text_dim: width of a caption's tokens.
    extra: more keys of one dataset.

  Returns:
    `tfds.features.FeaturesDict`.
  """
  import tensorflow_datasets as tfds

  def rows(*shape, dtype=np.float32):
    return tfds.features.Tensor(
      shape=shape, dtype=dtype, encoding=tfds.features.Encoding.BYTES
    )

  return tfds.features.FeaturesDict(
    {
      'id': tfds.features.Text(),
      'captions': tfds.features.Sequence(tfds.features.Text()),
      'text': rows(None, text_dim),
      'text_len': rows(None, dtype=np.int32),
      'experts': {name: rows(None, dim) for name, dim in experts.items()},
      'available': {name: np.bool_ for name in experts},
      'video': tfds.features.Text(),
      **(extra or {}),
    }
  )


class Packed:
  """Rows of many owners, end to end.

  Attributes:
    flat: [sum of rows, d].
    offset: int64 [owners + 1]; owner i has flat[offset[i]:offset[i + 1]].
  """

  def __init__(self, dim: int, dtype=np.float32):
    self.flat = np.zeros((0, dim), dtype)
    self.offset = np.zeros(1, np.int64)
    self._lengths = []
    self._used = 0
    self._pending = []
    self._pending_rows = 0

  def append(self, rows: np.ndarray, lengths: Sequence[int]) -> None:
    """Adds the rows of len(lengths) owners."""
    self._pending.append(rows)
    self._pending_rows += len(rows)
    self._lengths.extend(lengths)
    if self._pending_rows * self.flat.shape[1] > _FLUSH_VALUES:
      self._flush(spare=1.25)

  def _flush(self, spare: float) -> None:
    """Moves what waits to the end of `flat`."""
    # Growing in place keeps the peak near the final size: a list of arrays
    # and its concatenation would hold everything twice.
    end = self._used + self._pending_rows
    if end > len(self.flat):
      size = (int(end * spare), self.flat.shape[1])
      self.flat.resize(size, refcheck=False)
    if self._pending:
      out = self.flat[self._used : end]
      np.concatenate(self._pending, out=out, casting='same_kind')
    self._used, self._pending, self._pending_rows = end, [], 0

  def close(self) -> None:
    """Ends the appending; `flat` and `offset` are ready."""
    self._flush(spare=1.0)
    self.flat.resize((self._used, self.flat.shape[1]), refcheck=False)
    self.offset = np.zeros(len(self._lengths) + 1, np.int64)
    np.cumsum(self._lengths, out=self.offset[1:])
    self._lengths = []

  def padded(
    self, start: np.ndarray, length: np.ndarray, n: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Cuts spans of rows to n and pads them with zeros.

    Args:
      start: int [b], first row of each span in `flat`.
      length: int [b], rows of each span.
      n: rows of the result.

    Returns:
      (float32 [b, n, d], bool [b, n] True where a row is real).
    """
    length = np.minimum(length, n)
    out = np.zeros((len(start), n, self.flat.shape[1]), np.float32)
    spans = zip(start.tolist(), length.tolist(), strict=True)
    for row, (first, size) in enumerate(spans):
      out[row, :size] = self.flat[first : first + size]
    return out, np.arange(n) < length[:, None]

  def spans(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(start, length) of owners; an index of -1 has length 0."""
    valid = index >= 0
    safe = np.where(valid, index, 0)
    start = np.where(valid, self.offset[safe], 0)
    return start, np.where(valid, self.offset[safe + 1] - start, 0)


@dataclasses.dataclass
class Columns:
  """A set of records, column by column.

  Attributes:
    ids: v video ids.
    captions: per video, its captions.
    videos: per video, a path relative to the corpus folder or ''.
    slots: per video, the captions evaluated, or None for all.
    text: owners are captions, video after video.
    first_caption: int64 [v + 1], video i has captions [i] to [i + 1].
    experts: name -> rows, owners are videos.
    available: name -> bool [v].
  """

  ids: list[str]
  captions: list[list[str]]
  videos: list[str]
  slots: list[np.ndarray | None]
  text: Packed
  first_caption: np.ndarray
  experts: dict[str, Packed]
  available: dict[str, np.ndarray]


def _text(value: bytes | str) -> str:
  return value.decode('utf-8') if isinstance(value, bytes) else str(value)


def _check_finite(array: np.ndarray, key: str, video: str, where: str) -> None:
  if not np.isfinite(array).all():
    row = int(np.flatnonzero(~np.isfinite(array).all(axis=-1))[0])
    raise ValueError(
      f'{where}: record {video!r}, key {key!r}, row {row}: expected finite '
      'features, found NaN or Inf. A missing expert must have zero rows and '
      'available=False. Rebuild the records: python -m vidret_jax.tools.prepare'
    )


def check_widths(
  found: Mapping[str, int],
  experts: Mapping[str, int],
  found_text: int,
  text_dim: int,
  where: str,
) -> None:
  """Compares what records hold with what a config asks for.

  Raises:
    ValueError: an expert that the records do not have, or another width.
  """
  for name, dim in experts.items():
    if name not in found:
      raise ValueError(
        f'{where}: unknown expert {name!r}. The records have '
        f'{sorted(found)}. Correct the name in `experts`, or rebuild the '
        'records with it: python -m vidret_jax.tools.prepare'
      )
    if found[name] != dim:
      raise ValueError(
        f'{where}: expert {name!r} has width {found[name]}, the config '
        f'expects {dim}. Set dim={found[name]} for it in `experts`, or '
        'rebuild the records from other features.'
      )
  if found_text != text_dim:
    raise ValueError(
      f'{where}: caption tokens have width {found_text}, the config expects '
      f'text.dim={text_dim}. Set text.dim={found_text}, or rebuild the records '
      'with another text encoder.'
    )


def pack(
  rows: Iterable[Mapping[str, Any]],
  experts: Mapping[str, int],
  text_dim: int,
  *,
  where: str,
  dtype=np.float32,
  meta_only: bool = False,
  check: bool = True,
) -> Columns:
  """Packs decoded records.

  Args:
    rows: records as TFDS decodes them.
    experts: name -> width of the experts to keep.
    text_dim: width of a token.
    where: folder and split, for errors.
    dtype: of the packed features; float16 halves the memory.
    meta_only: keep ids, captions and lengths but no features.
    check: refuse features that are not finite.

  Raises:
    ValueError: features that are not finite, wrong widths, or lengths that
      contradict each other.
  """
  out = Columns(
    ids=[],
    captions=[],
    videos=[],
    slots=[],
    text=Packed(0 if meta_only else text_dim, dtype),
    first_caption=np.zeros(1, np.int64),
    experts={
      name: Packed(dim, dtype) for name, dim in experts.items() if not meta_only
    },
    available={name: [] for name in experts},
  )
  counts = []
  for record in rows:
    video = _text(record['id'])
    lengths = np.asarray(record['text_len'], np.int64).reshape(-1)
    out.ids.append(video)
    out.captions.append([_text(c) for c in record['captions']])
    out.videos.append(_text(record['video']))
    slots = record.get('query_slots')
    slots = np.asarray([] if slots is None else slots, np.int64).reshape(-1)
    out.slots.append(slots if slots.size else None)
    counts.append(len(lengths))
    text = np.asarray(record['text'])
    if len(text) != lengths.sum():
      raise ValueError(
        f'{where}: record {video!r}: text_len sums to {lengths.sum()}, but '
        f'`text` has {len(text)} rows. Rebuild the records.'
      )
    if check:
      _check_finite(text, 'text', video, where)
    out.text.append(text[:, :0] if meta_only else text, lengths.tolist())
    for name in experts:
      out.available[name].append(bool(record['available'][name]))
      value = np.asarray(record['experts'][name])
      if check:
        _check_finite(value, f'experts/{name}', video, where)
      if not meta_only:
        out.experts[name].append(value, [len(value)])
  out.text.close()
  for packed in out.experts.values():
    packed.close()
  out.available = {k: np.asarray(v, bool) for k, v in out.available.items()}
  out.first_caption = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
  return out
