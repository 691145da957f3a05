# SPDX-License-Identifier: Apache-2.0
"""Stands for training data in configs that only evaluate.

A model is built for batches of known shapes. Where it is not to be trained
here, the shapes are enough: the config of an evaluation gives them, and the
training data need not be there.
"""

from collections.abc import Mapping, Sequence

import numpy as np

_ONLY = (
  'this config only evaluates: run it with --mode=eval, or train with another '
  'one.'
)


class Shapes:
  """No examples, and what one would look like.

  Attributes:
    ids: none.
    spec: see `data.source.Source`.
  """

  ids: tuple[str, ...] = ()

  def __init__(self, shapes: Mapping[str, Sequence[int]], dtype: str):
    """Takes the shape of every key of an example."""
    self.spec = {
      key: (tuple(shape), np.dtype(dtype)) for key, shape in shapes.items()
    }
    self.spec['_mask'] = ((), np.dtype(bool))

  def __len__(self) -> int:
    """Raises ValueError: who counts examples is about to train."""
    raise ValueError(_ONLY)

  def gather(self, index, seeds):
    """Raises ValueError: there is nothing to read."""
    raise ValueError(_ONLY)


def make(
  *,
  shapes: Mapping[str, Sequence[int | None]],
  dim: int | None = None,
  view: str = 'pairs',
  dtype: str = 'float32',
) -> Shapes:
  """Opens nothing.

  Args:
    shapes: key -> shape of one example.
    dim: where a shape has None; a reference to an option of the model.
    view: 'pairs'.
    dtype: of all keys.

  Raises:
    ValueError: another view.
  """
  if view != 'pairs':
    raise ValueError(f'evaluation_only has no view {view!r}, only pairs.')
  whole = {
    key: tuple(dim if n is None else n for n in shape)
    for key, shape in shapes.items()
  }
  return Shapes(whole, dtype)
