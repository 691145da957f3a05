# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: saved while training goes on, verified when read.

A workdir holds `config.json`, `versions.json` and `checkpoints/<step>/`: the
two latest and the best. Each is written beside its place and renamed, so a
killed run leaves whole checkpoints only; damage that comes later is found by
checksums, and the damaged folder is moved to `damaged/`.
"""

import contextlib
import json
import os
import shutil
import zlib

from absl import logging
import flax
import jax
import numpy as np
from orbax import checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from vidret_jax import config_lib, sharding
from vidret_jax.train import state as state_lib

FOLDER = 'checkpoints'
# One to resume from, one to fall back to.
_LATEST = 2


class CheckpointError(OSError):
  """A checkpoint could not be written or read."""


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(self, workdir, target, best=None):
    """Opens the folder, moving what is damaged at first sight aside.

    Args:
      workdir: of the run.
      target: abstract TrainState with shardings.
      best: name of the metric that ranks checkpoints, or None.
    """
    self._folder = os.path.abspath(os.path.join(workdir, FOLDER))
    self._target = target
    self._best = best
    self._saving = None  # the step of the last save that was started
    # Compiled here, so that saving never compiles.
    self._sums = jax.jit(state_lib.checksums).lower(target).compile()
    if jax.process_index() == 0:
      os.makedirs(self._folder, exist_ok=True)
      self._remove_leftovers()
    sharding.barrier('checkpoints opened')
    self._open()

  def _open(self):
    keep = [policies.LatestN(_LATEST)]
    if self._best:
      # Sorted stably, the last is kept: ties go to the later step.
      keep.append(
        policies.BestN(
          get_metric_fn=lambda m: m[self._best],
          n=1,
          keep_checkpoints_without_metrics=False,
        )
      )
    options = ocp.CheckpointManagerOptions(
      preservation_policy=policies.AnyPreservationPolicy(keep),
      # Without it, Orbax does not write metrics that BestN needs later.
      best_fn=(lambda m: m[self._best]) if self._best else None,
    )
    self._manager = ocp.CheckpointManager(
      self._folder, options=options, item_names=('variables', 'opt', 'meta')
    )

  def _remove_leftovers(self):
    """Deletes unfinished saves; moves steps that contradict themselves."""
    for name in os.listdir(self._folder):
      path = os.path.join(self._folder, name)
      if '.orbax-checkpoint-tmp' in name:
        shutil.rmtree(path, ignore_errors=True)
      elif name.isdigit():
        try:
          meta = _meta(path)
          if meta['metrics']:  # Orbax ranks checkpoints by its own copy.
            with open(os.path.join(path, 'metrics', 'metrics')) as f:
              if json.load(f) != meta['metrics']:
                raise ValueError('metrics/metrics differs from meta/metadata')
        except (ValueError, OSError) as e:
          _move_aside(path, e)

  def steps(self):
    """Steps with a checkpoint, ascending."""
    return sorted(self._manager.all_steps())

  def best_step(self):
    """The step with the highest metric (ties: the later), or None."""
    ranked = [
      (m[self._best], s)
      for s in self.steps()
      if (m := self._manager.metrics(s)) and self._best in m
    ]
    return max(ranked)[1] if ranked else None

  def save(self, step, state, metrics):
    """Starts a save; returns once the state has been copied to the host.

    Args:
      step: number of updates done.
      state: the TrainState.
      metrics: dict with the metric that ranks checkpoints, or {}.
    """
    self.wait()
    self._saving = step
    sums = sharding.fetch(self._sums(state))
    meta = {
      'leaves': state_lib.describe(state),
      'checksums': {k: int(v) for k, v in sums.items()},
      'metrics': metrics,
    }
    with self._errors():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          variables=ocp.args.StandardSave(state.variables),
          opt=ocp.args.StandardSave(_opt(state)),
          meta=ocp.args.JsonSave({**meta, 'crc32': _crc(meta)}),
        ),
        metrics=metrics or None,
        force=True,
      )

  def wait(self):
    """Waits until the last save is on disk; raises if it failed."""
    with self._errors():
      self._manager.wait_until_finished()

  @contextlib.contextmanager
  def _errors(self):
    try:
      yield
    except Exception as e:
      whole = finished_steps(self._folder)
      free = shutil.disk_usage(self._folder).free / 2**20
      raise CheckpointError(
        f'saving step {self._saving} in {self._folder} failed: '
        f'{_first_line(e)}\n{free:.1f} MiB are free on that disk; whole '
        f'checkpoints there: {whole or "none"}. Free space or mend the disk, '
        'then start the same command again: it goes on from the newest'
      ) from e

  def restore_newest(self):
    """The newest undamaged state, or None if there is no checkpoint.

    Damaged checkpoints are named in a warning and moved aside, so that the
    run can write the same steps again.
    """
    while steps := self.steps():
      state, error = self._try(steps[-1])
      if state is not None:
        return state
      self._manager.close()
      sharding.barrier('before moving a checkpoint')
      if jax.process_index() == 0:
        _move_aside(os.path.join(self._folder, str(steps[-1])), error)
      sharding.barrier('after moving a checkpoint')
      self._open()
    return None

  def restore(self, step):
    """The state of one step; raises CheckpointError if it is damaged."""
    state, error = self._try(step)
    if state is None:
      raise CheckpointError(
        f'checkpoint {os.path.join(self._folder, str(step))} is damaged: '
        f'{_first_line(error)}'
      ) from error
    return state

  def _try(self, step):
    """(state, None), or (None, error) on every process alike."""
    state, error = None, None
    path = os.path.join(self._folder, str(step))
    try:
      meta = _meta(path)
      have = meta['leaves']
    except Exception as e:
      error = e
    if error is None:
      # Not damage: a change of code or config, which is an error of its own.
      state_lib.check_same(have, state_lib.describe(self._target), path)
      try:
        state = self._read(step)
        sums = sharding.fetch(self._sums(state))
        _compare(meta['checksums'], sums)
      except Exception as e:
        state, error = None, e
    if jax.process_count() > 1:
      failed = jax.experimental.multihost_utils.process_allgather(
        np.array(error is not None)
      )
      if failed.any() and error is None:
        state, error = None, ValueError('another process could not read it')
    return state, error

  def _read(self, step):
    target = self._target
    out = self._manager.restore(
      step,
      args=ocp.args.Composite(
        variables=ocp.args.StandardRestore(target.variables),
        opt=ocp.args.StandardRestore(_opt(target)),
      ),
    )
    return state_lib.start_from(out.variables, **out.opt)

  def close(self):
    """Waits for the last save and frees threads."""
    with self._errors():
      self._manager.close()


def _opt(state):
  return {'step': state.step, 'opt_state': state.opt_state}


def _meta(path):
  with open(os.path.join(path, 'meta', 'metadata')) as f:
    meta = json.load(f)
  if meta.pop('crc32', None) != _crc(meta):
    raise ValueError('checksum of meta/metadata differs')
  return meta


def _crc(meta):
  return zlib.crc32(json.dumps(meta, sort_keys=True).encode())


def _compare(saved, found):
  """Raises if checksums of leaves differ."""
  wrong = [k for k, v in found.items() if int(v) != saved.get(k)]
  if wrong:
    raise ValueError(f'checksum of {", ".join(wrong[:3])} differs')


def _move_aside(path, error):
  target = os.path.join(os.path.dirname(os.path.dirname(path)), 'damaged')
  os.makedirs(target, exist_ok=True)
  name = os.path.basename(path)
  n = sum(f.split('.')[0] == name for f in os.listdir(target))
  target = os.path.join(target, f'{name}.{n}')
  shutil.move(path, target)
  older = [s for s in finished_steps(os.path.dirname(path)) if s < int(name)]
  logging.warning(
    'checkpoint %s is damaged (%s): moved it to %s, falling back to %s',
    path,
    _first_line(error),
    target,
    f'checkpoint {older[-1]}' if older else 'the start of the run',
  )


def _first_line(error):
  text = str(error).strip().splitlines()
  return f'{type(error).__name__}: {text[0][:300]}' if text else repr(error)


def finished_steps(folder):
  """Steps whose folder has its final name, ascending."""
  names = os.listdir(folder) if os.path.isdir(folder) else []
  return sorted(int(n) for n in names if n.isdigit())


def load_variables(workdir, target, select=None):
  """Reads the weights of another run, without its optimiser.

  Args:
    workdir: of that run.
    target: abstract variables with shardings.
    select: 'best', 'last' or None: what the config of that run says.

  Returns:
    (variables, step).

  Raises:
    FileNotFoundError: no checkpoint there.
    CheckpointError: it is damaged.
    ValueError: it belongs to another architecture.
  """
  step, path, meta = _choose(workdir, select)
  want = _named(target)
  state_lib.check_same(_variables_of(meta), state_lib.describe(want), path)
  try:
    with ocp.StandardCheckpointer() as reader:
      out = reader.restore(os.path.join(path, 'variables'), target)
    _compare(meta['checksums'], state_lib.checksums_of(_named(out)))
  except Exception as e:
    raise CheckpointError(f'{path} is damaged: {_first_line(e)}') from e
  return out, step


def abstract(workdir, select=None):
  """Shapes and types of the variables that `load_variables` would read."""
  _, _, meta = _choose(workdir, select)
  return flax.traverse_util.unflatten_dict(
    {
      name.removeprefix('model_state/'): jax.ShapeDtypeStruct(shape, dtype)
      for name, (shape, dtype) in _variables_of(meta).items()
    },
    sep='/',
  )


def _choose(workdir, select):
  """(step, folder, meta) of the weights of a run."""
  folder = os.path.abspath(os.path.join(workdir, FOLDER))
  metas = {}
  for step in finished_steps(folder):
    try:
      metas[step] = _meta(os.path.join(folder, str(step)))
    except (OSError, ValueError) as e:
      logging.warning('skipping damaged checkpoint %s/%s: %s', folder, step, e)
  if not metas:
    raise FileNotFoundError(f'no checkpoint in {folder}')
  if select is None:
    path = os.path.join(workdir, 'config.json')
    select = 'last'
    if os.path.exists(path):
      select = config_lib.load_json(path).get('select', 'last')
  step = max(metas)
  if select == 'best':
    ranked = [
      (*m['metrics'].values(), s) for s, m in metas.items() if m['metrics']
    ]
    step = max(ranked)[-1] if ranked else step
  return step, os.path.join(folder, str(step)), metas[step]


def _variables_of(meta):
  return {
    k: v
    for k, v in meta['leaves'].items()
    if not k.startswith(('opt_state', 'step'))
  }


def _named(variables):
  """Variables under the names that they have in a TrainState."""
  rest = {k: v for k, v in variables.items() if k != 'params'}
  return {'params': variables['params'], 'model_state': rest}
