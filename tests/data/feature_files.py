# SPDX-License-Identifier: Apache-2.0
"""Writes small files of features to train on, as `tools.extract` makes them."""

import pathlib

import h5py
import numpy as np


def write(
  path: pathlib.Path,
  *,
  videos: int = 6,
  frames: int = 11,
  regions: int = 9,
  dim: int = 12,
  labels: int = 5,
  seed: int = 0,
) -> pathlib.Path:
  """Writes `regions/<video>` and `labels/<video>` of every video.

  Args:
    path: of the file; its folder is made.
    videos: how many.
    frames: of the first; each of the others has one more.
    regions: of a frame.
    dim: of a region, whose vector has length 1.
    labels: width of label features.
    seed: of everything.

  Returns:
    path.
  """
  rng = np.random.default_rng(seed)
  path.parent.mkdir(parents=True, exist_ok=True)
  with h5py.File(path, 'w') as file:
    for i in range(videos):
      x = rng.normal(size=(frames + i, regions, dim))
      x /= np.linalg.norm(x, axis=-1, keepdims=True)
      label = rng.normal(size=(frames + i, labels))
      file[f'regions/v{i:02d}'] = x.astype(np.float16)
      file[f'labels/v{i:02d}'] = label.astype(np.float16)
  return path
