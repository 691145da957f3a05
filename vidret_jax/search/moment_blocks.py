# SPDX-License-Identifier: Apache-2.0
"""Both stages of a search for moments, for one block of queries at a time."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.models import base
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import exact
from vidret_jax.search import moment_programs as moment_lib
from vidret_jax.search.moment_corpus import Corpus
from vidret_jax.search.moment_programs import Options


class NonFinite(ValueError):
  """Scores that are NaN or infinite.

  Attributes:
    sim_qv: [q, v], some of them not finite.
    real: bool [q, v], those that count.
    queries: int [q], numbers.
    items: int [v], or [q, v] where each query has its own, numbers.
  """

  def __init__(self, sim_qv, real, queries, items):
    self.sim_qv, self.real = sim_qv, real
    self.queries, self.items = queries, items
    bad = (real & ~np.isfinite(sim_qv)).sum()
    super().__init__(
      f'{bad} scores of a block of queries and videos are not finite; look '
      'for NaN in weights and features.'
    )


@dataclasses.dataclass(frozen=True)
class Asked:
  """A block of queries, and the videos to look into.

  Attributes:
    queries: int [n], numbers, without padding.
    size: of the block, with padding.
    videos: int32 [n, k], numbers of items, best first, -1: none.
    weights: float32 [n, k].
    own: int32 [n, 1 or 0], likewise.
  """

  queries: np.ndarray
  size: int
  videos: np.ndarray
  weights: np.ndarray
  own: np.ndarray


class Blocks:
  """Searches one corpus with one system, block by block."""

  def __init__(
    self,
    model: base.Retriever,
    mesh: Mesh,
    variables: Any,
    corpus: Corpus,
    options: Options,
    wants: tuple[bool, bool],
  ):
    """See `moment_programs.programs` for `wants`."""
    self._model, self._mesh, self._variables = model, mesh, variables
    self._corpus, self._options = corpus, options
    self._p = moment_lib.programs(model, mesh, options, wants)

  def best(self, emb: Any, queries: np.ndarray) -> tuple:
    """The first stage: the best videos by `score`.

    Args:
      emb: embeddings of a block of queries.
      queries: int [n], their numbers, without padding.

    Returns:
      Numbers of items int32 [n, k] and exp(alpha * score) float32 [n, k], best
      first, equal scores by number.

    Raises:
      NonFinite: a score without a rank.
      ValueError: exp overflows.
    """
    bank, n, bad = self._corpus.bank, len(queries), []
    mask = np.arange(_size(emb)) < n

    def score(variables, emb, block, i):
      self._wait(i, bad[-1:])
      sim_qv, lost = self._p.score(
        variables, emb, block, self._corpus.clips[i], bank.mask(i), mask
      )
      bad.append(lost)
      return sim_qv

    scores, rows = exact.top_k(
      self._model,
      self._mesh,
      self._variables,
      emb,
      bank,
      self._options.videos,
      score=score,
    )
    for i, lost in enumerate(sharding.fetch(bad)):
      if lost:
        sim_qv = score(self._variables, emb, bank.block(i), i)
        sim_qv = sharding.fetch(sim_qv)[:n, bank.mask(i)]
        items = self._corpus.order[bank.slice(i)]
        raise NonFinite(sim_qv, np.ones_like(sim_qv, bool), queries, items)
    scores = scores[:n].astype(np.float32)
    videos = self._corpus.order[rows[:n]].astype(np.int32)
    # The bank has an order of its own.
    place = np.lexsort((videos, -scores), axis=-1)
    scores = np.take_along_axis(scores, place, -1)
    with np.errstate(over='ignore'):
      weights = np.exp(np.float32(self._options.alpha) * scores)
    if not np.isfinite(weights).all():
      raise ValueError(
        f'exp(alpha * score) overflows with alpha={self._options.alpha} and a '
        f'score of {scores.max():g}; lower alpha.'
      )
    return np.take_along_axis(videos, place, -1), weights

  def decode(self, emb: Any, asked: Asked) -> Any:
    """The second stage; returns what `decode` of the programs does."""
    numbers = np.concatenate([asked.videos, asked.own], 1)
    sim, mask = self._similarities(emb, numbers, asked.size)
    mine = _mine(asked.size)
    lists = (
      _padded(asked.weights, asked.size, 0)[mine],
      _padded(asked.videos, asked.size, -1)[mine],
    )
    lists = sharding.put_batch(lists, self._mesh)
    return self._p.decode(self._variables, sim, mask, *lists)

  def curves(self, emb: Any, items: np.ndarray) -> tuple:
    """Probabilities of start and end: float32 [n, L] of one item per query."""
    sim, mask = self._similarities(emb, items[:, None], _size(emb))
    out = sharding.fetch(self._p.curves(self._variables, sim, mask))
    return tuple(x[: len(items), 0] for x in out)

  def _similarities(self, emb, numbers, size) -> tuple[jax.Array, jax.Array]:
    """Similarities [size, s, ...] and masks [size, s, L] of numbered items."""
    corpus, mesh = self._corpus, self._mesh
    rows = _padded(bank_lib.lookup(corpus.row, numbers), size, -1)
    devices = mesh.devices.shape[0]
    tables = moment_lib.tables(
      rows,
      corpus.bank.size,
      len(corpus.bank),
      devices,
      moment_lib.lanes(size // devices, rows.shape[1], len(corpus.order)),
    )
    mine = _mine(devices)
    sim, mask = self._empty(emb, rows.shape)
    for i, of_block in enumerate(tables):
      if not of_block:
        continue
      self._wait(i, sim)
      block = corpus.bank.block(i)
      for table in of_block:
        table = sharding.put_batch(table[mine], mesh)
        sim, mask = self._p.place(self._variables, emb, block, table, sim, mask)
    return sim, mask

  def _wait(self, i, results):
    """Blocks that come from a file must not pile up before the devices."""
    bank = self._corpus.bank
    if i * bank.block_bytes >= bank.resident_bytes:
      jax.block_until_ready(results)

  def _empty(self, emb, shape):
    block = self._corpus.bank.block(0)
    sim = jax.eval_shape(
      lambda *x: self._model.apply(*x, method='similarity'),
      self._variables,
      emb,
      block,
    )
    where = sharding.batch_sharding(self._mesh)
    clips = block['mask'].shape[1:]
    return (
      jnp.zeros((*shape, *sim.shape[2:]), jnp.float32, device=where),
      jnp.zeros((*shape, *clips), bool, device=where),
    )

  def answer(self, asked: Asked, out: Any) -> tuple:
    """Fetches what `decode` found.

    Returns:
      (listed, own), `moment_programs.Moments` of numpy arrays without padding,
      or None.

    Raises:
      NonFinite: a logit is.
    """
    listed, own, bad = jax.tree.map(
      lambda x: x[: len(asked.queries)], sharding.fetch(out)
    )
    if bad.any():
      raise NonFinite(
        np.where(bad, np.nan, 0),
        np.ones_like(bad),
        asked.queries,
        np.concatenate([asked.videos, asked.own], 1),
      )
    return listed, own


def _size(emb) -> int:
  return len(jax.tree.leaves(emb)[0])


def _mine(rows: int) -> slice:
  return source_lib.local_rows(rows, jax.process_index(), jax.process_count())


def _padded(x: np.ndarray, size: int, value: float) -> np.ndarray:
  """Rows of a block whose last ones are padding."""
  return np.pad(x, ((0, size - len(x)), (0, 0)), constant_values=value)
