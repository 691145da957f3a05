# SPDX-License-Identifier: Apache-2.0
"""Video in video: a clip, made small, over a copy of another of the batch.

Some clips of a batch are donors. A donor is resized into a box and pasted over
a copy of another clip, its host; the result takes the donor's place and counts
as a copy of both. Donors and hosts are the clips before any of this.

Part of the strong view of HAP-VR (arXiv 2407.15566) and S2VS; upstream
`datasets/generators.py` does it where a batch is collated. Here it runs on
the devices, because a host may lie in another process' rows. What is drawn
for a clip comes with it, as `mix`, float32 [b, 5]:

  column 0  use     1: the clip is a donor, 0: it stays as it is
  column 1  host    uniform in [0, 1): which other clip of the batch
  column 2  share   of the host that stays visible, lambda of CutMix
  column 3  y       uniform in [0, 1): centre of the box, from the top
  column 4  x       uniform in [0, 1): centre of the box, from the left
"""

import dataclasses

import jax
import jax.numpy as jnp

COLUMNS = ('use', 'host', 'share', 'y', 'x')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plan:
  """Who is pasted where.

  Attributes:
    use: bool [b], whether a clip is a donor.
    host: int32 [b], the clip below a donor; itself where it is none.
    box: int32 [b, 4], top, bottom, left, right of the donor in pixels, the
      second and fourth beyond it.
  """

  use: jax.Array
  host: jax.Array
  box: jax.Array


def plan(
  mix: jax.Array,
  height: int,
  width: int,
  *,
  mask: jax.Array | None = None,
) -> Plan:
  """Reads what was drawn.

  The host of clip i of n is (i + 1 + floor(u (n - 1))) mod n: any but i. The
  sides of the box are floor(side * sqrt(1 - share)), halved downwards on each
  side of its centre, and cut off at the border (CutMix, arXiv 1905.04899).

  Args:
    mix: float32 [b, 5]; see above.
    height: of the clips in pixels.
    width: of the clips in pixels.
    mask: bool [b], True for real clips; a clip that is none, or whose host is
      none, is no donor.

  Raises:
    ValueError: `mix` has another shape.
  """
  n = mix.shape[0]
  if mix.shape != (n, len(COLUMNS)):
    raise ValueError(
      f'mix has shape {mix.shape}, expected [b, {len(COLUMNS)}]: {COLUMNS}.'
    )
  row = jnp.arange(n, dtype=jnp.int32)
  # A uniform just below 1 may have become 1 in float32.
  step = jnp.floor(mix[:, 1] * (n - 1)).astype(jnp.int32)
  step = jnp.clip(step, 0, max(n - 2, 0))
  host = (row + 1 + step) % n
  use = (mix[:, 0] > 0) & (host != row)
  if mask is not None:
    use &= mask & mask[host]
  side = jnp.sqrt(1 - mix[:, 2])

  def ends(size, centre):
    half = jnp.floor(size * side).astype(jnp.int32) // 2
    centre = jnp.floor(centre * size).astype(jnp.int32)
    centre = jnp.clip(centre, 0, size - 1)
    return jnp.clip(centre - half, 0, size), jnp.clip(centre + half, 0, size)

  box = jnp.stack([*ends(height, mix[:, 3]), *ends(width, mix[:, 4])], axis=1)
  return Plan(use, jnp.where(use, host, row), box)


def composite(
  clips: jax.Array, how: Plan, *, antialias: bool = False
) -> jax.Array:
  """Pastes the donors.

  Args:
    clips: uint8 [b, t, h, w, 3].
    how: see `plan`.
    antialias: whether a donor is smoothed as it shrinks, as torchvision 0.17
      resizes; 0.14, which upstream runs with, does not.

  Returns:
    uint8 [b, t, h, w, 3].
  """
  height, width = clips.shape[2:4]
  top, bottom, left, right = how.box.T
  # [b, h, h] and [b, w, w]: from the donor's rows and columns to the host's.
  down = _weights(height, top, bottom, antialias)
  across = _weights(width, left, right, antialias)

  def between(size, start, end):
    place = jnp.arange(size)
    return (place >= start[:, None]) & (place < end[:, None])

  inside = between(height, top, bottom)[:, :, None]
  inside &= between(width, left, right)[:, None]
  inside = (inside & how.use[:, None, None])[..., None]

  def one(frame):  # [b, h, w, 3]; all frames at once would be in float32.
    small = jnp.einsum(
      'byh,bhwc,bxw->byxc',
      down,
      frame.astype(jnp.float32),
      across,
      precision='highest',
    )
    small = jnp.clip(jnp.round(small), 0, 255).astype(jnp.uint8)
    return jnp.where(inside, small, frame[how.host])

  return jnp.moveaxis(jax.lax.map(one, jnp.moveaxis(clips, 1, 0)), 0, 1)


def links(how: Plan) -> jax.Array:
  """Which clips a clip shows: bool [b, b], row i has itself and its host."""
  row = jnp.arange(how.host.shape[0])
  return (row[:, None] == row) | (how.host[:, None] == row)


def label_matrix(shown: jax.Array) -> jax.Array:
  """Which clips of (weak rows, strong rows) are copies of each other.

  Two clips are, if some video is in both (upstream `collate_labels`).

  Args:
    shown: bool [b, b], `links` of the strong clips; weak ones show themselves.

  Returns:
    bool [2b, 2b], symmetric, True on the diagonal.
  """
  rows = jnp.concatenate([jnp.eye(len(shown), dtype=bool), shown])
  rows = rows.astype(jnp.float32)
  return rows @ rows.T > 0


def _weights(size, start, end, antialias):
  """Bilinear interpolation of a side onto [start, end) of itself.

  As torch.nn.functional.interpolate with align_corners=False.

  Args:
    size: pixels of the side.
    start: int32 [b].
    end: int32 [b].
    antialias: whether the triangle widens as the side shrinks.

  Returns:
    float32 [b, size (out), size (in)]; rows outside are of no meaning.
  """
  scale = size / jnp.maximum(end - start, 1).astype(jnp.float32)
  scale = scale[:, None, None]
  place = jnp.arange(size, dtype=jnp.float32)
  middle = (place[:, None] - start[:, None, None] + 0.5) * scale
  if not antialias:
    # Beyond the middle of the first or last pixel, that pixel alone counts.
    middle = jnp.clip(middle, 0.5, size - 0.5)
    return jnp.maximum(1 - jnp.abs(place + 0.5 - middle), 0)
  width = jnp.maximum(scale, 1)
  weights = jnp.maximum(1 - jnp.abs(place + 0.5 - middle) / width, 0)
  total = weights.sum(axis=-1, keepdims=True)
  return weights / jnp.where(total > 0, total, 1)
