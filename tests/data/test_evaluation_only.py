# SPDX-License-Identifier: Apache-2.0
"""Tests of data/evaluation_only.py."""

import numpy as np
import pytest

from vidret_jax.data import evaluation_only

SHAPES = {'weak': (4, 9, 6), 'weak_labels': [4, 5]}


def test_it_knows_shapes_and_has_nothing():
  source = evaluation_only.make(shapes=SHAPES)
  f4, flag = np.dtype(np.float32), np.dtype(bool)
  assert source.spec == {
    'weak': ((4, 9, 6), f4),
    'weak_labels': ((4, 5), f4),
    '_mask': ((), flag),
  }
  assert source.ids == ()
  half = evaluation_only.make(shapes=SHAPES, dtype='float16')
  assert half.spec['weak'][1] == np.float16


def test_whoever_wants_examples_is_told_what_to_do():
  source = evaluation_only.make(shapes=SHAPES)
  for ask in (
    lambda: len(source),
    lambda: source.gather(np.zeros(1, int), np.zeros(1, int)),
  ):
    with pytest.raises(ValueError, match='only evaluates.*--mode=eval'):
      ask()
  with pytest.raises(ValueError, match="no view 'items', only pairs"):
    evaluation_only.make(shapes=SHAPES, view='items')
