# SPDX-License-Identifier: Apache-2.0
"""Ranks and tables as CLIP4Clip and its descendants (EERCF) make them.

Two forms. The square form takes a matrix whose right answers are on the
diagonal (upstream's `compute_metrics`). The caption form takes all captions of
each video, `[videos, captions, videos]` with -inf where a video has fewer
(upstream's `tensor_text_to_video_metrics`). Both treat equal scores and medians
in ways of their own, which a comparison with their numbers has to repeat;
`metrics.ranks` has the clean rules. Whole matrices only.
"""

import numpy as np

FORMS = ('captions', 'square')
CUTOFFS = (1, 5, 10)


def diagonal_ranks(sim_nn: np.ndarray) -> np.ndarray:
  """Square form: every place at which a row, sorted, has its diagonal's value.

  A row with ties gives one rank per tied place, so there may be more ranks than
  rows; a diagonal that is -inf or NaN gives none.

  Args:
    sim_nn: [n, n].

  Returns:
    int64 [places], zero-based, row by row.
  """
  if sim_nn.ndim != 2 or sim_nn.shape[0] != sim_nn.shape[1]:
    raise ValueError(
      f'the square form needs a square matrix, found shape {sim_nn.shape}.'
    )
  falling = np.sort(-sim_nn, axis=1)
  with np.errstate(invalid='ignore'):  # inf - inf is NaN, which is not 0.
    away = falling - np.diag(-sim_nn)[:, None]
  return np.nonzero(away == 0)[1]


def by_video(sim_qv: np.ndarray, item_of_query: np.ndarray) -> np.ndarray:
  """Stacks the captions of each video.

  Args:
    sim_qv: [q, v].
    item_of_query: int [q]; captions of a video keep their order.

  Returns:
    float64 [v, captions, v]; -inf fills up videos with fewer captions.
  """
  v = sim_qv.shape[1]
  sizes = np.bincount(item_of_query, minlength=v)
  order = np.argsort(item_of_query, kind='stable')
  first = np.cumsum(sizes) - sizes
  video = np.asarray(item_of_query)[order]
  out = np.full((v, sizes.max(), v), -np.inf)
  out[video, np.arange(len(order)) - first[video]] = sim_qv[order]
  return out


def caption_ranks(sim_vcv: np.ndarray) -> np.ndarray:
  """Caption form, text to video: the rank of each caption's own video.

  Upstream leaves the order of equal scores open; here the lower index goes
  first. NaN counts as the largest value. Captions whose own score is not finite
  are left out: they are padding.

  Args:
    sim_vcv: [v, captions, v].

  Returns:
    int64 [captions that exist], zero-based, in upstream's order: the first
    captions of all videos, then the second ones.
  """
  sim_cvv = np.swapaxes(sim_vcv, 0, 1)
  own = np.diagonal(sim_cvv, axis1=1, axis2=2)  # [c, v]
  before = np.tri(sim_cvv.shape[2], k=-1, dtype=bool)  # Column < own column.
  rival = np.where(np.isnan(sim_cvv), np.inf, sim_cvv)
  ahead = rival > own[..., None]
  ahead |= (rival == own[..., None]) & before
  return ahead.sum(-1)[np.isfinite(own)]


def video_to_text(sim_vcv: np.ndarray) -> np.ndarray:
  """Matrix of the way back: each video with the best caption of each video.

  Returns:
    [v, v], rows are videos that ask; for `diagonal_ranks`.
  """
  return np.where(np.isnan(sim_vcv), -np.inf, sim_vcv).max(1).T


def summary(ranks: np.ndarray, form: str = 'square') -> dict[str, float]:
  """The table row that upstream prints.

  Args:
    ranks: [n], zero-based.
    form: the median of an even number of ranks is the mean of the middle two
      ('square') or the lower one ('captions').

  Returns:
    R@1, R@5, R@10 in percent, one-based MdR and MnR, and rsum, the sum of the
    three recalls (upstream's `selection_score`).

  Raises:
    ValueError: there are no ranks.
  """
  if not len(ranks):
    raise ValueError('no ranks to summarise: no right answer has a score.')
  out = {f'R@{k}': float(100 * np.mean(ranks < k)) for k in CUTOFFS}
  middle = np.sort(ranks)[(len(ranks) - 1) // 2]
  if form == 'square':
    middle = np.median(ranks)
  out['MdR'] = float(middle + 1)
  out['MnR'] = float(np.mean(ranks) + 1)
  out['rsum'] = sum(out[f'R@{k}'] for k in CUTOFFS)
  return out


def evaluate(
  sim_qv: np.ndarray, item_of_query: np.ndarray, form: str = 'captions'
) -> dict[str, dict[str, float]]:
  """Both directions of one matrix, as upstream's evaluation reports them.

  Args:
    sim_qv: [q, v].
    item_of_query: int [q].
    form: 'captions' (upstream for MSR-VTT and MSVD), or 'square' (its other
      sets), which needs one caption per video.

  Returns:
    {'t2v': row, 'v2t': row} of `summary`.
  """
  stacked = by_video(sim_qv, item_of_query)
  if form == 'captions':
    t2v = summary(caption_ranks(stacked), 'captions')
    return {'t2v': t2v, 'v2t': summary(diagonal_ranks(video_to_text(stacked)))}
  if form != 'square':
    raise ValueError(f'form={form!r}: expected one of {", ".join(FORMS)}.')
  sizes = np.bincount(item_of_query, minlength=sim_qv.shape[1])
  if (sizes != 1).any():
    v = int(np.argmax(sizes != 1))
    raise ValueError(
      f"form='square' needs one caption per video; video number {v} has "
      f"{sizes[v]}. Use form='captions'."
    )
  square = sim_qv[np.argsort(item_of_query)]
  return {
    't2v': summary(diagonal_ranks(square)),
    'v2t': summary(diagonal_ranks(square.T)),
  }
