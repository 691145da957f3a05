# SPDX-License-Identifier: Apache-2.0
"""Encodes the items of an evaluation, and notes which of them have no score."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import base
from vidret_jax.models.base import Retriever
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import store as store_lib
from vidret_jax.search import two_stage
from vidret_jax.search.bank import Bank, Change
from vidret_jax.search.programs import programs

# Ids that a caveat names; more are counted.
_NAMED = 10


@dataclasses.dataclass
class Collection:
  """Encoded items.

  Attributes:
    bank: what `score` reads of their embeddings, or all of these.
    ids: their names.
    available: bool [v, m] experts each item has, or None if the data has none.
    has_score: bool [v]; False ranks an item behind all others.
    unreadable: numbers of the items whose frames are all padding.
    store: whole embeddings by number, for a second stage, or None.
  """

  bank: Bank
  ids: tuple[str, ...]
  available: np.ndarray | None
  has_score: np.ndarray
  unreadable: np.ndarray
  store: store_lib.FineStore | None = None


def collect(
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  items: source_lib.Source,
  *,
  block: int,
  bank_bytes: int,
  change: Change | None = None,
  rank_empty_last: bool = False,
  store: store_lib.FineStore | None = None,
  whole: bool = False,
) -> Collection:
  """Encodes all items.

  An item whose frames are all padding (its video cannot be read) has no score.

  Args:
    model: encodes them.
    mesh: the devices.
    variables: of the model.
    items: what to encode.
    block: items at a time.
    bank_bytes: of the bank that stay on the devices.
    change: edits local batches before they are encoded.
    rank_empty_last: items without any available expert go last instead of
      leaving their score to the model.
    store: empty; gets the whole embeddings.
    whole: the bank gets the whole embeddings, not only what `score` reads.
  """
  size = bank_lib.block_size(block, len(items), mesh)
  bank = Bank(size, len(items), sharding.replicated(mesh), bank_bytes)
  keys = None if whole else model.COARSE
  parts: dict[str, list] = {'available': [], 'frame_mask': []}

  def look(batch, rows):
    if change is not None:
      batch = change(batch, rows)
    for key, found in parts.items():
      if key in batch:
        found.append(np.asarray(batch[key]))
    return batch

  stream = bank_lib.encode(
    programs(model, mesh).encode_item, variables, items, size, mesh, look
  )
  for _, emb in base.progress(stream, -(-len(items) // size), 'items'):
    if store is not None:
      store.append(emb)
    bank.append(two_stage.split(emb, keys)[0])
  available, frames = (
    _whole(found, mesh, len(items)) for found in parts.values()
  )
  has_score = np.ones(len(items), bool)
  if available is not None and rank_empty_last:
    has_score &= available.any(1)
  unreadable = np.zeros(0, np.int64)
  if frames is not None:
    unreadable = np.flatnonzero(~frames.any(1))
    has_score[unreadable] = False
  return Collection(
    bank, tuple(items.ids), available, has_score, unreadable, store
  )


def _whole(found: list, mesh: Mesh, rows: int) -> np.ndarray | None:
  """Puts together what each process read of every block."""
  if not found:
    return None
  whole = [sharding.fetch(sharding.put_batch(x, mesh)) for x in found]
  return np.concatenate(whole)[:rows]


def caveats(
  items: source_lib.Source, collection: Collection
) -> tuple[str, ...]:
  """What to say of items that could not be read: a sentence, or nothing.

  `items.unreadable`, {id: reason}, is asked for reasons where the source has
  it; each process knows those of the items that it read.
  """
  lost = [collection.ids[i] for i in collection.unreadable]
  if not lost:
    return ()
  known: Mapping[str, str] = getattr(items, 'unreadable', None) or {}
  said = [f'{n} ({known[n]})' if known.get(n) else n for n in lost[:_NAMED]]
  if len(lost) > _NAMED:
    said.append(f'and {len(lost) - _NAMED} more')
  return (
    f'{len(lost)} of {len(items):,} videos unreadable: {", ".join(said)}; '
    'ranked last.',
  )
