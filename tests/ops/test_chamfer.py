# SPDX-License-Identifier: Apache-2.0
"""Tests of ops/chamfer.py, against plain numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.ops import chamfer

pytestmark = pytest.mark.usefixtures('quick_compiler')


def draw(*shape, seed=0):
  x = np.random.default_rng(seed).normal(size=shape)
  return x.astype(np.float32)


def best(x, k):
  """Mean of the k largest of the last axis."""
  return np.sort(x, -1)[..., ::-1][..., :k].mean(-1)


def by_hand(q, v, pool, k):
  products = np.einsum('qiod,vjpd->qvijop', np.float64(q), np.float64(v))
  if pool == 'average':
    return products.mean((-2, -1))
  if pool == 'max':
    return products.max((-2, -1))
  return best(products, k if pool == 'topk' else 1).mean(-1)


POOLS = [('topk', 1), ('topk', 2), ('chamfer', 1), ('max', 1), ('average', 1)]


@pytest.fixture(params=[False, True])
def tiles(request, monkeypatch):
  """Whether targets are cut into tiles, the last of which is not full."""
  if request.param:
    monkeypatch.setattr(chamfer, '_HELD_CPU', 1)
    monkeypatch.setattr(chamfer, '_NARROWEST', 8)
  return request.param


@pytest.mark.parametrize('pool, k', POOLS)
def test_frames_by_hand(pool, k, tiles):
  q, v = draw(2, 3, 2, 5), draw(3, 7, 4, 5, seed=1)
  assert len(chamfer._tiles(q.reshape(6, 2, 5), v.reshape(21, 4, 5))) == (
    3 if tiles else 1
  )
  compare = functools.partial(chamfer.frame_similarity, pool=pool, k=k)
  got = jax.jit(compare)(q, v)
  assert got.shape == (2, 3, 3, 7) and got.dtype == jnp.float32
  np.testing.assert_allclose(got, by_hand(q, v, pool, k), rtol=1e-5, atol=1e-6)


def test_gradient_of_chamfer_is_that_of_the_plain_form(tiles):
  q, v = draw(2, 3, 2, 5), draw(3, 7, 4, 5, seed=1)
  weigh = draw(2, 3, 3, 7, seed=2)

  def ours(q, v):
    return (chamfer.frame_similarity(q, v) * weigh).sum()

  def plain(q, v):
    products = jnp.einsum('qiod,vjpd->qvijop', q, v, precision='highest')
    return (products.max(-1).mean(-1) * weigh).sum()

  got, want = (jax.jit(jax.grad(f, (0, 1)))(q, v) for f in (ours, plain))
  for a, b in zip(got, want):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('k', [1, 2])
def test_a_tie_gives_its_gradient_to_the_first_regions(k):
  """As PyTorch's `max` and `topk`, of which JAX's `max` shares it."""
  q, v = np.ones((1, 1, 1, 2), 'f'), np.ones((1, 1, 3, 2), 'f')

  def total(v):
    return chamfer.frame_similarity(q, v, k=k).sum()

  grad = jax.jit(jax.grad(total))(v)[0, 0]
  np.testing.assert_allclose(grad[:k], 1 / k)
  assert not grad[k:].any()


def test_short_numbers_are_added_up_in_float32():
  q, v = draw(1, 2, 2, 64), draw(1, 3, 2, 64, seed=1)
  q, v = jnp.asarray(q, jnp.bfloat16), jnp.asarray(v, jnp.bfloat16)
  got = chamfer.frame_similarity(q, v)
  assert got.dtype == jnp.float32
  want = by_hand(np.asarray(q, 'f'), np.asarray(v, 'f'), 'chamfer', 1)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@functools.partial(jax.jit, static_argnames='pool')
def video(frames, rows, columns, *, pool):
  counts = chamfer.top_counts(8, 0.4) if pool == 'topk' else None
  return chamfer.video_similarity(
    frames, rows, columns, pool=pool, counts=counts
  )


@pytest.mark.parametrize('pool', chamfer.POOLS)
def test_videos_by_hand_whatever_lies_in_the_padding(pool):
  frames = draw(4, 6, 8)
  rows, columns = np.array([6, 1, 4, 3]), np.array([8, 5, 1, 4])
  padded = np.full_like(frames, np.nan)
  want = []
  for i, (r, c) in enumerate(zip(rows, columns)):
    x = padded[i, :r, :c] = frames[i, :r, :c]
    k = chamfer.top_count(int(c), 0.4) if pool == 'topk' else 1
    want.append(
      {'max': x.max(), 'average': x.mean()}.get(pool, best(x, k).mean())
    )
  assert [chamfer.top_count(c, 0.4) for c in (8, 5, 1, 4)] == [3, 2, 1, 2]
  got = video(padded, rows, columns, pool=pool)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_tie_of_places_gives_its_gradient_to_the_first():
  frames = np.ones((1, 2, 3), 'f')

  def total(x):
    full = np.array([2]), np.array([3])
    return chamfer.video_similarity(x, *full, pool='chamfer')[0]

  np.testing.assert_array_equal(
    jax.jit(jax.grad(total))(frames)[0], [[0.5, 0, 0], [0.5, 0, 0]]
  )


def test_counts_round_as_python_does():
  # Half to the even number; 0.3 * 5 is not less than 1.5 in float64.
  assert [chamfer.top_count(n, 0.5) for n in (0, 1, 3, 5)] == [1, 1, 2, 2]
  assert chamfer.top_count(50, 0.03) == 2
  assert chamfer.top_counts(3, 0.5).tolist() == [1, 1, 1, 2]


def test_an_unknown_pooling_is_named():
  q = draw(1, 1, 1, 2)
  with pytest.raises(ValueError, match="pool='mean'.*topk, chamfer, max"):
    chamfer.frame_similarity(q, q, pool='mean')
  with pytest.raises(ValueError, match="pool='mean'"):
    chamfer.video_similarity(q[0], 1, 1, pool='mean')
