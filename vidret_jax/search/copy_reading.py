# SPDX-License-Identifier: Apache-2.0
"""Features of videos as padded batches, read ahead of the devices."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import concurrent.futures
from typing import Any, Protocol, TypeVar

import numpy as np

from vidret_jax.search import copy_plan

Job = TypeVar('Job')
Made = TypeVar('Made')


class View(Protocol):
  """Region features of videos, read one video at a time.

  Attributes:
    ids: names.
    lengths: int64 [v] frames; 0: the video is missing.
    regions: of a frame.
    dim: of a region.
  """

  ids: Sequence[str]
  lengths: np.ndarray
  regions: int
  dim: int

  def read(self, i: int) -> np.ndarray:
    """Features of video i, [lengths[i], regions, dim], float32 or float16.

    A video with one vector a frame may come as [lengths[i], 1, dim]. Must be
    thread safe. A view whose `dtype` says that all are float16 is sent so.
    """


def check(view: View, what: str) -> None:
  """Raises ValueError unless every video can be compared.

  Args:
    view: the videos.
    what: 'queries' or 'items', for the message.
  """
  lengths = np.asarray(view.lengths)
  if lengths.shape != (len(view.ids),):
    raise ValueError(
      f'{what}: lengths of shape {lengths.shape} for {len(view.ids)} ids.'
    )
  bad = np.flatnonzero((lengths < 0) | ((0 < lengths) & (lengths < 4)))
  if bad.size:
    raise ValueError(
      f'{what}: video {view.ids[bad[0]]!r} has {lengths[bad[0]]} frames '
      f'({bad.size} such videos); the network needs {copy_plan.MIN_FRAMES}. '
      'Repeat the frames of short videos, or give length 0 to leave them out.'
    )
  if not (lengths > 0).any():
    raise ValueError(
      f'{what}: none of the {len(view.ids)} videos has features. Do the ids of '
      'the annotations belong to these files?'
    )


def read(view: View, i: int) -> np.ndarray:
  """Features of video i, as the view promises them.

  A single region stands for all regions: it is its own best match and its own
  mean, so repeating it changes no similarity.

  Raises:
    ValueError: they are of another shape.
  """
  x = np.asarray(view.read(i))
  length = int(view.lengths[i])
  if x.shape not in {
    (length, view.regions, view.dim),
    (length, 1, view.dim),
  }:
    raise ValueError(
      f'video {view.ids[i]!r}: features of shape {x.shape}, expected '
      f'({length}, {view.regions}, {view.dim}). Was the file changed while it '
      'was read?'
    )
  return np.broadcast_to(x, (length, view.regions, view.dim))


def batch(
  view: View,
  records: copy_plan.Records,
  numbers: np.ndarray,
  *,
  rows: int,
  frames: int,
  storage: str,
) -> dict[str, Any]:
  """Reads some records.

  Args:
    view: the videos.
    records: all records.
    numbers: int64 [n], which to read, n <= rows.
    rows: of the batch; those beyond n are zeros.
    frames: that each record is padded to.
    storage: type of the features; those that are shorter stay short.

  Returns:
    {'regions' [rows, frames, r, d], 'length' int32 [rows]}.
  """
  dtype = np.dtype(storage)
  given = np.dtype(getattr(view, 'dtype', dtype))
  if given.itemsize < dtype.itemsize:
    dtype = given  # The devices widen them to the same numbers.
  regions = np.zeros((rows, frames, view.regions, view.dim), dtype)
  # Rows of padding have a length that the network can compute with.
  length = np.full(rows, copy_plan.MIN_FRAMES, np.int32)
  item, video = -1, None
  for row, n in enumerate(numbers):
    # Chunks of one video follow each other.
    if records.item[n] != item:
      item = int(records.item[n])
      video = read(view, item)
    start, length[row] = records.start[n], records.length[n]
    with np.errstate(over='ignore'):
      regions[row, : length[row]] = video[start : start + length[row]]
  return {'regions': regions, 'length': length}


def ahead(
  jobs: Iterable[Job],
  make: Callable[[Job], Made],
  *,
  readers: int,
  most: int,
) -> Iterator[tuple[Job, Made]]:
  """Yields (job, make(job)) in order, made in threads.

  Args:
    jobs: taken as they are needed.
    make: thread safe.
    readers: threads.
    most: results that exist or are being made beside the one in use.

  Raises:
    Whatever `make` raises, at its place in the order.
  """
  jobs = iter(jobs)
  pool = concurrent.futures.ThreadPoolExecutor(
    readers, thread_name_prefix='copies'
  )
  waiting = collections.deque()
  try:
    while True:
      while len(waiting) < most:
        job = next(jobs, None)
        if job is None:
          break
        waiting.append((job, pool.submit(make, job)))
      if not waiting:
        return
      job, future = waiting.popleft()
      made = future.result()
      del future
      yield job, made
      # While the caller prepares the next, nothing here holds this one.
      del made
  finally:
    pool.shutdown(cancel_futures=True)
