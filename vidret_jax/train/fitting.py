# SPDX-License-Identifier: Apache-2.0
"""Parts of a model that are fitted to training data before training starts.

`init.fit={'pca': 8}` fits the part of this name to eight batches, unless the
weights that a run starts from have it: what they have learnt, they have learnt
with their own. The converter of the system, which knows where such parts come
from, fits them (`fit_part`).
"""

from collections.abc import Collection, Iterator

from absl import logging
import flax
import numpy as np

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.data import splitmix
from vidret_jax.train import initial
from vidret_jax.train import state as state_lib

# Seeds of the rows; those of training are of epochs from 0 on.
_EPOCH = 2**32


def fitted(config, model, variables, source, given: Collection[str] = ()):
  """Variables with the parts that `init.fit` names fitted.

  Args:
    config: resolved.
    model: its model.
    variables: to start from, on the devices.
    source: of training examples.
    given: names of variables that come from a file or another run; a part of
      which all are given stays as it is.

  Raises:
    ConfigError: the system fits nothing, or a number of batches that is none.
    ValueError: no such part, or data that it cannot be fitted to.
  """
  for name, batches in config.init.fit.items():
    if not batches:
      continue
    if batches < 0:
      raise cl.ConfigError(
        f'init.fit.{name}={batches}: expected a number of batches, or None'
      )
    if _is_given(initial.parts(config.system).get(name), variables, given):
      logging.info(
        'init.fit.%s: not fitted, as the weights to start from have it', name
      )
      continue
    fit = cl.find('convert', config.system, 'fit_part')
    found = fit(
      name,
      model,
      sharding.fetch(variables),
      _batches(source, batches, config.input.batch_size, config.seed),
    )
    leaves = flax.traverse_util.flatten_dict(found, sep='/')
    logging.info('fitted to %d batches: %s', batches, ', '.join(leaves))
    variables = initial.overlaid(variables, leaves)
  return variables


def _is_given(place, variables, given):
  """Whether there are variables at a place, and all of them are given."""
  if place is None:
    return False
  names = state_lib.describe(variables)
  there = [name for name in names if name.startswith(f'{place}/')]
  return bool(there) and set(there) <= set(given)


def _batches(source, count, size, seed) -> Iterator[dict[str, np.ndarray]]:
  """Batches of rows spread over the data, the same on every process."""
  rows = min(count * size, len(source))
  index = np.arange(rows, dtype=np.int64) * len(source) // max(rows, 1)
  seeds = splitmix.row_seeds(seed, np.full(rows, _EPOCH), index)
  for start in range(0, rows, size):
    yield source.gather(
      index[start : start + size], seeds[start : start + size]
    )
