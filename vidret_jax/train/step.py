# SPDX-License-Identifier: Apache-2.0
"""One update, compiled once.

Gradient accumulation: with `accum_steps = a` a batch of b rows is cut into a
microbatches of b / a rows, microbatch j taking rows j, a + j, 2 a + j, ... (so
every device cuts its own rows). The gradient is the mean of their gradients,
weighted by their valid rows. A loss that compares rows within the batch hence
sees the negatives of one microbatch only, and batch statistics are those of
one microbatch, updated a times: this saves memory, it does not imitate a
larger batch.

Frozen tensors are no argument of the differentiated function: their gradients
are neither computed nor stored, and layers before the first trained one have
no backward pass. The optimiser sees zeros in their place.
"""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vidret_jax.train import state as state_lib

# Purposes of random numbers in models; an unused key costs nothing.
_RNGS = ('dropout', 'sample')


@flax.struct.dataclass
class Watch:
  """Remembers the first step whose loss or gradient was not finite.

  It stays on the devices, so that looking at it costs a transfer only when
  scalars are fetched anyway.

  Attributes:
    step: int32, -1 while all is well.
    loss: float32, the loss of that step.
    squares: float32 per parameter, the squared gradient norms of that step; 0
      for frozen ones.
  """

  step: jax.Array
  loss: jax.Array
  squares: jax.Array


def new_watch(params, place):
  """A watch that has seen nothing, with the sharding `place`."""
  n = len(jax.tree.leaves(params))
  watch = Watch(np.int32(-1), np.float32(0), np.zeros((n,), np.float32))
  return jax.jit(lambda: watch, out_shardings=place)()


def make(model, tx, lr, seed, accum_steps=1, trained=None):
  """Builds `(state, watch, batch) -> (state, watch, scalars)`; jit it.

  Args:
    model: a Retriever.
    tx: optax transformation.
    lr: function step -> {name: learning rate}, for the log; '' is unnamed.
    seed: of the random keys of the model.
    accum_steps: microbatches per update.
    trained: tree of booleans like the parameters, False for frozen ones; None:
      all are trained.
  """

  def cut(params):
    """The leaves that are trained (None elsewhere), and the others."""
    leaves, tree = jax.tree.flatten(params)
    flags = (
      [True] * len(leaves) if trained is None else tree.flatten_up_to(trained)
    )
    return (
      [x if t else None for x, t in zip(leaves, flags)],
      [None if t else x for x, t in zip(leaves, flags)],
    )

  def join(params, free, rest):
    leaves = [r if f is None else f for f, r in zip(free, rest)]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)

  def loss_and_grads(state, model_state, batch, part):
    if model.plans == 1:
      return planned({}, state, model_state, batch, part)
    # One of them runs; a switch within the loss would keep for the backward
    # pass what any of them needs.
    ways = [functools.partial(planned, {'plan': i}) for i in range(model.plans)]
    return jax.lax.switch(
      model.plan(batch), ways, state, model_state, batch, part
    )

  def planned(plan, state, model_state, batch, part):
    keys = {
      n: jax.random.fold_in(state_lib.rng(seed, n, state.step), part)
      for n in _RNGS
    }

    free, rest = cut(state.params)

    def loss_fn(free):
      (loss, scalars), updates = model.apply(
        {'params': join(state.params, free, rest), **model_state},
        batch,
        step=state.step,
        train=True,
        method='loss',
        mutable=list(model_state),
        rngs=keys,
        **plan,
      )
      return loss, (scalars, {**model_state, **updates})

    (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(free)
    return loss, *aux, grads

  def update(state, watch, batch):
    if accum_steps == 1:
      loss, scalars, model_state, grads = loss_and_grads(
        state, state.model_state, batch, 0
      )
    else:
      loss, scalars, model_state, grads = accumulate(state, batch)
    # `grads` is a list of leaves, with None for frozen ones.
    squares = jnp.stack(
      [
        jnp.float32(0)
        if g is None
        else jnp.sum(jnp.square(g.astype(jnp.float32)))
        for g in grads
      ]
    )
    _, rest = cut(state.params)
    grads = join(state.params, grads, jax.tree.map(jnp.zeros_like, rest))
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    bad = ~(jnp.isfinite(loss) & jnp.all(jnp.isfinite(squares)))
    first = bad & (watch.step < 0)
    watch = jax.tree.map(
      lambda new, old: jnp.where(first, new, old),
      Watch(state.step + 1, loss.astype(jnp.float32), squares),
      watch,
    )
    scalars = {
      **{f'train/{k}': v for k, v in scalars.items()},
      **{f'lr/{k}' if k else 'lr': v for k, v in lr(state.step).items()},
      'train/loss': loss,
      'train/grad_norm': jnp.sqrt(jnp.sum(squares)),
    }
    new = state_lib.TrainState(state.step + 1, params, model_state, opt_state)
    return new, watch, scalars

  def accumulate(state, batch):
    def cut(x):
      rows = x.reshape(x.shape[0] // accum_steps, accum_steps, *x.shape[1:])
      return jnp.moveaxis(rows, 1, 0)

    batch = jax.tree.map(cut, batch)
    rows = jnp.sum(batch['_mask'], axis=1).astype(jnp.float32)
    weights = rows / jnp.maximum(jnp.sum(rows), 1)

    def body(carry, xs):
      model_state, total = carry
      weight, micro, part = xs
      loss, scalars, new_state, grads = loss_and_grads(
        state, model_state, micro, part
      )
      # An empty microbatch (padding only) changes nothing, NaN or not.
      empty = weight == 0
      model_state = jax.tree.map(
        lambda a, b: jnp.where(empty, a, b), model_state, new_state
      )
      total = jax.tree.map(
        lambda t, x: t + jnp.where(empty, 0, weight * x).astype(t.dtype),
        total,
        (loss, scalars, grads),
      )
      return (model_state, total), None

    shapes = jax.eval_shape(
      lambda: loss_and_grads(
        state, state.model_state, jax.tree.map(lambda x: x[0], batch), 0
      )
    )
    zeros = jax.tree.map(
      lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[1], shapes[3])
    )
    (model_state, (loss, scalars, grads)), _ = jax.lax.scan(
      body,
      (state.model_state, zeros),
      (weights, batch, jnp.arange(accum_steps)),
    )
    return loss, scalars, model_state, grads

  return update
