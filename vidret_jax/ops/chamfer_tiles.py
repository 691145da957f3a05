# SPDX-License-Identifier: Apache-2.0
"""The kernels of `chamfer_kernel`, for one device: tiles of frames by frames.

Tiles at the edges may be incomplete: what is computed there beyond the last
frame is not written.

On chip, with 9 regions of 512 numbers:
  TPU (Mosaic): 256 x 256 frames; two buffers each of the targets' tile (4.5
    MiB in 32 bits, half of it in 16), of one region of the queries' tile (0.5)
    and of the result (0.25): 10.5 MiB of VMEM, 5.5 with 16 bits, and 0.25 for
    each product kept.
  GPU (Triton): 128 x 128 frames (64 x 128 if k > 1), slices of 64 numbers (32
    if they have 32 bits): 32 KiB of shared memory for each of 3 stages. Sums,
    products and the best lie in registers: 192 KiB of 256 for k = 1, 128 for
    k = 2; from k = 6 on they spill.
"""

from collections.abc import Sequence

import jax
from jax import lax
from jax.experimental import pallas as pl
import jax.numpy as jnp

Array = jax.Array

_TPU_TILE = 256
_GPU_TILE = 128
_SLICE_BYTES = 128  # Of a row that a step on a GPU multiplies.
_LANES = 128  # Of a TPU: slices of rows begin at multiples of them.


def multiple(backend: str, d: int, dtype: jnp.dtype) -> int:
  """What the width of a region must be a multiple of.

  Args:
    backend: 'tpu' or 'gpu'.
    d: width.
    dtype: of the numbers.
  """
  return _LANES if backend == 'tpu' else _slice(d, dtype)


def _slice(d, dtype):
  """Numbers that one step on a GPU multiplies: a power of two."""
  most = _SLICE_BYTES // dtype.itemsize
  return min(max(pl.next_power_of_2(d), 16), most)


def _dot(x, y, precision):
  """[m, d] . [n, d] -> float32 [m, n]."""
  return lax.dot_general(
    x,
    y,
    (((1,), (1,)), ((), ())),
    precision=precision,
    preferred_element_type=jnp.float32,
  )


def _keep(best: Sequence[Array], x: Array) -> list[Array]:
  """The largest of `best` and x, in order, as many as before."""
  kept = []
  for y in best:
    kept.append(jnp.maximum(x, y))
    x = jnp.minimum(x, y)
  return kept


def _nothing(shape, k):
  return [jnp.full(shape, -jnp.inf, jnp.float32)] * k


def on_tpu(
  rows: Array,
  columns: Array,
  regions: tuple[int, int],
  k: int,
  precision: str | None,
  interpret: bool,
) -> Array:
  """Regions of the query are steps, whose sums stay in the result's tile.

  Args:
    rows: [m, r * d], frames of queries.
    columns: [n, s * d], frames of targets.
    regions: (r, s).
    k: best regions that are averaged.
    precision: of products.
    interpret: see `pallas_call`.

  Returns:
    float32 [m, n].
  """
  from jax.experimental.pallas import tpu as pltpu

  r, s = regions
  (m, _), (n, width) = rows.shape, columns.shape
  d = width // s
  tile_m, tile_n = (min(_TPU_TILE, x) for x in (m, n))

  def kernel(q_ref, v_ref, out_ref):
    q = q_ref[...]
    best = _nothing(out_ref.shape, k)
    for i in range(s):
      best = _keep(best, _dot(q, v_ref[:, i * d : (i + 1) * d], precision))
    total = sum(best)
    step = pl.program_id(2)

    @pl.when(step == 0)
    def _():
      out_ref[...] = total

    @pl.when(step > 0)
    def _():
      out_ref[...] += total

    @pl.when(step == r - 1)
    def _():
      out_ref[...] /= r * k

  return pl.pallas_call(
    kernel,
    grid=(pl.cdiv(n, tile_n), pl.cdiv(m, tile_m), r),
    # The targets' tile, the largest, is fetched once.
    in_specs=[
      pl.BlockSpec((tile_m, d), lambda j, i, o: (i, o)),
      pl.BlockSpec((tile_n, width), lambda j, i, o: (j, 0)),
    ],
    out_specs=pl.BlockSpec((tile_m, tile_n), lambda j, i, o: (i, j)),
    out_shape=jax.ShapeDtypeStruct((m, n), jnp.float32),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary')
    ),
    interpret=interpret,
    name='chamfer',
  )(rows, columns)


def on_gpu(
  rows: Array,
  columns: Array,
  regions: tuple[int, int],
  k: int,
  precision: str | None,
  interpret: bool,
) -> Array:
  """Slices of vectors are loaded again and again, from the caches.

  See `on_tpu`.
  """
  from jax.experimental.pallas import triton

  r, s = regions
  (m, _), (n, width) = rows.shape, columns.shape
  d = width // s
  step = _slice(d, rows.dtype)
  tile_m, tile_n = (
    min(most, max(pl.next_power_of_2(x), 16))
    for x, most in ((m, _GPU_TILE // (1 if k == 1 else 2)), (n, _GPU_TILE))
  )

  def kernel(q_ref, v_ref, out_ref):
    j, i = pl.program_id(0), pl.program_id(1)
    real_m = (i * tile_m + jnp.arange(tile_m) < m)[:, None]
    real_n = (j * tile_n + jnp.arange(tile_n) < n)[:, None]

    def product(a, b):
      def add(c, total):
        x, y = (
          triton.load(
            ref.at[:, pl.ds(first * d + c * step, step)], mask=real, other=0
          )
          for ref, first, real in ((q_ref, a, real_m), (v_ref, b, real_n))
        )
        return total + _dot(x, y, precision)

      start = jnp.zeros((tile_m, tile_n), jnp.float32)
      return lax.fori_loop(0, d // step, add, start)

    def add_region(a, total):
      best = lax.fori_loop(
        *(0, s, lambda b, best: _keep(best, product(a, b))),
        _nothing((tile_m, tile_n), k),
      )
      return total + sum(best)

    start = jnp.zeros((tile_m, tile_n), jnp.float32)
    total = lax.fori_loop(0, r, add_region, start) / (r * k)
    triton.store(out_ref, total, mask=real_m & real_n.T)

  return pl.pallas_call(
    kernel,
    grid=(pl.cdiv(n, tile_n), pl.cdiv(m, tile_m)),
    in_specs=[
      pl.BlockSpec((tile_m, r * d), lambda j, i: (i, 0)),
      pl.BlockSpec((tile_n, width), lambda j, i: (j, 0)),
    ],
    out_specs=pl.BlockSpec((tile_m, tile_n), lambda j, i: (i, j)),
    out_shape=jax.ShapeDtypeStruct((m, n), jnp.float32),
    compiler_params=triton.CompilerParams(num_warps=8, num_stages=3),
    interpret=interpret,
    name='chamfer',
  )(rows, columns)
