# SPDX-License-Identifier: Apache-2.0
"""Two stages whose scores know how much each video wants every text.

A score is weighed by a softmax over all texts of the video's coarse scores,
times the number of texts (`metrics.rerank.dual_softmax`, an unused function of
EERCF's upstream). Whole matrices let upstream weigh fine scores by themselves;
here candidates are all that has fine scores, so both stages are weighed by the
coarse ones. It needs the whole query set at once, which a search never has:
numbers of this kind are reported apart.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.evaluators import arrange
from vidret_jax.evaluators.collecting import Collection
from vidret_jax.evaluators.counting import Queries
from vidret_jax.models.base import Retriever
from vidret_jax.search import row_layout
from vidret_jax.search.bank import Bank
from vidret_jax.search.programs import programs

_KEY = 'dual_softmax_log_sum'


class Weighed(Retriever):
  """A system whose items know the sum of their softmax; its variables fit.

  Attributes:
    model: the system.
    tau: temperature.
    texts: how many there are.
  """

  model: Retriever
  tau: float
  texts: int

  def setup(self):
    nn.share_scope(self, self.model)

  def encode_query(self, batch, *, train=False):
    return self.model.encode_query(batch, train=train)

  def score(self, q, v):
    sim_qv = self.model.score(q, v)
    return sim_qv * self._weight(sim_qv, v)

  def fine(self, q, v):
    return self.model.fine(q, v) * self._weight(self.model.score(q, v), v)

  def _weight(self, sim_qv, v):
    return jnp.exp(sim_qv / self.tau - v[_KEY]) * self.texts


@dataclasses.dataclass(frozen=True)
class _Store:
  """A store of items (`search.two_stage.Items`) with the sums beside it."""

  store: Any
  log_sum: np.ndarray
  resident: Any

  @property
  def rows(self):
    return self.store.rows

  @property
  def layout(self) -> row_layout.Layout:
    inner = self.store.layout
    columns = list(zip(inner.names, inner.shapes, inner.dtypes, inner.kept))
    columns.append((_KEY, (), 'float32', 'float32'))
    # The order of `jax.tree.leaves`.
    columns.sort(key=lambda x: x[0].split('/'))
    return row_layout.Layout(*zip(*columns))

  def take(self, rows):
    return {**self.store.take(rows), _KEY: self.log_sum[rows]}


def weigh(
  model: Retriever,
  mesh: Mesh,
  variables: Any,
  items: Collection,
  asked: Queries,
  tau: float,
  bank_bytes: int,
) -> tuple[Weighed, Collection]:
  """The system and the collection with weighed scores.

  Args:
    model: scores the pairs.
    mesh: the devices.
    variables: of the model, and of the one returned.
    items: with a store.
    asked: all queries.
    tau: temperature.
    bank_bytes: of the new bank that stay on the devices.
  """
  p, old = programs(model, mesh), items.bank
  whole = sharding.replicated(mesh)
  bank = Bank(old.size, old.rows, whole, bank_bytes)
  sums = []
  for i in range(len(old)):
    block, log_sum = old.block(i), np.full(old.size, -np.inf, np.float32)
    for b in range(len(asked.bank)):
      mask = arrange.cut(
        asked.mask, asked.bank.slice(b), asked.bank.size, False
      )
      sim_qv = p.score(variables, asked.bank.block(b), block)
      part = sharding.fetch(_log_sum(whole)(sim_qv, mask, np.float32(tau)))
      log_sum = np.logaddexp(log_sum, part)
    log_sum = np.where(old.mask(i), log_sum, 0)
    put = jax.make_array_from_process_local_data(whole, log_sum)
    bank.append({**block, _KEY: put})
    sums.append(log_sum)
  log_sum, resident = np.concatenate(sums)[: old.rows], items.store.resident
  if resident is not None:
    put = jax.make_array_from_process_local_data(whole, log_sum)
    resident = {**resident, _KEY: put}
  store = _Store(items.store, log_sum, resident)
  weighed = Weighed(model, float(tau), int(asked.mask.sum()))
  return weighed, dataclasses.replace(items, bank=bank, store=store)


@functools.lru_cache(maxsize=4)
def _log_sum(whole):
  """(sim_qv, mask_q, tau) -> [v], log of the sum over texts of exp(s / tau)."""

  def log_sum(sim_qv, mask_q, tau):
    return jax.nn.logsumexp(sim_qv / tau, axis=0, where=mask_q[:, None]).astype(
      jnp.float32
    )

  return jax.jit(log_sum, out_shardings=whole)
