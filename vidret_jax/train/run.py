# SPDX-License-Identifier: Apache-2.0
"""The parts that a config names, built, and how they fail by name."""

import jax
import numpy as np

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.data import pipeline
from vidret_jax.train import defaults, fitting, initial
from vidret_jax.train import state as state_lib


class NotFinite(ArithmeticError):
  """A loss or gradient is NaN or infinite."""


class PartFailed(RuntimeError):
  """Data or an evaluator failed while the run was under way."""


class Run:
  """Mesh, training source and model of a config.

  Attributes:
    mesh: of devices.
    source: training examples.
    model: the Retriever.
    variables: abstract variables, without shardings.
  """

  def __init__(self, config):
    """Builds them; the model's sizes that the data decide enter `config`."""
    self._config = config
    self.mesh = sharding.make_mesh(config.mesh)
    data = dict(cl.freeze(config.input.data))
    name = data.pop('name')
    self.source = cl.find('data', name, 'make')(view='pairs', **data)
    sizes = dict(getattr(self.source, 'sizes', {}))
    if 'steps_per_epoch' in config.model:
      sizes['steps_per_epoch'] = pipeline.steps_per_epoch(
        len(self.source), config.input.batch_size, config.input.epoch_end
      )
    fill_sizes(config, sizes, f'the dataset {name!r}')
    make = cl.find('models', config.system, 'make')
    try:
      self.model = make(**cl.freeze(config.model))
    except ValueError as e:
      if not any(f'{key}=None' in str(e) for key in config.model):
        raise
      raise cl.ConfigError(
        f'model.{e} The data fill in what is None if they know it; {name!r} '
        f'knows {", ".join(sizes) or "no sizes"}.'
      ) from e
    self.variables = state_lib.abstract(
      self.model, self.source.spec, config.seed
    )

  # ------------------------------------------------------------ evaluators

  def names(self, when=None):
    """Names of evaluators that run `when`: 'train', 'final', None: all."""
    return [
      name
      for name, entry in self._config.evals.items()
      if when in (None, entry.get('when', 'train'))
    ]

  def evaluators(self, names):
    """Builds evaluators: {name: Evaluator}."""
    out = {}
    for name in names:
      kwargs = dict(cl.freeze(self._config.evals[name]))
      kind = kwargs['type']
      for key in defaults.EVAL_KEYS:
        kwargs.pop(key, None)
      build = cl.find('evaluators', kind, 'Evaluator')
      try:
        out[name] = build(self.model, self.mesh, **kwargs)
      except TypeError as e:
        raise cl.ConfigError(f'evals.{name} (type {kind}): {e}') from e
    return out

  def evaluate(self, name, evaluator, variables):
    """Runs one evaluator: {'<name>/<metric>': float}."""
    try:
      results = dict(evaluator.run(variables))
    except Exception as e:
      raise PartFailed(f'evaluator {name!r} failed: {e}') from e
    return {f'{name}/{k}': float(v) for k, v in results.items()}

  def report(self, name, evaluator, variables, folder):
    """Writes the pages of one evaluator, if its config asks for them."""
    if not self._config.evals[name].get('report', False):
      return False
    try:
      evaluator.report(variables, folder)
    except Exception as e:
      raise PartFailed(f'the report of evaluator {name!r} failed: {e}') from e
    return True

  def ranking(self, results):
    """The part of `results` that ranks checkpoints: {name: value} or {}."""
    best = self._config.best
    if not best or not any(
      k.split('/')[0] == best.split('/')[0] for k in results
    ):
      return {}
    if not np.isfinite(results.get(best, np.nan)):
      raise cl.ConfigError(
        f'best={best!r} is {results.get(best, "no metric of this run")}; '
        f'there are: {", ".join(k for k in results)}'
      )
    return {best: results[best]}

  # --------------------------------------------------------------- weights

  def shapes(self):
    """Abstract variables with the shardings of the config."""
    state = state_lib.start_from(self.variables, None, None)
    rules = self._config.sharding
    return state_lib.with_sharding(state, rules, self.mesh).variables

  def check_init(self):
    """Raises where a file to start from is absent, or has to be named."""
    initial.check(self._config.init)
    initial.check_parts(self._config, self.variables)

  def fresh(self, target, whole=False):
    """Variables of a run that starts; see `initial.fresh` and `fitting`."""
    variables, about, given = initial.fresh(
      self._config, self.model, target, self._draw, whole
    )
    return fitting.fitted(
      self._config, self.model, variables, self.source, given
    ), about

  def _draw(self, target):
    draw = jax.jit(
      state_lib.init_fn(self.model, self.source.spec, self._config.seed),
      out_shardings=state_lib.shardings(target),
    )
    return draw()

  # ----------------------------------------------------------------- steps

  def stream(self, step):
    """This process's rows of every batch from `step` on."""
    return pipeline.train_iter(
      self.source,
      batch_size=self._config.input.batch_size,
      seed=self._config.seed,
      start_step=step,
      epoch_end=self._config.input.epoch_end,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      prefetch=self._config.input.prefetch,
    )

  def batches(self, step):
    """Global batches from `step` on; an error says at which step it came."""
    try:
      for local in self.stream(step):
        yield sharding.put_batch(local, self.mesh)
        step += 1
    except Exception as e:
      raise PartFailed(
        f'reading the training batch of step {step + 1} failed: {e}'
      ) from e

  def abstract_batch(self):
    """Shape, type and place of a global batch."""
    rows = self._config.input.batch_size
    place = sharding.batch_sharding(self.mesh)
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
      jax.eval_shape(lambda: state_lib.zero_batch(self.source.spec, rows)),
    )

  def check_finite(self, watch):
    """Raises NotFinite with all that is known, if the watch saw something.

    Args:
      watch: a `step.Watch` on the host.
    """
    step = int(watch.step)
    if step < 0:
      return
    names = list(state_lib.describe(self.variables['params']))
    bad = [n for n, s in zip(names, watch.squares) if not np.isfinite(s)]
    local = next(self.stream(step - 1))
    flat = jax.tree_util.tree_leaves_with_path(local)
    inputs = [
      sharding.path_name(path)
      for path, x in flat
      if np.issubdtype(np.asarray(x).dtype, np.floating)
      and not np.isfinite(x).all()
    ]
    raise NotFinite(
      f'step {step}: loss {float(watch.loss)}, gradient not finite in '
      f'{len(bad)} of {len(names)} parameters'
      + (
        f' ({", ".join(bad[:5])}{", ..." if len(bad) > 5 else ""})'
        if bad
        else ''
      )
      + '; in its batch '
      + (
        f'{", ".join(inputs)} hold NaN or Inf'
        if inputs
        else 'all inputs are finite'
      )
      + '. Nothing later than the step before has been saved. Lower optim.lr, '
      'or look at the data'
    )


def fill_sizes(config, sizes, who):
  """Sets options of the model that the config leaves to the data, in place.

  Args:
    config: with `model`; options there that are None are filled in.
    sizes: {option: number}, e.g. `num_words` of a vocabulary.
    who: knows them, for messages.

  Raises:
    ConfigError: the config has a number that is too small.
  """
  model = cl.untracked(config).model
  for key, size in sizes.items():
    given = model.get(key, size)
    if given is None:
      with model.unlocked(), model.ignore_type():
        model[key] = size
    elif given < size:
      raise cl.ConfigError(
        f'model.{key}={given}, but {who} has {size}; leave it None, and it is '
        'filled in'
      )


def model_of(config):
  """The model of a config whose data are not at hand.

  Raises:
    ConfigError, ValueError: no such system, or a bad option.
  """
  make = cl.find('models', config.system, 'make')
  options = dict(cl.freeze(config.model))
  if options.get('steps_per_epoch', 0) is None:
    # It only decides when parts of a loss begin.
    options['steps_per_epoch'] = 1
  return make(**options)
