# SPDX-License-Identifier: Apache-2.0
"""How the arrays of one item lie side by side in a row of bytes."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from vidret_jax import sharding

HALVES = ('float16', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the arrays of one item lie in a row of bytes.

  Attributes:
    names: of the leaves, 'frames' or 'deep/frames', in the order of
      `jax.tree.leaves`.
    shapes: of one item's part of each leaf.
    dtypes: as the encoder makes them, by name.
    kept: as they are kept, by name.
  """

  names: tuple[str, ...]
  shapes: tuple[tuple[int, ...], ...]
  dtypes: tuple[str, ...]
  kept: tuple[str, ...]

  @property
  def leaf_bytes(self) -> list[int]:
    """Bytes of each leaf of one item."""
    return [
      math.prod(s) * np.dtype(k).itemsize
      for s, k in zip(self.shapes, self.kept)
    ]

  @property
  def row_bytes(self) -> int:
    """Bytes of one item."""
    return sum(self.leaf_bytes)

  def tree(self, leaves: Sequence[Any]) -> dict[str, Any]:
    """Leaves as the (nested) dict they came from."""
    out: dict[str, Any] = {}
    for name, leaf in zip(self.names, leaves, strict=True):
      *path, last = name.split('/')
      node = out
      for key in path:
        node = node.setdefault(key, {})
      node[last] = leaf
    return out

  def leaves(self, block: Mapping[str, Any]) -> list[Any]:
    """Leaves of a block of items.

    Raises:
      ValueError: they are not those of this layout; names the first that
        differs.
    """
    flat = _flat(block)
    shapes = [tuple(x.shape[1:]) for _, x in flat]
    have = {
      n: (s, str(x.dtype)) for (n, x), s in zip(flat, shapes, strict=True)
    }
    want = dict(zip(self.names, zip(self.shapes, self.dtypes)))
    for name in sorted({*have, *want}):
      if have.get(name) != want.get(name):
        raise ValueError(
          f'embedding {name!r} of an item is {_said(have.get(name))}, items '
          f'before it have {_said(want.get(name))}.'
        )
    return [x for _, x in flat]

  def to_json(self) -> list[dict[str, Any]]:
    """What `from_json` reads."""
    return [
      dict(name=n, shape=list(s), dtype=d, kept=k)
      for n, s, d, k in zip(self.names, self.shapes, self.dtypes, self.kept)
    ]

  @classmethod
  def from_json(cls, entries: Sequence[Mapping[str, Any]]) -> 'Layout':
    """Reads a layout.

    Raises:
      ValueError, TypeError, KeyError: it is none.
    """
    for e in entries:
      for key in ('dtype', 'kept'):
        if np.dtype(e[key]).hasobject:
          raise ValueError(f'{key} of {e["name"]!r} is {e[key]!r}')
      if any(not isinstance(n, int) or n < 0 for n in e['shape']):
        raise ValueError(f'shape of {e["name"]!r} is {e["shape"]!r}')
    return cls(
      tuple(str(e['name']) for e in entries),
      tuple(tuple(e['shape']) for e in entries),
      tuple(str(np.dtype(e['dtype'])) for e in entries),
      tuple(str(np.dtype(e['kept'])) for e in entries),
    )


def check_dtype(dtype: str | None) -> None:
  """Raises ValueError unless floats can be kept in this type."""
  if dtype not in (None, 'float32', *HALVES):
    raise ValueError(
      f'dtype {dtype!r}: expected float32, {", ".join(HALVES)} or None.'
    )


def layout_of(
  block: Mapping[str, Any],
  dtype: str | None = None,
  exact: Sequence[str] = (),
) -> Layout:
  """The layout for blocks like this one.

  Args:
    block: arrays [size, ...].
    dtype: floats are kept in this type; None: as they come.
    exact: keys of the block that are kept as they come.

  Raises:
    ValueError: a leaf without the axis of items, or an unknown dtype.
  """
  check_dtype(dtype)
  names, shapes, dtypes, kept = [], [], [], []
  for name, x in _flat(block):
    if not x.shape:
      raise ValueError(f'embedding {name!r} has no axis of items.')
    change = (
      dtype is not None
      and jax.dtypes.issubdtype(x.dtype, np.floating)
      and name.split('/')[0] not in exact
    )
    names.append(name)
    shapes.append(tuple(x.shape[1:]))
    dtypes.append(str(x.dtype))
    kept.append(dtype if change else str(x.dtype))
  return Layout(*map(tuple, (names, shapes, dtypes, kept)))


def pack(leaves: Sequence[np.ndarray], layout: Layout) -> np.ndarray:
  """Rows of bytes, uint8 [n, row_bytes], of leaves [n, ...]."""
  parts = [_bytes(x, kept) for x, kept in zip(leaves, layout.kept)]
  return np.concatenate(parts, axis=1)


def unpack(data: bytes, layout: Layout, size: int) -> dict[str, Any]:
  """The dict of arrays [size, ...] in the types kept, of rows of bytes.

  Fewer rows are padded with zeros.
  """
  packed = np.frombuffer(data, np.uint8).reshape(-1, layout.row_bytes)
  packed = np.pad(packed, ((0, size - len(packed)), (0, 0)))
  ends = np.cumsum(layout.leaf_bytes)
  parts = [
    np.ascontiguousarray(packed[:, end - size : end])
    for end, size in zip(ends, layout.leaf_bytes)
  ]
  return layout.tree(
    [
      part.reshape(-1).view(np.dtype(kept)).reshape(len(part), *shape)
      for part, kept, shape in zip(parts, layout.kept, layout.shapes)
    ]
  )


def kept_leaves(
  layout: Layout, part: Mapping[str, Any], ids: Sequence[str]
) -> list[np.ndarray]:
  """Leaves of the embeddings of named items, in the types kept.

  Raises:
    ValueError: they are not for these items, or one of them is not finite.
  """
  out = []
  for name, kept, x in zip(layout.names, layout.kept, layout.leaves(part)):
    if len(x) != len(ids):
      raise ValueError(f'{len(ids)} ids, but {len(x)} embeddings {name!r}.')
    with np.errstate(over='ignore'):
      x = np.asarray(x).astype(np.dtype(kept), copy=False)
    if jax.dtypes.issubdtype(x.dtype, np.inexact):
      bad = ~np.isfinite(x).reshape(len(x), -1).all(1)
      if bad.any():
        raise ValueError(
          f'embedding {name!r} of {ids[bad.argmax()]!r}, as {kept}, is not '
          'finite.'
        )
    out.append(x)
  return out


def _bytes(x: np.ndarray, kept: str) -> np.ndarray:
  x = np.ascontiguousarray(np.asarray(x).astype(np.dtype(kept), copy=False))
  width = math.prod(x.shape[1:]) * x.dtype.itemsize
  return x.reshape(-1).view(np.uint8).reshape(len(x), width)


def _flat(block):
  return [
    (sharding.path_name(path), x)
    for path, x in jax.tree_util.tree_leaves_with_path(block)
  ]


def _said(entry):
  return 'absent' if entry is None else f'{entry[1]} {list(entry[0])}'
