# SPDX-License-Identifier: Apache-2.0
"""Coloured things in a clip: where they are, how they move, their contours.

The picture is separated from the ground by chroma (actors are vivid, grounds
and letters are not), and things from one another by hue.
"""

from collections.abc import Iterator

import numpy as np

HUES = 16
MOTIONS = 16
RINGS, HARMONICS = 6, 6


def vivid(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  """[t, h/2, w/2] in [0, 1]: neither the ground's chroma nor a neutral one."""
  ground = [np.median(q[::4]) for q in (u, v)]
  gap = np.minimum(np.hypot(u, v), np.hypot(u - ground[0], v - ground[1]))
  return np.clip((gap - 14) / 12, 0, 1)


def change(y: np.ndarray) -> np.ndarray:
  """[t, h/2, w/2]: how much brighter or darker than a frame before.

  Args:
    y: float32 [t, h, w], brightness, 0 to 255.
  """
  t, h, w = y.shape
  gap = np.abs(np.diff(y, axis=0, prepend=y[:1]))
  gap = gap.reshape(t, h // 2, 2, w // 2, 2).mean(axis=(2, 4))
  return np.clip(gap - 8, 0, None)


def hue(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  """Hue as a position on a circle of 16 bins, in [0, 16)."""
  return (np.arctan2(v, u) / (2 * np.pi) * HUES) % HUES


def soft_histogram(position, weight, bins: int) -> np.ndarray:
  """Histogram on a circle; each sample is shared by its two nearest bins."""
  low = np.floor(position).astype(np.int64)
  part = position - low
  total = np.bincount(low % bins, weight * (1 - part), bins)
  return total + np.bincount((low + 1) % bins, weight * part, bins)


def motion(vivid: np.ndarray, change: np.ndarray) -> np.ndarray:
  """[16, t]: how area, place and extent change from frame to frame.

  Args:
    vivid: [t, h, w], how much of a pixel belongs to the thing.
    change: [t, h, w], of its brightness; see `change`.
  """
  t, h, w = vivid.shape
  across, down = vivid.sum(axis=1), vivid.sum(axis=2)
  area = across.sum(axis=1) + 1e-3
  x, y = np.arange(w), np.arange(h)
  cx, cy = across @ x / area, down @ y / area
  sx = np.sqrt((across * (x - cx[:, None]) ** 2).sum(axis=1) / area)
  sy = np.sqrt((down * (y - cy[:, None]) ** 2).sum(axis=1) / area)
  usual = np.median(area)
  here = np.clip(area / usual, 0, 3)
  # Where nearly nothing is visible, a centroid is noise: hold it.
  steady = here > 0.3
  last = np.maximum.accumulate(np.where(steady, np.arange(t), 0))
  cx, cy, sx, sy = cx[last], cy[last], sx[last], sy[last]
  active = change.sum(axis=(1, 2)) / usual / 10
  dx, dy, da = (np.diff(q, prepend=q[:1]) for q in (cx, cy, here))
  dsx, dsy = np.diff(sx, prepend=sx[:1]), np.diff(sy, prepend=sy[:1])

  def up(q):
    return np.clip(q, 0, None)

  rows = np.stack([
    up(dx), up(-dx), up(dy), up(-dy),
    4 * up(da), 4 * up(-da), 4 * np.abs(np.diff(da, prepend=da[:1])),
    np.abs(np.diff(dx, prepend=dx[:1])), np.abs(np.diff(dy, prepend=dy[:1])),
    2 * up(dsx), 2 * up(-dsx), 2 * up(dsy), 2 * up(-dsy),
    active, here, np.clip(1 - here, 0, 1),
  ])  # fmt: skip
  return np.sqrt(np.clip(rows, 0, 9))


def by_hue(
  u: np.ndarray, v: np.ndarray, vivid: np.ndarray, count: int = 2
) -> Iterator[tuple[np.ndarray, ...] | None]:
  """The things of the strongest hues of a clip, strongest first.

  Args:
    u: [t, h, w], chroma about 0.
    v: the other chroma.
    vivid: [t, h, w], see `vivid`.
    count: how many.

  Yields:
    (t_at, y_at, x_at, mass) of the clearly vivid pixels, mass 0 where they
    belong to another thing; None where there is no such thing.
  """
  seen = vivid > 0.5
  t_at, y_at, x_at = np.nonzero(seen)
  tint = hue(u[seen], v[seen])
  left = vivid[seen].astype(np.float64)
  for _ in range(count):
    found = soft_histogram(tint, left, HUES)
    if found.max() < 20:
      yield None
      continue
    gap = np.abs((tint - np.argmax(found) + HUES / 2) % HUES - HUES / 2)
    mine = left * (gap < 1.4)
    left = left * (gap >= 1.4)
    yield t_at, y_at, x_at, mine


def contour(t_at, y_at, x_at, mass, t: int) -> tuple[np.ndarray, np.ndarray]:
  """Contour of a thing, free of its place, size and turn.

  Args:
    t_at: frame of each of its pixels, as `by_hue` gives them.
    y_at: row.
    x_at: column.
    mass: weight.
    t: frames of the clip.

  Returns:
    ([7, t, 6] mass in six rings around the centre, then the strength of the
    harmonics 1 to 6 of the angle in each ring; bool [t], frames in which
    enough of it is visible).
  """
  area = np.bincount(t_at, mass, t)
  good = area > 0.4 * np.median(area[area > 0])
  safe = np.maximum(area, 1e-6)
  cx = np.bincount(t_at, mass * x_at, t) / safe
  cy = np.bincount(t_at, mass * y_at, t) / safe
  dx, dy = x_at - cx[t_at], y_at - cy[t_at]
  radius = np.sqrt(dx * dx + dy * dy) / np.sqrt(safe[t_at] / np.pi)
  ring = np.minimum((radius * 3.4).astype(int), RINGS - 1)
  angle = np.arctan2(dy, dx)
  place = t_at * RINGS + ring
  total = np.bincount(place, mass, t * RINGS).reshape(t, RINGS)
  rows = [total / safe[:, None]]
  for k in range(1, HARMONICS + 1):
    re = np.bincount(place, mass * np.cos(k * angle), t * RINGS)
    im = np.bincount(place, mass * np.sin(k * angle), t * RINGS)
    rows.append(np.hypot(re, im).reshape(t, RINGS) / safe[:, None] * 2)
  return np.stack(rows), good
