# SPDX-License-Identifier: Apache-2.0
"""The suppression of the method_tvr code where it is at fault, for parity.

Its SVMR lists hold rows (video_idx, start, end, score), but the function that
it gives them to (`temporal_non_maximum_suppression`) reads (start, end, score):
it sorts by end time and compares intervals from video_idx to start. TVRetrieval
has since corrected this; so has `ops.temporal`.
"""

import numpy as np


def suppress(rows: np.ndarray, threshold: float, keep: int) -> np.ndarray:
  """What upstream keeps of the moments of one query in its own video.

  Args:
    rows: float [n, >= 3], video_idx, start, end in seconds, ... .
    threshold: of the overlap.
    keep: how many stay at most.

  Returns:
    int64 [m], numbers of the rows that stay, in upstream's order.
  """
  left = np.argsort(-rows[:, 2], kind='stable')
  if len(left) == 1:
    return left
  stays = []
  while len(left) and len(stays) < keep:
    head, left = left[0], left[1:]
    stays.append(head)
    low, high = rows[left, 0], rows[left, 1]
    shared = np.minimum(high, rows[head, 1]) - np.maximum(low, rows[head, 0])
    hull = np.maximum(high, rows[head, 1]) - np.minimum(low, rows[head, 0])
    iou = np.maximum(shared, 0) / np.where(hull == 0, 1, hull)
    left = left[(hull == 0) | (iou <= threshold)]
  return np.array(stays, np.int64)
