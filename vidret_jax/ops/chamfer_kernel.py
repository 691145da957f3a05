# SPDX-License-Identifier: Apache-2.0
"""A fused kernel for `chamfer.frame_similarity`, forward only, for GPU and TPU.

For a pair of frames, 81 products of regions are pooled to one number. Here they
never leave the chip: a tile of frames of queries meets a tile of frames of
targets, one pair of regions after another; the k best products over regions of
the target are kept by compare and exchange, and summed over regions of the
query. `chamfer.frame_similarity` is the plain form, and the oracle.

The frames of all videos lie side by side, so videos of 16 frames fill a tile
as well as long ones; regions of a frame lie in one row, as they come, so
nothing is copied or turned before. `chamfer_tiles` has the kernels.

Products are added in float32, whatever the operands are. The kernels were run
in Pallas' interpreted mode on CPUs, and lowered for both targets; neither GPU
nor TPU was at hand, so tiles are by calculation, not by trial, and `chosen`
compares a few of them with the plain form before it says yes.
"""

import functools
import logging

import jax
from jax.experimental import custom_partitioning
import jax.numpy as jnp
import numpy as np

from vidret_jax.ops import chamfer_tiles

Array = jax.Array

KERNELS = ('auto', 'einsum', 'pallas')
DTYPES = ('float32', 'bfloat16', 'float16')
# Frames with which is tried whether it works: full tiles and incomplete ones.
_TRIED = (300, (3, 120))
# Numbers there are about 1; float32 sums of the same products differ by less.
_FAR = 0.01


def chosen(kernel: str, q: Array, v: Array, k: int = 1) -> bool:
  """Whether the kernel is to be used.

  Args:
    kernel: 'einsum': never; 'pallas': always, on a CPU in the (slow)
      interpreted mode; 'auto': on a GPU or TPU where it works.
    q: see `frame_similarity`; also shapes.
    v: see `frame_similarity`; also shapes.
    k: see `frame_similarity`.

  Raises:
    ValueError: no such choice.
  """
  if kernel not in KERNELS:
    raise ValueError(f'kernel={kernel!r}: expected one of {KERNELS}.')
  if kernel != 'auto':
    return kernel == 'pallas'
  dtype = jnp.promote_types(q.dtype, v.dtype).name
  platform = jax.default_backend()
  if platform == 'cpu' or dtype not in DTYPES:
    return False
  return _works(platform, q.shape[-2], tuple(v.shape[-2:]), dtype, k)


@functools.cache
def _works(platform, regions, shape, dtype, k):
  """Compares a few tiles with the plain form; the answer is kept."""
  rows, columns = _TRIED
  rng = np.random.default_rng(0)
  q, v = (
    (rng.normal(size=x) / shape[1] ** 0.25).astype(jnp.dtype(dtype))
    for x in ((rows, regions, shape[1]), (*columns, *shape))
  )
  try:
    call = jax.jit(frame_similarity, static_argnums=2).lower(q, v, k).compile()
    far = np.abs(np.asarray(call(q, v)) - _plain(q, v, k)).max()
    if not far < _FAR:
      raise ArithmeticError(f'its numbers are off by up to {far:.2g}')
  # Compilers fail in ways of their own.
  except Exception as error:
    logging.getLogger(__name__).warning(
      'the fused kernel is not used on this %s: %s', platform, error
    )
    return False
  return True


def _plain(q, v, k):
  """`frame_similarity` in numpy."""
  (tq, r, d), (n, tt, s, _) = q.shape, v.shape
  products = np.float32(q).reshape(-1, d) @ np.float32(v).reshape(-1, d).T
  products = np.sort(products.reshape(tq, r, n, tt, s), -1)
  return products[..., -k:].mean((1, 4)).swapaxes(0, 1)


def frame_similarity(
  q: Array,
  v: Array,
  k: int = 1,
  *,
  precision: str | None = 'highest',
  backend: str | None = None,
  interpret: bool | None = None,
) -> Array:
  """Compares all frames of queries with all frames of targets.

  Arrays that are split over devices by videos or frames stay where they are; in
  `shard_map`, set `check_vma=False`. `vmap` is a loop. There is no gradient.

  Args:
    q: [tq, r, d] region vectors of one query, or [..., tq, r, d].
    v: [n, tt, s, d] region vectors of targets.
    k: best regions of the target that are averaged, 1 to s.
    precision: of products of 32 bits, None: the device's own. On a TPU
      whatever lies between is 'highest', and float16 is multiplied as 32 bits.
    backend: 'tpu' or 'gpu'; None: as the devices are.
    interpret: run it step by step, on any device; None: on CPUs only.

  Returns:
    float32 [n, tq, tt], or [..., n, tq, tt]: means over r of means of the k
    best over s.

  Raises:
    ValueError: other shapes or types.
  """
  dtype = _check(q, v, k)
  platform = jax.default_backend()
  backend = backend or ('tpu' if platform == 'tpu' else 'gpu')
  interpret = platform == 'cpu' if interpret is None else interpret
  if backend == 'tpu' and dtype == jnp.float16:
    dtype = jnp.dtype('float32')  # Which a TPU can multiply.
  if dtype != jnp.float32:
    precision = None
  elif backend == 'tpu' and precision not in (None, 'default'):
    precision = 'highest'  # Mosaic has one or six passes, not three.
  multiple = chamfer_tiles.multiple(backend, q.shape[-1], dtype)
  *lead, tq, r, d = q.shape
  n, tt, s, _ = v.shape
  if not min(q.size, v.size):
    return jnp.zeros((*lead, n, tq, tt), jnp.float32)
  # Zeros at the end of vectors change no product.
  q, v = (
    jnp.pad(x.astype(dtype), [(0, 0)] * (x.ndim - 1) + [(0, -d % multiple)])
    for x in (q, v)
  )
  rows = q.reshape(-1, r * q.shape[-1])
  columns = v.reshape(n, tt, s * v.shape[-1])

  @jax.custom_batching.sequential_vmap
  def call(rows, columns):
    return _split(rows, columns, (r, s), k, precision, backend, interpret)

  out = call(rows, columns)
  return jnp.moveaxis(out.reshape(*lead, tq, n, tt), -2, -3)


def _check(q, v, k):
  if q.ndim < 3 or v.ndim != 4 or q.shape[-1] != v.shape[-1]:
    raise ValueError(
      f'q {q.shape}, v {v.shape}: expected [..., tq, r, d] and [n, tt, s, d].'
    )
  if not 1 <= k <= v.shape[2]:
    raise ValueError(f'k={k}: expected 1 to {v.shape[2]}, regions of a target.')
  dtype = jnp.promote_types(q.dtype, v.dtype)
  if dtype.name not in DTYPES:
    raise ValueError(
      f'q {q.dtype}, v {v.dtype}: expected {", ".join(DTYPES)}; take '
      "kernel='einsum' for others."
    )
  return dtype


def _kernel(rows, columns, regions, k, precision, backend, interpret):
  """[m, r * d], [n, t, s * d] -> [m, n, t], on one device."""
  n, t, _ = columns.shape
  columns = columns.reshape(n * t, -1)
  call = dict(tpu=chamfer_tiles.on_tpu, gpu=chamfer_tiles.on_gpu)[backend]
  out = call(rows, columns, regions, k, precision, interpret)
  return out.reshape(-1, n, t)


_split = custom_partitioning.custom_partitioning(
  _kernel, static_argnums=(2, 3, 4, 5, 6)
)


def _partition(regions, k, precision, backend, interpret, mesh, inputs, output):
  """What each device does; the rule below says how arrays may be split."""

  def of_device(rows, columns):
    return _kernel(rows, columns, regions, k, precision, backend, interpret)

  return (
    mesh,
    of_device,
    output.sharding,
    tuple(x.sharding for x in inputs),
  )


_split.def_partition(
  partition=_partition,
  sharding_rule='m a, n t b -> m n t',
  need_replication_factors=('a', 'b'),
)
