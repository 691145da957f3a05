# SPDX-License-Identifier: Apache-2.0
"""The training stream: step number -> shuffled, padded batch, through tf.data.

Order and randomness are a pure function of (seed, step). A run resumes by
starting the stream at another step: nothing of the iterator is saved, and the
number of hosts may change in between.
"""

import atexit
from collections.abc import Iterator
import functools
from typing import Any
import weakref

import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.data import splitmix

EPOCH_ENDS = ('drop', 'pad', 'carry')
_open = weakref.WeakSet()


@atexit.register
def _close_streams() -> None:
  """Ends the streams that are still open.

  TensorFlow's threads call into Python to read ahead; the interpreter cannot
  end while one of them waits for it.
  """
  for stream in list(_open):
    stream.close()


def steps_per_epoch(n: int, batch_size: int, epoch_end: str) -> int:
  """Optimiser steps of one pass over n examples.

  Args:
    n: examples.
    batch_size: rows of a global batch.
    epoch_end: 'drop' leaves out the last partial batch; 'pad' keeps it, filled
      with rows whose `_mask` is False, as the CE code does (drop_last=False),
      except that a rest of one row is left out: it has no negatives and no
      batch variance; 'carry' fills it with the first rows of the next epoch.

  Raises:
    ValueError: no step fits, or an unknown `epoch_end`.
  """
  if epoch_end not in EPOCH_ENDS:
    raise ValueError(
      f'input.epoch_end={epoch_end!r} is unknown; choose from {EPOCH_ENDS}.'
    )
  if epoch_end == 'pad':
    steps = n // batch_size + (n % batch_size > 1)
  else:
    steps = n // batch_size
  if steps < 1:
    raise ValueError(
      f'{n} training examples make no batch of {batch_size} rows with '
      f"input.epoch_end={epoch_end!r}; lower input.batch_size or use 'pad'."
    )
  return steps


@functools.lru_cache(maxsize=2)  # A batch may touch two epochs.
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
  return np.random.Generator(np.random.Philox([seed, epoch])).permutation(n)


def batch_rows(
  step: int, n: int, batch_size: int, seed: int, epoch_end: str
) -> tuple[np.ndarray, np.ndarray]:
  """Which examples a global batch holds: (index [b], row seeds [b]), int64.

  Every epoch visits the examples in an order of its own. Rows past the end of
  a padded epoch have the index `PADDING`.
  """
  rows = np.arange(batch_size, dtype=np.int64)
  if epoch_end == 'carry':
    epoch, place = np.divmod(step * batch_size + rows, n)
  else:
    epoch, i = divmod(step, steps_per_epoch(n, batch_size, epoch_end))
    epoch, place = np.full_like(rows, epoch), i * batch_size + rows
  index = np.full_like(rows, source_lib.PADDING)
  for e in np.unique(epoch):
    here = (epoch == e) & (place < n)
    index[here] = _permutation(seed, int(e), n)[place[here]]
  return index, splitmix.row_seeds(seed, epoch, index)


def _flat_spec(spec, prefix=()) -> list[tuple[tuple[str, ...], Any]]:
  """Nested spec -> [(path, (shape, dtype))] in a fixed order."""
  flat = []
  for key in sorted(spec):
    value = spec[key]
    if isinstance(value, dict):
      flat += _flat_spec(value, prefix + (key,))
    else:
      flat.append((prefix + (key,), value))
  return flat


def _nest(paths, values) -> dict[str, Any]:
  nested = {}
  for path, value in zip(paths, values, strict=True):
    node = nested
    for key in path[:-1]:
      node = node.setdefault(key, {})
    node[path[-1]] = value
  return nested


def train_iter(
  source: source_lib.Source,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  epoch_end: str = 'pad',
  process_index: int = 0,
  process_count: int = 1,
  prefetch: int = 2,
) -> Iterator[dict[str, Any]]:
  """Endless stream of this process' rows of every global batch.

  Args:
    source: examples; `gather` must be thread safe.
    batch_size: rows of a global batch.
    seed: of the order and of every example.
    start_step: the step of the first batch.
    epoch_end: see `steps_per_epoch`.
    process_index: which share of every batch this process reads.
    process_count: number of shares.
    prefetch: batches prepared ahead.

  Yields:
    Nested dict of numpy arrays, structured as `source.spec`.

  Raises:
    Whatever `source.gather` raises, unchanged.
  """
  # Refused here, not at the first batch.
  steps_per_epoch(len(source), batch_size, epoch_end)
  stream = _stream(
    source,
    batch_size,
    seed,
    start_step,
    epoch_end,
    source_lib.local_rows(batch_size, process_index, process_count),
    prefetch,
  )
  _open.add(stream)
  return stream


def _stream(source, batch_size, seed, start_step, epoch_end, mine, prefetch):
  import tensorflow as tf

  n = len(source)
  fields = _flat_spec(source.spec)
  paths = [path for path, _ in fields]
  dtypes = [tf.as_dtype(dtype) for _, (_, dtype) in fields]
  failures = {}

  def gather(step):
    # TensorFlow wraps an error raised here beyond recognition and logs it for
    # every batch ahead: hand it over beside an empty batch instead.
    try:
      index, seeds = batch_rows(int(step), n, batch_size, seed, epoch_end)
      batch = source.gather(index[mine], seeds[mine])
      return [step] + [_at(batch, path) for path in paths]
    except Exception as error:
      failures[int(step)] = error
      return [step] + [np.zeros(0, d.as_numpy_dtype) for d in dtypes]

  dataset = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
  dataset = dataset.map(
    lambda step: tuple(tf.numpy_function(gather, [step], [tf.int64, *dtypes])),
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  dataset = dataset.prefetch(prefetch)

  for step, *values in dataset.as_numpy_iterator():
    if int(step) in failures:
      raise failures[int(step)]
    yield _nest(paths, values)


def _at(batch: dict[str, Any], path: tuple[str, ...]) -> np.ndarray:
  for key in path:
    batch = batch[key]
  return batch
