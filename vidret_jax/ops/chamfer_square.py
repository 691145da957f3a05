# SPDX-License-Identifier: Apache-2.0
"""Chamfer similarity of all clips of a batch with all, in both directions.

The products of the regions of two clips serve both directions. Here each is
made once, which leaves half of the work of `chamfer.frame_similarity`, in the
backward pass, too. Blocks of clips meet on a ring: block i meets i + 0, i + 1,
... up to the one opposite. All blocks then have the same work, so a batch that
is split over devices stays split.
"""

import functools

import jax
import jax.numpy as jnp

from vidret_jax.ops import chamfer

Array = jax.Array

# Blocks on the ring. Half as many steps, each of them a part of the program.
_BLOCKS = 16


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def frame_similarity(x: Array, precision: str | None = 'highest') -> Array:
  """As `chamfer.frame_similarity(x, x, pool='chamfer')`.

  Its own backward pass keeps which regions were the best, as that one's does.

  Args:
    x: [n, t, r, d] region vectors of clips.
    precision: of matrix products.

  Returns:
    [n, n, t, t], float32 or wider; rows compare themselves with columns.
  """
  return _meetings(x, precision, _similarities)[0]


def _forward(x, precision):
  out, best = _meetings(x, precision, _best_regions)
  return out, (x, best)


def _backward(precision, kept, grad):
  x, best = kept
  n, t, r, _ = x.shape
  blocks = _split(x)
  ring = len(blocks)
  grad = grad.swapaxes(1, 2).reshape(ring, n // ring * t, ring, -1) / r
  # From columns to distances: column (i + distance).
  there = _along(jnp.moveaxis(grad, 2, 1), _grid(ring, 1))
  total = jnp.zeros(blocks.shape, grad.dtype)
  for step, which in enumerate(best):
    slopes = [there[:, step]]
    if _has_two_ways(step, ring):
      back = jnp.roll(there[:, ring - step], -step, 0)
      slopes.append(back.swapaxes(1, 2))
    ahead = jnp.roll(blocks, -step, 0)
    one, other = _each(
      functools.partial(_slopes, t=t, precision=precision),
      (blocks, ahead, which, slopes),
      t,
    )
    total = total + one + jnp.roll(other, step, 0)
  return (total.swapaxes(1, 2).reshape(x.shape).astype(x.dtype),)


frame_similarity.defvjp(_forward, _backward)


def _meetings(x, precision, compare):
  """All blocks with all: ([n, n, t, t], what else `compare` says by step)."""
  n, t = x.shape[:2]
  blocks = _split(x)
  ring = len(blocks)
  there, back, rest = [], [], []
  for step in range(ring // 2 + 1):
    two_ways = _has_two_ways(step, ring)
    found, more = _each(
      functools.partial(
        _tiled, t=t, precision=precision, two_ways=two_ways, compare=compare
      ),
      (blocks, jnp.roll(blocks, -step, 0)),
      t,
    )
    there.append(found[0])
    if two_ways:
      back.append(jnp.roll(found[1].swapaxes(1, 2), step, 0))
    rest.append(more)
  # From distances on the ring to columns: distance (j - i).
  out = _along(jnp.stack([*there, *back[::-1]], 1), _grid(ring, -1))
  out = jnp.moveaxis(out, 1, 2).reshape(n, t, n, t)
  return out.swapaxes(1, 2), rest


def _has_two_ways(step, ring):
  """Whether a step's pairs of blocks are no other step's the other way."""
  return 0 < step and 2 * step != ring


def _split(x):
  """[n, t, r, d] -> blocks [b, r, n / b * t, d]."""
  n, t, r, d = x.shape
  count = next(b for b in range(min(n, _BLOCKS), 0, -1) if n % b == 0)
  return x.reshape(count, n // count * t, r, d).swapaxes(1, 2)


def _grid(ring, sign):
  """int [ring, ring]: (j + i) or (j - i), around the ring."""
  i = jnp.arange(ring)
  return (i + sign * i[:, None]) % ring


def _along(x, index):
  """x[i, index[i, j]] for [i, k, ...]."""
  return jnp.take_along_axis(x, index[:, :, None, None], 1)


def _each(call, args, t):
  """`call` of every block; on a CPU as many at a time as its caches hold."""
  if jax.default_backend() != 'cpu':
    return jax.vmap(lambda x: call(*x))(args)
  ring, r, p, _ = args[0].shape
  at_once = chamfer.held() // (r * r * p * _width(p, r, t))
  return jax.lax.map(
    lambda x: call(*x), args, batch_size=min(ring, max(1, at_once))
  )


def _width(p, r, t):
  """Columns of a tile: whole clips that divide the block."""
  clips = p // t
  most = max(1, chamfer.held() // (r * r * p * t))
  return t * next(c for c in range(min(clips, most), 0, -1) if clips % c == 0)


def _cut(x, width):
  """[..., q, d] -> [tiles, ..., width, d]."""
  *front, q, d = x.shape
  return jnp.moveaxis(x.reshape(*front, q // width, width, d), -3, 0)


def _tiled(one, other, *, t, precision, two_ways, compare):
  """Compares two blocks [r, p, d], [r, q, d], some columns at a time.

  Returns:
    ((there [p, q] and back [p, q], if asked for), what else `compare` says by
    tile).
  """
  r, p, d = one.shape
  wide = jnp.promote_types(one.dtype, jnp.float32)

  def of_tile(tile):
    products = chamfer.dot(
      one.reshape(r * p, d), tile.reshape(-1, d), precision, wide
    )
    return compare(products.reshape(r, p, r, -1), two_ways)

  found, more = jax.lax.map(of_tile, _cut(other, _width(p, r, t)))
  return [jnp.moveaxis(x, 0, 1).reshape(p, -1) for x in found], more


def _similarities(products, two_ways):
  """Products [r, p, s, q] to similarities [p, q], there and back."""
  out = [products.max(2).mean(0)]
  if two_ways:
    out.append(products.max(0).mean(1))
  return out, ()


def _best_regions(products, two_ways):
  """As `_similarities`, and the best regions [r, p, q] and [p, s, q]."""
  there, which = chamfer.first_best(products, 2)
  out, kept = [there.mean(0)], [which]
  if two_ways:
    back, which = chamfer.first_best(products, 0)
    out.append(back.mean(1))
    kept.append(which)
  return out, kept


def _slopes(one, other, which, slopes, *, t, precision):
  """Slopes of two blocks [r, p, d], [r, q, d] by those of their cells.

  Args:
    one, other: the blocks.
    which: of `_best_regions`, by tile.
    slopes: [p, q], as many as ways.
    t: frames of a clip.
    precision: of matrix products.
  """
  r, p, d = one.shape
  wide = slopes[0].dtype
  width = _width(p, r, t)
  flat = one.reshape(r * p, d)
  places = jnp.arange(r, dtype=jnp.uint8)

  def add(total, args):
    tile, which, slopes = args
    # Products [r, p, s, width]: of row regions the best s, and the reverse.
    share = jnp.where(
      which[0][:, :, None] == places[:, None], slopes[0][:, None], 0
    )
    if len(which) > 1:
      mine = which[1] == places[:, None, None, None]
      share = share + jnp.where(mine, slopes[1][:, None], 0)
    share = share.reshape(r * p, r * width).astype(one.dtype)
    tile = tile.reshape(r * width, d)
    d_one, d_tile = chamfer.dot_slopes(share, flat, tile, precision, wide)
    return total + d_one, d_tile.reshape(r, width, d)

  cells = [jnp.moveaxis(s.reshape(p, -1, width), 1, 0) for s in slopes]
  d_one, d_tiles = jax.lax.scan(
    add, jnp.zeros((r * p, d), wide), (_cut(other, width), which, cells)
  )
  d_other = jnp.moveaxis(d_tiles, 0, 1).reshape(other.shape)
  return d_one.reshape(one.shape), d_other
