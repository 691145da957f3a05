# SPDX-License-Identifier: Apache-2.0
"""How alike frames and videos are, from their parts: Chamfer and its kin.

ViSiL, Kordopatis-Zilos et al., ICCV 2019, https://arxiv.org/abs/1908.07410;
TopK-Chamfer: HAP-VR, Liu et al., ACM MM 2024, https://arxiv.org/abs/2407.15566.
A frame is a set of region vectors, a video a sequence of frames. Both
similarities look for the best partners in the target first and average over the
query then, so they have a direction: from the query to the target.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

POOLS = ('topk', 'chamfer', 'max', 'average')

# Products of regions that exist at a time, and the fewest columns of a tile.
_HELD, _HELD_CPU, _NARROWEST = 2**27, 2**19, 64


def top_count(candidates: int, rate: float) -> int:
  """How many of the best partners are averaged: at least one.

  Python's rounding of the float product, to the even number at a half, as
  upstream does it: one of 9 regions at the rate 0.1, two of 50 places at 0.03.
  """
  return max(round(candidates * rate), 1)


def top_counts(most: int, rate: float) -> np.ndarray:
  """int32 [most + 1]: `top_count` of 0 to `most` candidates."""
  return np.asarray([top_count(n, rate) for n in range(most + 1)], np.int32)


def frame_similarity(
  q: Array,
  v: Array,
  *,
  pool: str = 'topk',
  k: int = 1,
  precision: str | None = 'highest',
) -> Array:
  """Compares all frames of queries with all frames of targets.

  The products of regions, 81 per pair of frames, exist for some frames of the
  targets at a time, in the backward pass, too.

  Args:
    q: [q, tq, r, d] region vectors.
    v: [v, tt, s, d] region vectors.
    pool: 'topk': mean over regions of the query of the mean of the `k` best
      regions of the target; 'chamfer': of the best one; 'max': the best pair;
      'average': the mean over pairs.
    k: of 'topk'; static.
    precision: of matrix products.

  Returns:
    [q, v, tq, tt], float32 or wider.
  """
  check_pool(pool)
  (n, tq, _, d), (m, tt) = q.shape, v.shape[:2]
  wide = jnp.promote_types(q.dtype, jnp.float32)
  rows = q.reshape(n * tq, -1, d).swapaxes(0, 1)
  columns = v.reshape(m * tt, -1, d)
  if pool == 'average':
    out = dot(
      rows.mean(0, dtype=wide), columns.mean(1, dtype=wide), precision, wide
    )
  elif pool == 'max':
    out = _sweep(rows, columns, 1, precision, wide, best=True)
  elif pool == 'chamfer' or k == 1:
    out = _chamfer(rows, columns, precision, wide)
  else:
    out = _sweep(rows, columns, k, precision, wide, best=False)
  return out.reshape(n, tq, m, tt).swapaxes(1, 2)


def video_similarity(
  frames: Array,
  rows: Array,
  columns: Array,
  *,
  pool: str,
  counts: np.ndarray | None = None,
) -> Array:
  """Pools a matrix of alike places of two videos.

  Args:
    frames: [n, tq, tt].
    rows: int [n], valid rows of each matrix.
    columns: int [n], its valid columns.
    pool: as in `frame_similarity`: over columns first, then over rows.
    counts: for 'topk', `top_counts` up to tt: how many of the best columns
      count is a matter of how many there are.

  Returns:
    [n].
  """
  check_pool(pool)
  wide, tall = frames.shape[2], frames.shape[1]
  valid_rows = jnp.arange(tall) < rows[:, None]
  valid = jnp.arange(wide) < columns[:, None]
  if pool == 'average':
    cells = valid_rows[:, :, None] & valid[:, None]
    total = jnp.sum(jnp.where(cells, frames, 0), (1, 2))
    return total / jnp.maximum(rows * columns, 1)
  frames = jnp.where(valid[:, None], frames, -jnp.inf)
  most = int(counts[: wide + 1].max()) if pool == 'topk' else 1
  if most > 1:
    k = jnp.asarray(counts)[columns]
    best = jax.lax.top_k(frames, most)[0]
    best = jnp.where(jnp.arange(most) < k[:, None, None], best, 0)
    best = best.sum(-1) / k[:, None]
  else:
    # Not the maximum itself: its gradient would be shared between equal ones.
    first = frames.argmax(-1, keepdims=True)
    best = jnp.take_along_axis(frames, first, -1)[..., 0]
  if pool == 'max':
    return jnp.where(valid_rows, best, -jnp.inf).max(-1)
  best = jnp.where(valid_rows, best, 0)
  return best.sum(-1) / jnp.maximum(rows, 1)


def check_pool(pool: str) -> None:
  """Raises ValueError for a pooling that does not exist."""
  if pool not in POOLS:
    raise ValueError(f'pool={pool!r}: expected one of {", ".join(POOLS)}.')


def held() -> int:
  """Products of regions that should exist at a time: what caches hold."""
  return _HELD_CPU if jax.default_backend() == 'cpu' else _HELD


def dot(a: Array, b: Array, precision: str | None, wide: jnp.dtype) -> Array:
  """[n, d] . [m, d] -> [n, m], of the type `wide`."""
  return jax.lax.dot_general(
    a,
    b,
    (((1,), (1,)), ((), ())),
    precision=precision,
    preferred_element_type=wide,
  )


def dot_slopes(
  slope: Array, a: Array, b: Array, precision: str | None, wide: jnp.dtype
) -> tuple[Array, Array]:
  """Slopes [n, d], [m, d] of the operands of `dot` by that [n, m] of it."""
  return tuple(
    jax.lax.dot_general(
      slope,
      x,
      (((axis,), (0,)), ((), ())),
      precision=precision,
      preferred_element_type=wide,
    )
    for axis, x in ((1, b), (0, a))
  )


def _tiles(rows, columns):
  """Cuts columns [m, s, d] into tiles [count, width, s, d], zeros at the end.

  The products of all rows [r, n, d] with one tile are what exists at a time: on
  a CPU as much as its caches hold, if that leaves tiles that are wide enough.
  """
  m, s, _ = columns.shape
  per_column = rows.shape[0] * rows.shape[1] * s
  fewest = -(-m // max(held() // per_column, _NARROWEST))
  # A number that divides, if there is one nearby: padding makes a copy.
  count = next((n for n in range(fewest, 2 * fewest) if m % n == 0), fewest)
  width = -(-m // count)
  columns = jnp.pad(columns, ((0, count * width - m), (0, 0), (0, 0)))
  return columns.reshape(count, width, *columns.shape[1:])


def _untile(tiles, m):
  """[count, n, width] -> [n, m]."""
  return jnp.moveaxis(tiles, 0, 1).reshape(tiles.shape[1], -1)[:, :m]


def _products(rows, tile, precision, wide):
  """[r, n, d] with [m, s, d]: [r, n, s, m].

  Regions of a target before its frames: what is pooled is then a middle axis,
  and the last one is long.
  """
  (r, n, d), (m, s, _) = rows.shape, tile.shape
  tile = tile.swapaxes(0, 1).reshape(s * m, d)
  out = dot(rows.reshape(r * n, d), tile, precision, wide)
  return out.reshape(r, n, s, m)


def _sweep(rows, columns, k, precision, wide, best):
  """Mean over regions of the query (or the best) of the mean of its k best."""

  @jax.checkpoint
  def of_tile(tile):
    products = jnp.moveaxis(_products(rows, tile, precision, wide), 2, -1)
    top = jax.lax.top_k(products, k)[0].mean(-1)
    return top.max(0) if best else top.mean(0)

  tiles = _tiles(rows, columns)
  return _untile(jax.lax.map(of_tile, tiles), columns.shape[0])


def first_best(x: Array, axis: int) -> tuple[Array, Array]:
  """(maximum, its first place, uint8) over a short axis."""
  slices = [
    jax.lax.index_in_dim(x, i, axis, False) for i in range(x.shape[axis])
  ]
  best, which = slices[0], jnp.zeros(slices[0].shape, jnp.uint8)
  for i, one in enumerate(slices[1:], 1):
    better = one > best
    best = jnp.where(better, one, best)
    which = jnp.where(better, jnp.uint8(i), which)
  return best, which


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _chamfer(rows, columns, precision, wide):
  """Mean over r of the maximum over s of rows [r, n, d] . columns [m, s, d].

  Its own backward pass keeps which region was the best, one byte for every
  region of a pair of frames, instead of the products, 36; and at a tie the
  first one gets the whole gradient, as in PyTorch, not a share of it.
  """

  def of_tile(tile):
    return _products(rows, tile, precision, wide).max(2).mean(0)

  tiles = _tiles(rows, columns)
  return _untile(jax.lax.map(of_tile, tiles), columns.shape[0])


def _chamfer_forward(rows, columns, precision, wide):
  def of_tile(tile):
    best, which = first_best(_products(rows, tile, precision, wide), 2)
    return best.mean(0), which

  out, which = jax.lax.map(of_tile, _tiles(rows, columns))
  return _untile(out, columns.shape[0]), (rows, columns, which)


def _chamfer_backward(precision, wide, kept, grad):
  rows, columns, which = kept
  (r, n, d), (m, s, _) = rows.shape, columns.shape
  tiles = _tiles(rows, columns)
  count, width = tiles.shape[:2]
  grad = jnp.pad(grad / r, ((0, 0), (0, count * width - m)))
  grad = jnp.moveaxis(grad.reshape(n, count, width), 1, 0)
  regions = jnp.arange(s, dtype=jnp.uint8)[:, None]
  flat = rows.reshape(r * n, d)

  def add(total, xs):
    tile, which, grad = xs
    share = jnp.where(which[:, :, None] == regions, grad[:, None], 0)
    share = share.reshape(r * n, s * width).astype(rows.dtype)
    tile = tile.swapaxes(0, 1).reshape(s * width, d)
    d_rows, d_tile = dot_slopes(share, flat, tile, precision, wide)
    return total + d_rows, d_tile.reshape(s, width, d).swapaxes(0, 1)

  start = jnp.zeros((r * n, d), wide)
  d_rows, d_tiles = jax.lax.scan(add, start, (tiles, which, grad))
  d_columns = d_tiles.reshape(-1, s, d)[:m]
  return (
    d_rows.reshape(rows.shape).astype(rows.dtype),
    d_columns.astype(columns.dtype),
  )


_chamfer.defvjp(_chamfer_forward, _chamfer_backward)
