# SPDX-License-Identifier: Apache-2.0
"""Devices: the mesh, who holds which part of an array, batches in and out.

The only file that knows names of mesh axes. Batches are split over 'data',
parameters follow ordered regex rules. Losses and models are written as if on
one device: arrays are global, and XLA adds the communication.
"""

import math
import os
import re

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

_BATCH = 'data'
# Splitting a small array costs more in latency than it saves in memory.
_FSDP_MIN_ELEMENTS = 2**18


def start_processes(env=os.environ):
  """Joins the other processes of this run, when a launcher started several.

  `VIDRET_COORDINATOR=host:port`, `VIDRET_NUM_PROCESSES` and
  `VIDRET_PROCESS_ID` name them; `VIDRET_DISTRIBUTED=auto` lets JAX find them
  out on Cloud TPU and Slurm. Call this before any other use of JAX.

  Returns:
    Whether the run has been joined to others.
  """
  names = ('COORDINATOR', 'NUM_PROCESSES', 'PROCESS_ID')
  given = {n: env.get(f'VIDRET_{n}') for n in names}
  missing = [f'VIDRET_{n}' for n in names if not given[n]]
  if len(missing) < len(names):
    if missing:
      raise ValueError(
        f'a run of several processes needs {" and ".join(missing)} as well'
      )
    jax.distributed.initialize(
      given['COORDINATOR'],
      int(given['NUM_PROCESSES']),
      int(given['PROCESS_ID']),
    )
    return True
  if env.get('VIDRET_DISTRIBUTED') == 'auto':
    jax.distributed.initialize()
    return True
  return False


def make_mesh(spec=(('data', -1),)):
  """Makes the device mesh.

  Axes are of type Auto: the default (Explicit) rejects `q @ v.T` of arrays
  split over the same axis, which is what every in-batch loss does. Devices
  are ordered by process, so that process p holds rows
  [p * b / n, (p + 1) * b / n) of a batch, as the data pipeline assumes.

  Args:
    spec: ((name, size), ...), 'data' first; one size may be -1.

  Raises:
    ValueError: if the sizes do not multiply to the number of devices.
  """
  names = [name for name, _ in spec]
  sizes = [size for _, size in spec]
  devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
  text = ', '.join(f'{n}={s}' for n, s in zip(names, sizes))
  if not names or names[0] != _BATCH or len(set(names)) < len(names):
    raise ValueError(
      f"mesh ({text}): the first axis must be 'data', and all names differ"
    )
  known = math.prod(s for s in sizes if s != -1)
  if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
    raise ValueError(f'mesh ({text}): sizes are positive, at most one is -1')
  sizes = [len(devices) // known if s == -1 else s for s in sizes]
  if math.prod(sizes) != len(devices):
    raise ValueError(
      f'mesh ({text}) does not fit the {len(devices)} devices of this run'
    )
  if sizes[0] % jax.process_count():
    raise ValueError(
      f'mesh ({text}): data={sizes[0]} must be a multiple of the '
      f'{jax.process_count()} processes'
    )
  kinds = (AxisType.Auto,) * len(names)
  return Mesh(np.array(devices).reshape(sizes), names, axis_types=kinds)


def replicated(mesh):
  """The sharding of an array that every device holds whole."""
  return NamedSharding(mesh, P())


def batch_sharding(mesh):
  """The sharding of an array whose leading axis is the batch."""
  return NamedSharding(mesh, P(_BATCH))


def check_batch_size(batch_size, mesh, accum_steps=1):
  """Raises if a batch cannot be split over devices and microbatches."""
  parts = mesh.shape[_BATCH] * accum_steps
  if batch_size < 1 or batch_size % parts:
    of = f'{mesh.shape[_BATCH]} devices'
    if accum_steps > 1:
      of += f' x {accum_steps} accum_steps'
    low = batch_size // parts * parts
    near = [str(n) for n in (low, low + parts) if n > 0]
    raise ValueError(
      f'batch_size {batch_size} is not divisible by {of}; '
      f'set --config.input.batch_size={" or ".join(near)}'
    )


def put_batch(local, mesh):
  """Makes a global batch from this process's rows (a pytree of numpy)."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
    local,
  )


def fetch(tree):
  """Copies global arrays to every host, whole, as numpy."""

  def one(x):
    if not isinstance(x, jax.Array):
      return np.asarray(x)
    if x.is_fully_addressable or x.is_fully_replicated:
      return np.asarray(x.addressable_data(0) if x.is_fully_replicated else x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))

  return jax.tree.map(one, tree)


def barrier(name):
  """Waits until every process is here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def path_name(path):
  """'params/text/kernel' of a key path of `jax.tree_util`."""
  return '/'.join(
    str(getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k))))
    for k in path
  )


def tree_sharding(tree, rules, mesh):
  """Assigns a sharding to every leaf by ordered rules; the first match wins.

  Args:
    tree: pytree of arrays or ShapeDtypeStructs.
    rules: ((regex, where), ...). The regex must match the whole name of the
      leaf, e.g. 'params/text/kernel'. `where` is 'replicate', 'fsdp' (split
      the longest axis that 'data' divides, if the array is large enough) or
      a tuple with an axis name or None per array axis. Scalars are
      replicated.
    mesh: the device mesh.

  Returns:
    The tree of NamedShardings.

  Raises:
    ValueError: for a leaf without a rule, or a rule that does not fit it.
  """

  def one(path, leaf):
    name, shape = path_name(path), tuple(leaf.shape)
    found = [(r, w) for r, w in rules if re.fullmatch(r, name)]
    if not found:
      raise ValueError(
        f'no sharding rule covers {name!r} {shape}; '
        "end the rules with ('.*', 'replicate')"
      )
    regex, where = found[0]
    if not shape or where == 'replicate':
      return replicated(mesh)
    if where == 'fsdp':
      return NamedSharding(mesh, _fsdp(shape, mesh.shape[_BATCH]))
    if isinstance(where, str):
      raise ValueError(
        f"sharding rule {regex!r}: {where!r} is neither 'replicate', 'fsdp' "
        'nor a tuple of axis names'
      )
    fits = len(where) <= len(shape) and all(
      axis is None or (axis in mesh.shape and n % mesh.shape[axis] == 0)
      for axis, n in zip(where, shape)
    )
    if not fits:
      raise ValueError(
        f'sharding rule {regex!r} -> {tuple(where)} does not fit {name!r} '
        f'{shape} on mesh {dict(mesh.shape)}'
      )
    return NamedSharding(mesh, P(*where))

  return jax.tree_util.tree_map_with_path(one, tree)


def _fsdp(shape, parts):
  """Splits the longest axis that can be split into `parts`, if worth it."""
  axes = [i for i, n in enumerate(shape) if n % parts == 0]
  if not axes or math.prod(shape) < _FSDP_MIN_ELEMENTS:
    return P()
  longest = max(axes, key=lambda i: shape[i])
  return P(*(_BATCH if i == longest else None for i in range(longest + 1)))
