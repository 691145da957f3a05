# SPDX-License-Identifier: Apache-2.0
"""Embeddings of a collection, computed once, kept in blocks of one shape.

Blocks stay on the devices up to a budget of bytes; the others go to an unlinked
temporary file and are read back when needed. A collection therefore needs disk,
not memory: 60,000 captions with nine experts of 768 are 1.65 GB.
"""

from collections.abc import Callable, Iterator
import math
import tempfile
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.search import memory

Tree = Any
Change = Callable[[dict[str, Any], np.ndarray], dict[str, Any]]


def round_up(n: int, mesh: Mesh) -> int:
  """The next multiple of what one batch must divide by."""
  parts = math.lcm(mesh.devices.shape[0], jax.process_count())
  return -(-max(n, 1) // parts) * parts


def block_size(wanted: int, rows: int, mesh: Mesh) -> int:
  """Rows of a block: as wanted, no more than there are, divisible."""
  if wanted < 1:
    raise ValueError(f'a block of {wanted} rows; it needs at least one.')
  return round_up(min(wanted, rows), mesh)


class Bank:
  """Blocks of embeddings; append them in order, then read them by number.

  Attributes:
    size: rows of a block, all processes together.
    rows: rows that hold an example; those after them are padding.
  """

  def __init__(self, size: int, rows: int, where: NamedSharding, budget: int):
    """An empty bank.

    Args:
      size: rows of every block.
      rows: examples in all.
      where: sharding of every leaf: over rows, or whole on each device.
      budget: bytes that this process may keep on its devices.
    """
    self.size = size
    self.rows = rows
    self._where = where
    self._budget = budget
    self._resident: list[Tree] = []
    self._spilled = 0
    self._file = None
    self._leaves: list[jax.ShapeDtypeStruct] = []  # one process's part
    self._treedef = None

  def __len__(self) -> int:
    return len(self._resident) + self._spilled

  def first(self, i: int) -> int:
    """Number of the first row of block i."""
    return i * self.size

  def mask(self, i: int) -> np.ndarray:
    """bool [size], rows of block i that hold an example."""
    return np.arange(self.size) < self.rows - self.first(i)

  @property
  def block_bytes(self) -> int:
    """Bytes of one block in this process."""
    return sum(
      math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in self._leaves
    )

  @property
  def resident_bytes(self) -> int:
    """Bytes that stay on the devices of this process."""
    return len(self._resident) * self.block_bytes

  def append(self, block: Tree) -> None:
    """Adds the next block of embeddings, as they come from the encoder."""
    leaves, treedef = jax.tree.flatten(block)
    for path, x in jax.tree_util.tree_leaves_with_path(block):
      if not x.shape or x.shape[0] != self.size:
        raise ValueError(
          f'embedding leaf {sharding.path_name(path)!r} has shape {x.shape}, '
          f'expected a leading axis of {self.size} rows.'
        )
    if self._treedef is None:
      self._treedef = treedef
      self._leaves = [
        jax.ShapeDtypeStruct(_local_shape(x), x.dtype) for x in leaves
      ]
    if (len(self._resident) + 1) * self.block_bytes <= self._budget:
      self._resident.append(block)
    else:
      self._write([_local(x) for x in leaves])
      self._spilled += 1

  def block(self, i: int) -> Tree:
    """Block i as global arrays on the mesh."""
    if i < len(self._resident):
      return self._resident[i]
    leaves = self._read(i - len(self._resident))
    put = [
      jax.make_array_from_process_local_data(self._where, x) for x in leaves
    ]
    return jax.tree.unflatten(self._treedef, put)

  def slice(self, i: int) -> slice:
    """The rows of block i among all rows."""
    return slice(self.first(i), self.first(i) + self.size)

  @property
  def group_size(self) -> int:
    """How many blocks fit the budget together, at least one."""
    return max(1, self._budget // max(self.block_bytes, 1))

  def groups(self) -> Iterator[list[tuple[int, Tree]]]:
    """All (number, block), in runs that fit the budget together."""
    for start in range(0, len(self), self.group_size):
      end = min(start + self.group_size, len(self))
      yield [(i, self.block(i)) for i in range(start, end)]

  def _write(self, leaves: list[np.ndarray]) -> None:
    try:
      if self._file is None:
        self._file = tempfile.TemporaryFile(prefix='vidret_bank_')
      self._file.seek(self._spilled * self.block_bytes)
      for x in leaves:
        self._file.write(np.ascontiguousarray(x).reshape(-1).view(np.uint8))
    except OSError as e:
      whole = self.block_bytes * -(-self.rows // self.size)
      raise OSError(
        e.errno,
        f'{e.strerror}: embeddings of {self.rows} rows need '
        f'{whole / 2**30:.2f} GiB in {tempfile.gettempdir()}. Point TMPDIR '
        'to a disk with room, or raise bank_bytes of the evaluator to keep '
        'more in memory',
      ) from e

  def _read(self, place: int) -> list[np.ndarray]:
    self._file.seek(place * self.block_bytes)
    leaves = []
    for x in self._leaves:
      buffer = np.empty(math.prod(x.shape) * x.dtype.itemsize, np.uint8)
      got = self._file.readinto(buffer)
      if got != len(buffer):
        raise OSError(
          f'the temporary file of embeddings ends {len(buffer) - got} bytes '
          'too early; was it truncated while in use?'
        )
      leaves.append(buffer.view(x.dtype).reshape(x.shape))
    return leaves


def _shards(x: jax.Array) -> list[jax.Array]:
  """This process's distinct parts along the leading axis, in order."""
  parts = {s.index[0].start or 0: s.data for s in x.addressable_shards}
  return [parts[start] for start in sorted(parts)]


def _local_shape(x: jax.Array) -> tuple[int, ...]:
  return (sum(len(s) for s in _shards(x)), *x.shape[1:])


def _local(x: jax.Array) -> np.ndarray:
  parts = [np.asarray(s) for s in _shards(x)]
  return parts[0] if len(parts) == 1 else np.concatenate(parts)


def encode(
  program: Callable[[Tree, Tree], Tree],
  variables: Tree,
  source: source_lib.Source,
  size: int,
  mesh: Mesh,
  change: Change | None = None,
) -> Iterator[tuple[int, Tree]]:
  """Streams a source through an encoder.

  Args:
    program: jitted (variables, batch) -> embeddings.
    variables: of the model.
    source: what to encode, in order.
    size: rows of a global block.
    mesh: the devices.
    change: edits a local batch on the host: (batch, its row numbers, -1 for
      padding) -> batch.

  Yields:
    (number of the block's first row, embeddings of `size` rows).
  """
  process, count = jax.process_index(), jax.process_count()
  mine = source_lib.local_rows(size, process, count)
  stream = source_lib.blocks(
    source, size, process_index=process, process_count=count
  )
  emb = None
  for start, batch in stream:
    if change is not None:
      rows = np.arange(start, start + size)[mine]
      batch = change(batch, np.where(rows < len(source), rows, -1))
    batch = sharding.put_batch(batch, mesh)
    # One block at a time: calls return before they are done, and all blocks of
    # a collection must not wait in memory for their turn.
    jax.block_until_ready(emb)
    memory.give_back()
    emb = program(variables, batch)
    del batch
    yield start, emb


def lookup(numbers: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """`numbers[rows]`, and padding (-1) for rows that are padding."""
  return np.where(rows >= 0, numbers[np.maximum(rows, 0)], source_lib.PADDING)


class Reordered:
  """A source whose row i is row `order[i]` of another; -1 is padding."""

  def __init__(self, source: source_lib.Source, order: np.ndarray):
    self._source = source
    self._order = np.asarray(order, np.int64)
    self.spec = source.spec
    self.ids = tuple(source.ids[i] if i >= 0 else '' for i in self._order)

  def __len__(self) -> int:
    return len(self._order)

  def gather(self, index: np.ndarray, seeds: np.ndarray) -> dict[str, Any]:
    return self._source.gather(lookup(self._order, np.asarray(index)), seeds)
