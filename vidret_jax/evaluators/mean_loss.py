# SPDX-License-Identifier: Apache-2.0
"""The training objective on data that is not trained on."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import base
from vidret_jax.models.base import Retriever
from vidret_jax.search import bank as bank_lib


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of the loss evaluator.

  Attributes:
    data: dataset by name; its 'pairs' view is read in order, with row seeds
      0, 1, 2, ..., so that every evaluation sees the same captions.
    pairs: a source to use instead.
    batch_size: rows that compete in one loss; the value depends on it.
    step: update number handed to the loss, for schedules inside it.
  """

  data: Mapping[str, Any] | None = None
  pairs: source_lib.Source | None = None
  batch_size: int = 64
  step: int = 0


class Evaluator:
  """Mean of `model.loss` over batches, weighted by their rows.

  A last batch of a single row is left out, as in training: it has no negatives.

  Attributes:
    caveats: sentences to print with every number.
  """

  def __init__(self, model: Retriever, mesh: Mesh, **options: Any):
    o = self._options = base.parse_options(Options, options, 'mean_loss')
    if o.data is None and o.pairs is None:
      raise ValueError("evaluator 'mean_loss' needs `data` or `pairs`.")
    sharding.check_batch_size(o.batch_size, mesh)
    self._pairs = o.pairs
    if self._pairs is None:
      self._pairs = base.make_source(o.data, 'pairs')
    self._model, self._mesh = model, mesh
    self.caveats = (base.LEAK_CAVEAT,) if base.is_leaky(model) else ()

  def run(self, variables: Any) -> dict[str, float]:
    """Returns `loss` and the means of the scalars that the loss logs.

    Raises:
      ValueError: no rows, or a loss that is not finite.
    """
    o, rows = self._options, len(self._pairs)
    if rows % o.batch_size == 1:
      rows -= 1
    if not rows:
      raise ValueError(
        f'{len(self._pairs)} pairs make no batch of two or more; is the '
        'split empty?'
      )
    program = _program(self._model, self._mesh)
    source = _Seeded(self._pairs, rows)
    stream = bank_lib.encode(
      lambda v, batch: program(v, batch, np.int32(o.step)),
      variables,
      source,
      o.batch_size,
      self._mesh,
    )
    total: dict[str, float] = {}
    for start, values in base.progress(
      stream, -(-rows // o.batch_size), 'loss'
    ):
      values = sharding.fetch(values)
      weight = min(o.batch_size, rows - start) / rows
      for name, value in values.items():
        if not np.isfinite(value):
          raise ValueError(
            f'{name} is {value} on rows {start} to '
            f'{start + o.batch_size - 1} ({self._pairs.ids[start]!r} on).'
          )
        total[name] = total.get(name, 0.0) + weight * float(value)
    return base.marked(total, self._model)


@functools.lru_cache(maxsize=16)
def _program(model, mesh):
  def call(variables, batch, step):
    loss, logs = model.apply(
      variables, batch, step=step, train=False, method='loss'
    )
    return {'loss': loss, **logs}

  return jax.jit(call, out_shardings=sharding.replicated(mesh))


class _Seeded:
  """The first rows of a source, row i read with seed i."""

  def __init__(self, source, rows):
    self._source, self._rows = source, rows
    self.ids, self.spec = source.ids, source.spec

  def __len__(self):
    return self._rows

  def gather(self, index, seeds):
    del seeds
    return self._source.gather(index, np.maximum(index, 0))
