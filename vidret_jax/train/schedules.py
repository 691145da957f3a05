# SPDX-License-Identifier: Apache-2.0
"""Learning rates as functions of the update counter.

`dict(decay='step', every_epochs=1, gamma=0.95)`; `decay` is one of

  constant
  step              lr * gamma ** (epoch // every_epochs)
  cosine_restarts   half a cosine from lr to lr * final over `period_epochs`
                    epochs, again and again, each time `growth` times as long
  cosine, linear    from lr to lr * final over the whole run
  warmup_cosine, warmup_linear, warmup_constant
                    of BERT's optimiser: from lr * start (0) to lr over the
                    fraction `warmup` of the run, then as the name says, to 0
                    (cosine: to lr * final)

The first three change between epochs only, like the schedulers of the original
systems; the others change with every step. Every one of them takes `mul` (a
factor on the rate, e.g. for pretrained parts) and, but for BERT's, one of
`warmup_steps|epochs|percent` (a linear start; the decay runs meanwhile). For
those of every step, one of `decay_steps|epochs|percent` is what counts as the
whole run above: the last rate holds from there on, and a shorter run does not
come to it.

The two kinds of warm-up differ. With `warmup_steps=n` the first of n updates
has the rate lr / n and the n-th the whole, times what the decay has come to.
BERT's count from 0, so the first update has the rate 0, and have no decay
before their end; `warmup_cosine` then falls at once to where a cosine over the
whole run has come to (from lr to 0.976 lr for warmup=0.1). HAP-VR
(https://github.com/yafeng19/HAP-VR) has the same form with decay_steps=30000,
warmup=1000 / 30000, start=0.01 and final=0.1.
"""

from collections.abc import Callable, Mapping
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidret_jax import config_lib

Schedule = Callable[[jax.Array | int], jax.Array]


def make(
  spec: Mapping[str, Any],
  lr: float,
  *,
  steps_per_epoch: int,
  total_steps: int,
) -> Schedule:
  """Builds one schedule.

  Args:
    spec: see above.
    lr: base learning rate.
    steps_per_epoch: updates per pass over the training set.
    total_steps: updates of the run.

  Returns:
    A function of the number of updates done; it may be traced.

  Raises:
    ConfigError: an unknown decay, or a key that it does not take.
  """
  spec = dict(spec.items())
  name = spec.pop('decay', None)
  mul = spec.pop('mul', 1.0)
  warmup = config_lib.steps(
    spec, 'warmup', epoch=steps_per_epoch, total=total_steps, default=0
  )
  for key in config_lib.duration_keys('warmup'):
    spec.pop(key, None)
  if name not in _DECAYS:
    raise config_lib.ConfigError(
      f'schedule: decay={name!r}, expected one of {", ".join(_DECAYS)}'
    )
  factor, by_epoch = _DECAYS[name]
  ticks = math.ceil(total_steps / steps_per_epoch)
  if not by_epoch:
    ticks = config_lib.steps(
      spec,
      'decay',
      epoch=steps_per_epoch,
      total=total_steps,
      default=total_steps,
    )
    for key in config_lib.duration_keys('decay'):
      spec.pop(key, None)
  if warmup and name.startswith('warmup_'):
    raise config_lib.ConfigError(
      f'schedule: decay={name!r} has a warm-up of its own: set warmup=, the '
      'fraction of the run, and no warmup_steps, warmup_epochs or '
      'warmup_percent'
    )
  allowed = list(inspect.signature(factor).parameters)[1:]
  config_lib.check_keys(spec, allowed, f'a schedule of decay={name!r}')
  # Worked out here in double precision: a power of a traced float32 would
  # carry its rounding into every weight.
  place = np.arange(ticks + 1)
  if not by_epoch:
    # A division as upstream's: i * (1 / n) may miss the end of a warm-up.
    place = place / max(ticks, 1)
  table = lr * mul * np.asarray(factor(place, **spec), np.float64)
  table = np.broadcast_to(table, place.shape).astype(np.float32)

  def schedule(step):
    step = jnp.asarray(step, jnp.int32)
    tick = step // steps_per_epoch if by_epoch else step
    rate = jnp.asarray(table)[jnp.minimum(tick, ticks)]
    if warmup:
      rate = rate * jnp.minimum((step + 1) / warmup, 1.0)
    return rate

  return schedule


def _constant(epoch):
  return np.ones(epoch.shape)


def _step(epoch, gamma, every_epochs=1):
  return gamma ** (epoch // every_epochs)


def _cosine_restarts(epoch, period_epochs, growth=1, final=0.0):
  out = np.empty(epoch.shape)
  start, period = 0, period_epochs
  for i, e in enumerate(epoch):
    if e - start >= period:
      start, period = start + period, period * growth
    out[i] = _cosine((e - start) / period, final)
  return out


def _cosine(done, final=0.0):
  return final + (1 - final) * 0.5 * (1 + np.cos(np.pi * done))


def _linear(done, final=0.0):
  return 1 + (final - 1) * done


def _warmup_cosine(done, warmup=0.1, start=0.0, final=0.0):
  return _warm(done, warmup, start, _cosine(done, final))


def _warmup_linear(done, warmup=0.1, start=0.0):
  return _warm(done, warmup, start, np.maximum((1 - done) / (1 - warmup), 0))


def _warmup_constant(done, warmup=0.1, start=0.0):
  return _warm(done, warmup, start, np.ones(done.shape))


def _warm(done, warmup, start, then):
  """BERT's warm-up, then `then`: the fraction `warmup` decides."""
  if not 0 <= warmup < 1:
    raise config_lib.ConfigError(
      f'schedule: warmup={warmup!r}, expected a fraction of the run, at least '
      '0 and below 1'
    )
  rise = start + (1 - start) * done / max(warmup, 1e-30)
  return np.where(done < warmup, rise, then)


# name -> (factor on the rate, whether it is a function of the epoch).
_DECAYS = {
  'constant': (_constant, True),
  'step': (_step, True),
  'cosine_restarts': (_cosine_restarts, True),
  'cosine': (_cosine, False),
  'linear': (_linear, False),
  'warmup_cosine': (_warmup_cosine, False),
  'warmup_linear': (_warmup_linear, False),
  'warmup_constant': (_warmup_constant, False),
}
