# SPDX-License-Identifier: Apache-2.0
"""Re-ranking of whole score matrices, as EERCF's evaluation does it.

Rows are texts, columns are videos. All pairs are scored at all levels, then the
k best entries of each row are overwritten, twice, with fused scores. A search
scores only the short list instead: `evaluators.two_stage`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

LEVELS = ('video', 'frame_weak', 'frame_strong', 'patch_weak', 'patch_strong')
# Upstream adds it so that a re-ranked entry stands above all others.
LIFT = 100.0
# Weights of the second pass; constants in upstream's code.
FINAL = {
  'frame_weak': 0.8,
  'frame_strong': 0.2,
  'patch_weak': 0.2,
  'video': 0.5,
}
# Weights of the first pass: the defaults of upstream's command line. Each group
# is summed by its own weights, then the groups by theirs.
FIRST = (
  (0.8, {'video': 0.5, 'frame_weak': 0.5, 'patch_weak': 0.05}),
  (0.2, {'frame_strong': 1.0, 'patch_strong': 0.0}),
)


def fuse(
  levels: Mapping[str, np.ndarray],
  weights: Mapping[str, float],
  lift: float = 0.0,
) -> np.ndarray:
  """Weighted sum of the score matrices of some levels, plus `lift`: [q, v].

  A level of weight 0 is left out, so it may be absent or NaN. Terms are added
  from left to right: the rounding of sums near 100 is upstream's, too.
  """
  used = {name: w for name, w in weights.items() if w}
  if missing := sorted(set(used) - set(levels)):
    raise ValueError(
      f'no scores of level {missing[0]!r}; there are {sorted(levels)}.'
    )
  terms = (levels[n] * np.asarray(w, levels[n].dtype) for n, w in used.items())
  return sum(terms, np.float32(lift))


def fuse_groups(
  levels: Mapping[str, np.ndarray],
  groups: Sequence[tuple[float, Mapping[str, float]]] = FIRST,
) -> np.ndarray:
  """What the first pass writes, without the lift: [q, v]; see `FIRST`."""
  groups = [(weight, weights) for weight, weights in groups if weight]
  return fuse(
    {i: fuse(levels, weights) for i, (_, weights) in enumerate(groups)},
    {i: weight for i, (weight, _) in enumerate(groups)},
  )


def largest(sim_qv: np.ndarray, k: int) -> np.ndarray:
  """Columns of the k largest entries of each row.

  As upstream's `argsort(...)[:, -k:]`: k = 0 takes all, more than there are
  takes all, NaN counts as largest.

  Returns:
    int64 [q, min(k, v) or v].
  """
  if k < 0:
    raise ValueError(f'k={k}: expected 0 (all) or more.')
  return np.argsort(sim_qv, axis=1, kind='stable')[:, -k:]


def put(sim_qv: np.ndarray, lifted_qv: np.ndarray, k: int) -> np.ndarray:
  """A copy with the k largest of each row replaced by those of `lifted_qv`."""
  out, columns = sim_qv.copy(), largest(sim_qv, k)
  new = np.take_along_axis(lifted_qv, columns, 1)
  np.put_along_axis(out, columns, new.astype(out.dtype), 1)
  return out


def two_pass(
  video: np.ndarray,
  fused: np.ndarray,
  levels: Mapping[str, np.ndarray],
  k: int,
  *,
  weights: Mapping[str, float] = FINAL,
  general: bool = True,
) -> np.ndarray:
  """Upstream's two passes of re-ranking.

  The second pass takes the k largest of what the first one wrote. That is the
  same set unless some entry, lifted, still stands below one that was left
  alone; then the set differs, and entries keep their value of the first pass.

  Args:
    video: [q, v], the coarse scores.
    fused: [q, v], written by the first pass; see `fuse_groups`.
    levels: level -> [q, v], fused by `weights` for the second pass.
    k: entries per row; 0 for all.
    weights: level -> weight of the second pass.
    general: do both passes. False does the second one only, which is the same
      wherever `min(fused) + LIFT > max(video)`.

  Returns:
    [q, v].
  """
  first = video
  if general:
    first = put(video, fused + np.float32(LIFT), k)
  return put(first, fuse(levels, weights, LIFT), k)


def needs_both_passes(video: np.ndarray, fused: np.ndarray) -> bool:
  """Whether the passes of `two_pass` may pick different sets."""
  return not fused.min() + LIFT > video.max()


def softmax(x: np.ndarray, theta: float = 1.0, axis: int = -1) -> np.ndarray:
  """Softmax of `theta * x` (upstream's `npsoftmax`)."""
  y = x * np.asarray(theta, x.dtype)
  y = np.exp(y - y.max(axis, keepdims=True))
  return y / y.sum(axis, keepdims=True)


def dual_softmax(sim_qv: np.ndarray, tau: float = 1.0) -> np.ndarray:
  """Weighs scores by how much each video prefers the text over all others.

  `x * softmax(x / tau over texts) * texts`. It looks at the whole query set at
  once, which a search never can: report it apart.
  """
  if not tau > 0:
    raise ValueError(f'tau={tau}: expected a positive temperature.')
  scaled = sim_qv / np.asarray(tau, sim_qv.dtype)
  return sim_qv * softmax(scaled, axis=0) * len(sim_qv)
