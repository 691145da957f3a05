# SPDX-License-Identifier: Apache-2.0
"""What the second stage needs of the items: on the devices, or in a file.

A bank (`search.bank`) is read from one end to the other; of a store a few items
are wanted at a time, by number. With 12 frames and 49 patches an item takes
1.25 MB, so a thousand are kept on a device and more go to disk.
"""

from collections.abc import Mapping, Sequence
import functools
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
import numpy as np

from vidret_jax import sharding
from vidret_jax.search import row_layout as layout_lib
from vidret_jax.search import rows as rows_lib


class FineStore:
  """Embeddings of items by number; append blocks in order, then read any.

  Attributes:
    rows: items in all; rows of blocks beyond them are padding.
    resident: the tree of arrays [rows or more, ...], whole on every device, or
      None if the items are in a file.
  """

  def __init__(
    self,
    rows: int,
    mesh: Mesh,
    budget: int,
    *,
    dtype: str | None = None,
    exact: Sequence[str] = (),
    path: str | pathlib.Path | None = None,
  ):
    """An empty store.

    Args:
      rows: items in all.
      mesh: the devices.
      budget: bytes each device may keep; if all items fit they stay there,
        otherwise all go to a file.
      dtype: keeps floats in this type ('float16', 'bfloat16'), None: as they
        come. The fine score gets them back in their own type.
      exact: keys that are kept as they come; `model.COARSE`, as a rule.
      path: the file, new; default: a temporary one without a name.
    """
    self.rows = rows
    self.resident = None
    self._whole = sharding.replicated(mesh)
    self._budget = budget
    self._dtype, self._exact = dtype, tuple(exact)
    self._path = path
    self._layout: layout_lib.Layout | None = None
    self._file: rows_lib.RowFile | None = None
    self._filled = 0

  def __len__(self) -> int:
    return self._filled

  @property
  def layout(self) -> layout_lib.Layout:
    """Of one item; known once a block is there."""
    if self._layout is None:
      raise ValueError('the store is empty: append the embeddings of items.')
    return self._layout

  @property
  def nbytes(self) -> int:
    """Bytes of all items."""
    return self.rows * self.layout.row_bytes

  def append(self, block: Mapping[str, Any]) -> None:
    """Adds the next block of embeddings, arrays [size, ...] of any kind.

    Raises:
      ValueError: it is not like the blocks before it.
      OSError: the disk is full.
    """
    if self._layout is None:
      self._layout = layout_lib.layout_of(block, self._dtype, self._exact)
    leaves = self._layout.leaves(block)
    size = len(leaves[0])
    real = min(size, self.rows - self._filled)
    if real <= 0:
      raise ValueError(
        f'a block of {size} items after the {self.rows} that were announced.'
      )
    if self.nbytes <= self._budget:
      self._keep(leaves, real)
    else:
      self._write([sharding.fetch(x)[:real] for x in leaves])
    self._filled += real

  def take(self, rows: np.ndarray) -> dict[str, Any]:
    """Items by number: the dict of numpy arrays [n, ...], in the types kept."""
    if self._file is not None:
      return self._file.take(rows)
    rows = np.asarray(rows)
    if self.resident is None or (
      rows.size and not (0 <= rows.min() and rows.max() < self._filled)
    ):
      raise IndexError(f'items {rows} of a store that has {self._filled}')
    return jax.tree.map(
      lambda x: np.asarray(sharding.fetch(x[rows])), self.resident
    )

  def _keep(self, leaves, real):
    layout = self.layout
    if self.resident is None:
      self.resident = layout.tree(
        [
          _zeros((self.rows, *shape), kept, self._whole)
          for shape, kept in zip(layout.shapes, layout.kept)
        ]
      )
    buffers = jax.tree.leaves(self.resident)
    leaves = [
      x[:real]
      if isinstance(x, jax.Array)
      else jax.make_array_from_process_local_data(self._whole, x[:real])
      for x in leaves
    ]
    put = _put(self._whole)
    self.resident = layout.tree(
      [put(b, x, np.int32(self._filled)) for b, x in zip(buffers, leaves)]
    )

  def _write(self, leaves):
    where = self._path or tempfile.gettempdir()
    try:
      if self._file is None:
        if self._path is None:
          file = tempfile.TemporaryFile(prefix='vidret_store_', buffering=0)
        else:
          file = open(self._path, 'x+b', buffering=0)
        self._file = rows_lib.RowFile(file, self.layout)
      self._file.append(leaves)
    except OSError as e:
      raise OSError(
        e.errno,
        f'{e.strerror}: embeddings of {self.rows} items need '
        f'{self.nbytes / 2**30:.2f} GiB in {where}. Point TMPDIR to a disk '
        'with room, keep them as float16, or raise the budget of bytes to keep '
        'them on the devices',
      ) from e


def _zeros(shape, dtype, where: NamedSharding):
  return _make_zeros(shape, dtype, where)()


@functools.lru_cache(maxsize=32)
def _make_zeros(shape, dtype, where: NamedSharding):
  """() -> zeros; compiled once for each kind of store."""
  return jax.jit(
    lambda: jnp.zeros(shape, jnp.dtype(dtype)), out_shardings=where
  )


@functools.lru_cache(maxsize=8)
def _put(where: NamedSharding):
  """(buffer, rows, first) -> buffer with these rows from `first` on."""

  def put(buffer, x, first):
    return jax.lax.dynamic_update_slice_in_dim(
      buffer, x.astype(buffer.dtype), first, 0
    )

  return jax.jit(put, out_shardings=where, donate_argnums=0)
