# SPDX-License-Identifier: Apache-2.0
"""Which query stands where: captions of one item side by side, in blocks."""

from jax.sharding import Mesh
import numpy as np

from vidret_jax.search import bank as bank_lib


def layout(
  item_of_query: np.ndarray, query_block: int, whole: bool, mesh: Mesh
) -> np.ndarray:
  """Orders queries by their items, so that their own items lie in few blocks.

  Args:
    item_of_query: int64 [q].
    query_block: wanted rows of a block.
    whole: keep the captions of an item within one block, with padding between
      items where needed.
    mesh: the devices that a block is split over.

  Returns:
    int64 [n >= q]: numbers of queries, -1 for padding.

  Raises:
    ValueError: an item has more captions than a block holds.
  """
  order = np.argsort(item_of_query, kind='stable')
  if not whole:
    return order
  sizes = np.bincount(item_of_query)
  block = bank_lib.block_size(query_block, len(order) + sizes.max(), mesh)
  if sizes.max() > block:
    raise ValueError(
      f"v2t='max_pool' pools the captions of a video within one block: "
      f'item {sizes.argmax()} has {sizes.max()} captions, a block holds '
      f'{block}. Set query_block={sizes.max()} or more.'
    )
  out, used = [], 0
  for captions in np.split(order, np.cumsum(sizes)[:-1]):
    if used + len(captions) > block:
      out.append(np.full(block - used, -1))
      used = 0
    out.append(captions)
    used = (used + len(captions)) % block
  return np.concatenate(out)


def cut(x: np.ndarray, part: slice, size: int, fill) -> np.ndarray:
  """`x[part]`, filled up to `size`."""
  x = x[part]
  return np.concatenate([x, np.full(size - len(x), fill, x.dtype)])


def numbered(column: np.ndarray) -> np.ndarray:
  """Runs of equal values as 0, 1, 2, ...: int32."""
  change = np.concatenate([[0], np.diff(column) != 0])
  return np.cumsum(change).astype(np.int32)
