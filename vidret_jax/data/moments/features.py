# SPDX-License-Identifier: Apache-2.0
"""Rows of clips and tokens as the readers of ReLoCLNet and XML have them.

Source: `method_tvr/start_end_dataset.py` and `utils/tensor_utils.py` of
ReLoCLNet; `baselines/crossmodal_moment_localization` of TVRetrieval (XML).
"""

import numpy as np

SAMPLING = ('mean', 'first')
_EPS = 1e-5  # Added to the norm.


def normalise(x: np.ndarray) -> np.ndarray:
  """Rows of length almost one; rows of zeros stay (`l2_normalize_np_array`)."""
  return x / (np.linalg.norm(x, axis=-1, keepdims=True) + _EPS)


def sample(x: np.ndarray, max_clips: int, sampling: str = 'mean') -> np.ndarray:
  """At most `max_clips` rows.

  Args:
    x: float [n, d].
    max_clips: L.
    sampling: of more rows than that, 'mean' averages neighbours
      (`uniform_feature_sampling`; the last row hardly ever counts, as there),
      'first' takes the first ones, as XML does.

  Returns:
    float [min(n, L), d].
  """
  n = len(x)
  if n <= max_clips:
    return x
  if sampling == 'first':
    return x[:max_clips]
  bounds = np.arange(max_clips + 1) / max_clips * n
  bounds = np.minimum(np.round(bounds).astype(np.int64), n - 1)
  pairs = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
  return np.stack(
    [x[a:b].mean(axis=0) if a < b else x[a] for a, b in pairs]
  ).astype(x.dtype, copy=False)


def endpoints(clips: np.ndarray, max_clips: int) -> np.ndarray:
  """Temporal endpoint features: start and end of every clip, in [0, 1].

  Args:
    clips: int [b], rows of each video, T.
    max_clips: L.

  Returns:
    float32 [b, L, 2]: [i / T, (i + 1) / T], zeros from row T on. Upstream's
    evaluation has i / T + 1 / T instead, which differs by one ulp at most.
  """
  i = np.arange(max_clips, dtype=np.float32)
  total = np.maximum(np.asarray(clips), 1).astype(np.float32)[:, None]
  out = np.stack([i / total, (i + 1) / total], axis=-1)
  out[i >= np.asarray(clips)[:, None]] = 0
  return out


def labels(
  spans: np.ndarray, clips: np.ndarray, clip_seconds: float
) -> np.ndarray:
  """First clip of moments, and the clip after their last (`get_st_ed_label`).

  Both are at most the last clip: of a moment that lasts to the end of its video
  the second is no boundary, as upstream. Videos that were sampled down are not
  rescaled.

  Args:
    spans: float [q, 2], seconds.
    clips: int [q], rows of the videos, T.
    clip_seconds: length of a clip.

  Returns:
    int32 [q, 2].
  """
  spans, last = np.asarray(spans, np.float64), np.asarray(clips) - 1
  first = np.minimum(np.floor(spans[:, 0] / clip_seconds), last)
  end = np.minimum(np.ceil(spans[:, 1] / clip_seconds), last)
  return np.stack([first, end], axis=1).astype(np.int32)
