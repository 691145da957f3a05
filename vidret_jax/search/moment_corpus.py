# SPDX-License-Identifier: Apache-2.0
"""A corpus of videos, encoded once for the search for moments."""

from collections.abc import Callable, Iterable
import dataclasses
from typing import Any

from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.models import base
from vidret_jax.search import bank as bank_lib
from vidret_jax.search.programs import programs

# Clips are cut to a multiple of this many: few sizes, so few programs.
_STEP = 32
# (steps, how many, what) -> the same steps, below a bar.
Watch = Callable[[Iterable, int, str], Iterable]


def unwatched(steps: Iterable, total: int, text: str) -> Iterable:
  """A `Watch` that shows nothing."""
  del total, text
  return steps


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Encoded videos.

  Attributes:
    bank: their embeddings, videos of similar length together.
    order: int64 [v], number of the video in each row of the bank.
    row: int32 [v], row of each video.
    names: int64 [v], what a prediction file calls them (`video_idx`).
    clips: per block, how many clips its videos have at most, rounded up.
    clip_seconds: length of a clip.
  """

  bank: bank_lib.Bank
  order: np.ndarray
  row: np.ndarray
  names: np.ndarray
  clips: tuple[int, ...]
  clip_seconds: float


class Part(bank_lib.Reordered):
  """Some of the videos of a source: rows `rows` of it."""

  def __init__(self, items: source_lib.Source, rows: np.ndarray):
    super().__init__(items, rows)
    self.numbers = np.asarray(items.numbers)[rows]
    self.durations = np.asarray(items.durations)[rows]
    self.clip_seconds = items.clip_seconds


def encode(
  model: base.Retriever,
  mesh: Mesh,
  variables: Any,
  items: source_lib.Source,
  *,
  block: int = 64,
  bank_bytes: int = 2**30,
  watch: Watch = unwatched,
) -> Corpus:
  """Encodes a corpus.

  Args:
    model: encodes it.
    mesh: the devices.
    variables: of the model.
    items: the videos, with `numbers`, `durations` (seconds), `clip_seconds`.
    block: videos at a time.
    bank_bytes: of embeddings that stay on the devices of a process; what is
      beyond goes to a temporary file.
    watch: shows progress.

  Raises:
    ValueError: there are no videos.
  """
  if not len(items):
    raise ValueError('there are no videos to search; is the split empty?')
  size = bank_lib.block_size(block, len(items), mesh)
  bank = bank_lib.Bank(size, len(items), sharding.replicated(mesh), bank_bytes)
  # Blocks of short videos are compared by their first clips only.
  order = np.argsort(np.asarray(items.durations), kind='stable')
  row = np.empty(len(order), np.int32)
  row[order] = np.arange(len(order), dtype=np.int32)
  stream = bank_lib.encode(
    programs(model, mesh).encode_item,
    variables,
    bank_lib.Reordered(items, order),
    size,
    mesh,
  )
  masks = []
  for _, emb in watch(stream, -(-len(items) // size), 'videos'):
    masks.append(emb['mask'])
    bank.append(emb)
  return Corpus(
    bank=bank,
    order=order,
    row=row,
    names=np.asarray(items.numbers, np.int64),
    clips=tuple(_clips(x) for x in sharding.fetch(masks)),
    clip_seconds=float(items.clip_seconds),
  )


def _clips(mask: np.ndarray) -> int:
  """How many clips hold all valid ones of bool [v, L], rounded up."""
  last = np.flatnonzero(mask.any(0)).max(initial=0) + 1
  return int(min(-(-last // _STEP) * _STEP, mask.shape[1]))
