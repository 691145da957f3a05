# SPDX-License-Identifier: Apache-2.0
"""What the rest of the house knows of a dataset: sources and ground truth.

A `Source` is random access to padded numpy batches. It knows nothing of
models, devices or TensorFlow, so evaluation and search run where TensorFlow
is not installed.
"""

from collections.abc import Iterator, Mapping, Sequence
import concurrent.futures
import dataclasses
from typing import Any, Protocol

import numpy as np

PADDING = -1  # The index of a row that holds no example.


class Source(Protocol):
  """Random access to examples.

  Attributes:
    ids: one string per row: a video id, or '<video id>#<caption slot>'.
    spec: nested mapping of key -> (shape without the batch axis, dtype), the
      exact structure that `gather` returns.
  """

  ids: Sequence[str]
  spec: Mapping[str, Any]

  def __len__(self) -> int:
    """Number of rows."""

  def gather(self, index: np.ndarray, seeds: np.ndarray) -> dict[str, Any]:
    """Reads one padded batch.

    Args:
      index: int64 [b], rows to read; `PADDING` gives a row of zeros whose
        `_mask` is False.
      seeds: int64 [b], the only source of randomness of each row.

    Returns:
      Nested dict of arrays with leading axis b, with `_mask` bool [b].
    """


@dataclasses.dataclass(frozen=True)
class GroundTruth:
  """Which items answer which queries.

  Attributes:
    query_ids: q strings.
    item_ids: v strings.
    item_of_query: int64 [q], the item each query was written for.
    graded: optional float [q, v], relevance in [0, 1].
    spans: optional float [q, 2], start and end of the answer in seconds.
  """

  query_ids: tuple[str, ...]
  item_ids: tuple[str, ...]
  item_of_query: np.ndarray
  graded: np.ndarray | None = None
  spans: np.ndarray | None = None

  def __post_init__(self):
    if self.item_of_query.shape != (len(self.query_ids),):
      raise ValueError(
        f'item_of_query has shape {self.item_of_query.shape}, expected '
        f'({len(self.query_ids)},): one item per query.'
      )
    if self.item_of_query.size and (
      self.item_of_query.min() < 0
      or self.item_of_query.max() >= len(self.item_ids)
    ):
      raise ValueError(
        f'item_of_query points outside the {len(self.item_ids)} items: '
        f'[{self.item_of_query.min()}, {self.item_of_query.max()}].'
      )


def local_rows(size: int, process_index: int, process_count: int) -> slice:
  """The rows of a global batch of `size` that one process reads.

  Raises:
    ValueError: the batch does not divide evenly over the processes.
  """
  if size % process_count:
    raise ValueError(
      f'A batch of {size} rows does not divide over {process_count} '
      f'processes; choose a multiple of {process_count}.'
    )
  share = size // process_count
  return slice(process_index * share, (process_index + 1) * share)


def blocks(
  source: Source,
  size: int,
  *,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Reads a source once, in order, in equal blocks; the last one is padded.

  The next block is read by a thread while the caller works on this one.

  Args:
    source: what to read.
    size: rows of a global block.
    process_index: which share of every block this process reads.
    process_count: number of shares.

  Yields:
    (first row of the global block, local rows of the block).
  """
  mine = local_rows(size, process_index, process_count)

  def read(start: int) -> dict[str, Any]:
    index = np.arange(start, start + size, dtype=np.int64)
    index = np.where(index < len(source), index, PADDING)[mine]
    # Evaluation draws nothing, but a source may expect a seed for each row.
    return source.gather(index, np.zeros_like(index))

  starts = range(0, len(source), size)
  with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
    ahead = [pool.submit(read, s) for s in starts[:1]]
    for i, start in enumerate(starts):
      ready = ahead.pop()
      if i + 1 < len(starts):
        ahead.append(pool.submit(read, starts[i + 1]))
      yield start, ready.result()
