# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation of any system; read it from top to bottom.

The config names a system, a dataset, an optimiser and evaluators; this file
brings them together and knows none of them. All that happens at step s is a
function of the config and s: a run that was killed goes on from its newest
checkpoint and ends with the same bits.
"""

import collections
import os
import time

from absl import logging
import jax

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.data import pipeline
from vidret_jax.train import ckpt, defaults, optim, signals, summary, writers
from vidret_jax.train import profile as profile_lib
from vidret_jax.train import run as run_lib
from vidret_jax.train import state as state_lib
from vidret_jax.train import step as step_lib
from vidret_jax.train import workdir as workdir_lib

# Steps given to the devices before the loop waits for the oldest of them:
# enough to keep them busy, few enough to bound the batches in flight.
_AHEAD = 4


def train(config, workdir, profile=None):
  """Trains as the config says, or goes on where the workdir left off.

  Args:
    config: ConfigDict; `defaults.py` lists the keys.
    workdir: folder of the run, on a disk that all processes share.
    profile: None, or (start, stop): write an XLA trace of these steps.

  Returns:
    The final metrics, or None if the run was asked to stop before its end.
  """
  # ------------------------------------- Config, devices, data, the model
  defaults.resolve(config)
  defaults.use_compile_cache(config.compile_cache)
  run = run_lib.Run(config)
  workdir_lib.check(config, workdir)  # With the sizes that the data decide.
  batch_size = config.input.batch_size
  sharding.check_batch_size(batch_size, run.mesh, config.accum_steps)
  chief = jax.process_index() == 0

  # -------------------------------------------------------------- Durations
  epoch = pipeline.steps_per_epoch(
    len(run.source), batch_size, config.input.epoch_end
  )
  units = dict(epoch=epoch, batch_size=batch_size)
  units['total'] = total = cl.steps(config, 'total', **units)
  log_every = cl.steps(config, 'log', **units, default=50)
  save_every = cl.steps(config, 'ckpt', **units, default=epoch)
  eval_every = {
    name: cl.steps(config.evals[name], 'log', **units, default=epoch)
    for name in run.names('train')
  }

  # ----------------------------- Optimiser, shapes of the state, evaluators
  tx, lr = optim.make(
    config.optim,
    config.schedule,
    params=run.variables['params'],
    steps_per_epoch=epoch,
    total_steps=total,
  )
  target = state_lib.with_sharding(
    jax.eval_shape(lambda v: state_lib.start(v, tx), run.variables),
    config.sharding,
    run.mesh,
  )
  evaluators = run.evaluators(run.names())
  if not ckpt.finished_steps(os.path.join(workdir, ckpt.FOLDER)):
    run.check_init()

  # -------------------- Nothing is wrong at first sight: claim the workdir
  if chief:
    workdir_lib.write(config, workdir)
  sharding.barrier('workdir written')
  checkpoints = ckpt.Checkpoints(workdir, target, config.best)
  stop = signals.Stop()

  # ---------------- Weights: own workdir > init.run > init.torch > scratch
  state = checkpoints.restore_newest()
  if state is not None:
    source = f'the newest checkpoint of {workdir}'
  else:
    variables, source = run.fresh(target.variables)
    begin = jax.jit(
      lambda v: state_lib.start(v, tx),
      out_shardings=state_lib.shardings(target),
    )
    state = begin(variables)
    del variables
  step = int(sharding.fetch(state.step))
  if chief:
    summary.log_parameters(state.params, workdir)
  logging.info(
    '%s: step %d of %d, weights from %s; %d examples, %d steps per epoch',
    config.system,
    step,
    total,
    source,
    len(run.source),
    epoch,
  )

  # --------------------------------------------------- Compile, once for all
  began = time.monotonic()
  watch = step_lib.new_watch(state.params, sharding.replicated(run.mesh))
  trained = optim.trained(config.schedule, run.variables['params'])
  update = (
    jax.jit(
      step_lib.make(
        run.model, tx, lr, config.seed, config.accum_steps, trained
      ),
      donate_argnums=0,
      out_shardings=(
        state_lib.shardings(target),
        *[sharding.replicated(run.mesh)] * 2,
      ),
    )
    .lower(target, watch, run.abstract_batch())
    .compile()
  )
  logging.info('compiled the update in %.1f s', time.monotonic() - began)
  # On CPUs processes give each other 30 s to join the first collective.
  sharding.barrier('update compiled')

  # ------------------------------------------------------------------- Loop
  writer = writers.Writer(workdir, step, active=chief)
  bar = summary.Bar(total, step, batch_size, visible=chief)
  trace = profile_lib.Trace(workdir, profile, step, total)
  batches = run.batches(step)
  pending = []  # at most one (step, scalars, watch) on its way to the host
  inflight = collections.deque()

  def collect():
    """Writes the scalars asked for last, and looks whether all is well."""
    while pending:
      at, scalars, seen = sharding.fetch(pending.pop())
      run.check_finite(seen)
      writer.write(at, scalars)
      writer.write_times(at, bar.tell(at, scalars['train/loss']))

  def waited():
    """Whether `patience` ended: known from the checkpoints, so a run that was
    stopped and one that went on decide alike."""
    if config.patience is None:
      return False
    checkpoints.wait()
    best = checkpoints.best_step()
    every = eval_every[config.best.split('/')[0]]
    return best is not None and (step - best) // every > config.patience

  try:
    while step < total and not (step % epoch == 0 and waited()):
      trace.before(step, state)
      state, watch, scalars = update(state, watch, next(batches))
      step += 1
      inflight.append(scalars['train/loss'])
      if len(inflight) > _AHEAD:
        inflight.popleft().block_until_ready()
      bar.update(step)
      trace.after(step, state)

      last = step == total
      stopping = stop.requested(step) and not last
      due = [n for n, e in eval_every.items() if last or (e and step % e == 0)]
      save = last or stopping or (save_every and step % save_every == 0)
      if last or (log_every and step % log_every == 0):
        collect()  # what was asked for log_every steps ago
        pending.append((step, scalars, watch))
        jax.tree.map(lambda x: x.copy_to_host_async(), (scalars, watch))
      if not (due or save):
        continue

      collect()
      run.check_finite(sharding.fetch(watch))
      results = {}
      for name in due:
        results |= run.evaluate(name, evaluators[name], state.variables)
      if results:
        writer.write(step, results)
        logging.info('step %d: %s', step, summary.one_line(results))
      ranking = run.ranking(results)
      if save or ranking:
        writer.flush()  # A checkpoint vouches for every row up to its step.
        checkpoints.save(step, state, ranking)
      if stopping:
        checkpoints.wait()
        logging.warning(
          'asked to stop: saved step %d in %s; the same command '
          'goes on from there',
          step,
          workdir,
        )
        return None

    # ----------------------------------------- Final evaluations and report
    checkpoints.wait()
    reached = step  # All steps, unless patience ended.
    if config.select == 'best':
      step = checkpoints.best_step()
      if step != reached:
        del state  # Make room for the other one.
        state = checkpoints.restore(step)
    known = writers.at_step(writer.path, step) if chief else {}
    results = conclude(
      run,
      workdir,
      evaluators,
      run.names('final'),
      state.variables,
      f'{config.select} weights, step {step} of {total}',
      {k: v for k, v in known.items() if k.split('/')[0] in eval_every},
    )
    writer.write(reached, results, phase='final', weights_step=step)
    return results
  finally:
    bar.close()
    stop.close()
    trace.close()
    writer.close()
    checkpoints.close()


def evaluate(config, workdir):
  """Runs every evaluator on the selected weights of a run, without training.

  Args:
    config: the run's config; its evaluations may differ.
    workdir: of the run. Without checkpoints there, `init.run` or `init.torch`
      give the weights, as for a published checkpoint; some models need none.

  Returns:
    {'<evaluator>/<metric>': value}.
  """
  defaults.resolve(config)
  defaults.use_compile_cache(config.compile_cache)
  run = run_lib.Run(config)
  evaluators = run.evaluators(run.names())
  target = run.shapes()
  if ckpt.finished_steps(os.path.join(workdir, ckpt.FOLDER)):
    variables, step = ckpt.load_variables(workdir, target, config.select)
    title = f'{config.select} weights, step {step}'
  elif config.init.run or config.init.torch:
    variables, source = run.fresh(target, whole=True)
    title = f'weights from {source}'
  elif not run.model.learnt:
    variables, _ = run.fresh(target)
    title = 'nothing trained'
  else:
    raise FileNotFoundError(
      f'no checkpoint in {workdir}: train first (--mode=train), or name '
      'weights with --config.init.run=DIR or --config.init.torch=FILE'
    )
  return conclude(
    run, workdir, evaluators, run.names(), variables, title, known={}
  )


def conclude(run, workdir, evaluators, names, variables, title, known):
  """Last evaluations, report, results.json, and the table.

  Args:
    run: the built parts.
    workdir: of the run.
    evaluators: {name: Evaluator}, all of them.
    names: those to run; reports are written for all that ask for one.
    variables: the weights.
    title: which weights these are.
    known: results to show that need not be computed again.

  Returns:
    {'<evaluator>/<metric>': value}.
  """
  results = dict(known)
  pages = []
  for name, evaluator in evaluators.items():
    if name in names:
      results |= run.evaluate(name, evaluator, variables)
    folder = os.path.join(workdir, 'report', name)
    if run.report(name, evaluator, variables, folder):
      pages.append(os.path.join(folder, 'index.html'))
  caveats = sorted(
    {c for e in evaluators.values() for c in getattr(e, 'caveats', ())}
  )
  if jax.process_index() == 0:
    os.makedirs(workdir, exist_ok=True)
    writers.write_results(workdir, title, results, caveats)
    summary.print_results(
      results,
      title,
      caveats,
      [
        *(f'ranked videos: {p}' for p in pages),
        f'curves: tensorboard --logdir {os.path.join(workdir, "tb")}',
        f'all numbers: {os.path.join(workdir, "metrics.jsonl")}',
      ],
    )
  return results
