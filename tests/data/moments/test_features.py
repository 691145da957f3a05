# SPDX-License-Identifier: Apache-2.0
"""Sampling, normalisation, endpoints and labels, from their formulas."""

import math

import numpy as np
import pytest

from vidret_jax.data.moments import features


@pytest.mark.parametrize('n', [1, 6, 7, 8, 11, 12, 25])
def test_mean_sampling(n):
  rng, limit = np.random.default_rng(n), 6
  x = rng.normal(size=(n, 3)).astype(np.float32)
  got = features.sample(x, limit)
  assert got.dtype == np.float32
  if n <= limit:
    assert got is x
    return
  bounds = [min(round(k / limit * n), n - 1) for k in range(limit + 1)]
  for row, a, b in zip(got, bounds, bounds[1:]):
    want = x[a:b].mean(0) if a < b else x[a]
    np.testing.assert_allclose(row, want, rtol=1e-6)
  # The last row counts where its bucket is empty only.
  assert (got[-1] == x[-1]).all() == (bounds[-2] == bounds[-1])


def test_first_rows():
  x = np.arange(20.0).reshape(10, 2)
  np.testing.assert_array_equal(features.sample(x, 4, 'first'), x[:4])
  assert features.sample(x, 10, 'first') is x


def test_normalise_adds_to_the_norm():
  x = np.asarray([[3, 4], [0, 0], [3e-5, 4e-5]], np.float32)
  got = features.normalise(x)
  want = [[3 / 5.00001, 4 / 5.00001], [0, 0], [0.5, 2 / 3]]
  np.testing.assert_allclose(got, want, rtol=1e-6)
  assert got.dtype == np.float32


def test_endpoints():
  got = features.endpoints(np.asarray([4, 0, 3]), 5)
  assert got.dtype == np.float32 and got.shape == (3, 5, 2)
  np.testing.assert_array_equal(got[0, :, 0], [0, 0.25, 0.5, 0.75, 0])
  np.testing.assert_array_equal(got[0, :, 1], [0.25, 0.5, 0.75, 1, 0])
  assert not got[1].any() and got[2, 2, 1] == 1
  np.testing.assert_array_equal(got[2, 1:3, 0], got[2, :2, 1])


def test_labels():
  rng = np.random.default_rng(0)
  spans = np.sort(rng.uniform(0, 40, (50, 2)))
  spans[:4] = [[3.2, 7.6], [3, 6], [0, 0], [39.9, 60]]
  clips = rng.integers(1, 30, 50)
  clips[:4] = 20, 20, 1, 25
  got = features.labels(spans, clips, 1.5)
  assert got.dtype == np.int32
  for (start, end), n, row in zip(spans, clips, got, strict=True):
    want = [math.floor(start / 1.5), math.ceil(end / 1.5)]
    assert row.tolist() == [min(x, n - 1) for x in want]
  assert got[0].tolist() == [2, 6]
