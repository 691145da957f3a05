# SPDX-License-Identifier: Apache-2.0
"""Tests of search/copy_frames.py."""

import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax import sharding
from vidret_jax.models import base
from vidret_jax.search import copies, copy_frames, copy_reading

SIZE = (4, 6)
LENGTHS = np.array([5, 0, 8, 1, 300], np.int64)


class Eyes(base.Retriever):
  """Two regions of a frame: its halves, as the mean of each colour."""

  def see(self, frames):
    halves = jnp.split(frames.astype(jnp.float32), 2, axis=1)
    return jnp.stack([x.mean((1, 2)) for x in halves], 1)


class Blind(base.Retriever):
  """Makes nothing of frames."""


class Films:
  """Noise of a few lengths; the second video is missing."""

  def __init__(self, lengths=LENGTHS):
    self.lengths, self.size = lengths, SIZE
    self.found = lengths > 0
    self.ids = tuple(f'v{i}' for i in range(len(lengths)))
    self.read = []

  def frames(self, i):
    self.read.append(i)
    rng = np.random.default_rng(i)
    return rng.integers(0, 256, (self.lengths[i], *SIZE, 3), np.uint8)


def see(films, model=None, **options):
  return copy_frames.see(
    model or Eyes(), sharding.make_mesh(), {}, films, **options
  )


def test_each_video_has_the_regions_of_its_frames():
  films, watched = Films(), []

  def watch(numbers, count, what):
    watched.append((count, what))
    return numbers

  seen = see(films, watch=watch)
  assert watched == [(5, 'frames')]
  assert films.read == [0, 2, 3, 4]  # Once, and none of the missing one.
  assert (seen.regions, seen.dim, len(seen)) == (2, 3, 5)
  assert seen.ids is films.ids and seen.found is films.found
  for i, length in enumerate(LENGTHS):
    got = seen.read(i)
    assert got.shape == (length, 2, 3) and got.dtype == seen.dtype
    frames = films.frames(i).astype(np.float32)
    want = frames.reshape(length, 2, 2, 6, 3).mean((2, 3))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_the_search_takes_it():
  seen = see(Films(np.array([0, 4, 9], np.int64)))
  copy_reading.check(seen, 'items')
  assert copies.Options().storage == str(seen.dtype)


def test_no_video_at_all_has_no_frames():
  seen = see(Films(np.zeros(2, np.int64)))
  assert seen.read(0).shape == (0, 2, 3) and not seen.found.any()


def test_a_model_that_sees_nothing_is_named():
  with pytest.raises(TypeError, match='Blind makes no regions of frames'):
    see(Films(), Blind())
