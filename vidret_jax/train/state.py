# SPDX-License-Identifier: Apache-2.0
"""What a run is at one step: counters, weights, optimiser, random keys."""

import zlib

import flax
import jax
import jax.numpy as jnp

from vidret_jax import sharding


@flax.struct.dataclass
class TrainState:
  """All that a resumed run needs; data order and keys follow from `step`.

  Attributes:
    step: int32 scalar, number of updates done.
    params: trainable and frozen weights.
    model_state: the other collections, e.g. {'batch_stats': ...}.
    opt_state: of the optax transformation.
  """

  step: jax.Array
  params: dict
  model_state: dict
  opt_state: object

  @property
  def variables(self):
    """What `model.apply` takes."""
    return {'params': self.params, **self.model_state}


def rng(seed, name, step):
  """The key for one purpose at one step; `step` may be traced."""
  key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
  return jax.random.fold_in(key, step)


def zero_batch(spec, rows):
  """A batch of zeros, all rows valid: all that initialisation needs."""

  def build(node):
    if hasattr(node, 'items'):
      return {k: build(v) for k, v in node.items()}
    shape, dtype = node
    return jnp.zeros((rows, *shape), dtype)

  return {**build(spec), '_mask': jnp.ones((rows,), bool)}


def init_fn(model, spec, seed):
  """A function without arguments that draws fresh variables; jit it."""

  def init():
    key = rng(seed, 'init', 0)
    # Two rows: the fewest with which in-batch losses have a negative.
    batch = zero_batch(spec, 2)
    return flax.core.unfreeze(
      model.init(key, batch, step=0, train=False, method='loss')
    )

  return init


def abstract(model, spec, seed):
  """Shapes of the variables, without computing any."""
  return jax.eval_shape(init_fn(model, spec, seed))


def start(variables, tx):
  """A state at step 0 with these variables; traced or not."""
  return start_from(variables, jnp.int32(0), tx.init(variables['params']))


def start_from(variables, step, opt_state):
  """The state with these parts."""
  rest = {k: v for k, v in variables.items() if k != 'params'}
  return TrainState(step, variables['params'], rest, opt_state)


def with_sharding(tree, rules, mesh):
  """ShapeDtypeStructs that also say where each leaf lives."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    sharding.tree_sharding(tree, rules, mesh),
  )


def shardings(tree):
  """The shardings of abstract or real arrays."""
  return jax.tree.map(lambda x: x.sharding, tree)


def describe(tree):
  """{name: [shape, dtype]} of every leaf, to compare architectures."""
  flat = jax.tree_util.tree_leaves_with_path(tree)
  return {
    sharding.path_name(path): [list(x.shape), str(x.dtype)] for path, x in flat
  }


def check_same(have, want, what):
  """Raises if two `describe` results differ, naming the differences."""
  lines = [f'  missing     {k} {want[k][0]}' for k in want if k not in have]
  lines += [f'  unexpected  {k} {have[k][0]}' for k in have if k not in want]
  lines += [
    f'  {k}: has {have[k]}, the model needs {want[k]}'
    for k in want
    if k in have and have[k] != want[k]
  ]
  if lines:
    more = f'\n  ... {len(lines) - 12} more' if len(lines) > 12 else ''
    raise ValueError(
      f'{what} belongs to another architecture:\n'
      + '\n'.join(lines[:12])
      + more
      + '\nuse the config it was made with (config.json beside it)'
    )


def checksums(tree):
  """uint32 per leaf: changes when any bit, or the order, of a leaf does.

  Integer sums, so the result depends neither on the number of devices nor on
  the order of summation. Orbax itself returns damaged arrays without a word
  when the damage does not break its container format.
  """

  def one(x):
    width = jnp.dtype(x.dtype).itemsize * 8
    if x.dtype == jnp.bool_:
      bits = x.astype(jnp.uint32)
    else:
      bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f'uint{width}'))
      bits = bits.astype(jnp.uint32)
    place, stride = jnp.uint32(0), 1
    for axis in reversed(range(x.ndim)):
      iota = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
      place = place + iota * jnp.uint32(stride % 2**32)
      stride *= x.shape[axis]
    # The mixing of MurmurHash3, so that no two changes cancel by plan.
    h = bits ^ (place * jnp.uint32(0x9E3779B9))
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(h ^ (h >> 16), dtype=jnp.uint32)

  flat = jax.tree_util.tree_leaves_with_path(tree)
  return {sharding.path_name(path): one(x) for path, x in flat}


def checksums_of(tree):
  """`checksums` of arrays as {name: int}, on every host.

  One array at a time: the program for all at once takes as much memory again
  as they do.
  """
  compute, out = jax.jit(checksums), {}
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    (found,) = sharding.fetch(compute([x])).values()
    out[sharding.path_name(path)] = int(found)
  return out
