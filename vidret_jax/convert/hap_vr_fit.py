# SPDX-License-Identifier: Apache-2.0
"""Frozen parts of HAP-VR that are fitted to the training data, not loaded.

Published whitening belongs to the published ResNet-50. For another backbone, or
other videos, it is fitted to region vectors of one's own.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from vidret_jax.convert import hap_vr_pca
from vidret_jax.models import hap_vr_model

_NONE = 1e-12  # Variance of a direction in which unit vectors do not differ.


def fit_part(
  name: str,
  model: hap_vr_model.HapVr,
  variables: Mapping[str, Any],
  batches: Iterable[Mapping[str, np.ndarray]],
) -> dict[str, Any]:
  """Fits one part.

  Args:
    name: 'pca'.
    model: with a backbone that whitens.
    variables: of the model; what is fitted may be anything.
    batches: of training, with `weak` uint8 [b, t, h, w, 3].

  Returns:
    The part as a tree of variables.

  Raises:
    ValueError: another part, a model without whitening, or too few frames.
  """
  if name != 'pca':
    raise ValueError(f"init.fit: {name!r} cannot be fitted, only 'pca'.")
  whole = model.backbone
  if whole is None or whole.dims is None:
    raise ValueError(
      'init.fit.pca: the model whitens nothing. Set model.backbone and '
      'model.backbone.dims, or leave init.fit empty.'
    )
  network = whole.clone(dims=None, parent=None)
  resnet = {'params': {'resnet': variables['params']['backbone']['resnet']}}
  see = jax.jit(network.apply)

  def vectors():
    for batch in batches:
      # Rows that are none are left out afterwards: one program for all.
      clips = batch['weak']
      seen = np.asarray(see(resnet, clips.reshape(-1, *clips.shape[2:])))
      yield seen.reshape(len(clips), -1, seen.shape[-1])[batch['_mask']]

  pca = hap_vr_pca.fit(vectors())
  directions = int((pca.values > _NONE).sum())
  if directions < whole.dims:
    raise ValueError(
      f'init.fit.pca: the frames differ in {directions} directions, but '
      f'model.backbone.dims={whole.dims} are wanted. Fit it to more batches, '
      'or lower dims.'
    )
  kernel = np.asarray(pca.kernel(whole.dims), np.float32)
  return {'params': {'backbone': {'pca': {'mean': pca.mean, 'kernel': kernel}}}}
