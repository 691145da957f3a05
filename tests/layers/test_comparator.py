# SPDX-License-Identifier: Apache-2.0
"""Tests of layers/comparator.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.layers import comparator

pytestmark = pytest.mark.usefixtures('quick_compiler')

NET = comparator.Comparator()


def draw(*shape, seed=0):
  x = np.random.default_rng(seed).normal(size=shape)
  return x.astype(np.float32)


@functools.cache
def variables():
  """Large weights and biases, so that padding that leaks in is seen."""
  shapes = jax.eval_shape(
    NET.init, jax.random.key(0), jnp.zeros((1, 4, 4)), 4, 4
  )
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: (0.3 * rng.normal(size=x.shape)).astype('f'), shapes
  )


@functools.cache
def compiled(method=None, **static):
  run = functools.partial(NET.apply, method=method, **static)
  return jax.jit(run)


def compare(x, rows, columns):
  return compiled()(variables(), x, np.asarray(rows), np.asarray(columns))


def test_has_as_many_parameters_as_published():
  count = sum(x.size for x in jax.tree.leaves(variables()))
  assert count == 92_801


def test_padding_changes_nothing():
  rows, columns = np.array([4, 9, 11]), np.array([10, 5, 7])
  x = draw(3, 12, 12)
  padded = np.full_like(x, np.nan)
  for i, (r, c) in enumerate(zip(rows, columns)):
    padded[i, :r, :c] = x[i, :r, :c]
  got = compare(padded, rows, columns)
  for i, (r, c) in enumerate(zip(rows, columns)):
    alone = compare(x[i : i + 1, :r, :c], r, c)[0]
    assert alone.shape == (r // 4, c // 4)
    assert np.abs(alone).max() > 0.1
    inside = got[i, : r // 4, : c // 4]
    np.testing.assert_allclose(inside, alone, rtol=1e-5, atol=1e-5)
    outside = np.asarray(got[i]).copy()
    outside[: r // 4, : c // 4] = 0
    assert not outside.any()


def test_strips_are_the_whole():
  """Also where a strip ends inside of the padding, and one lies within."""
  rows, columns = np.array([38, 25, 4]), np.array([6, 9, 9])
  x = draw(3, 38, 9)
  want = compare(x, rows, columns)
  strips = compiled('in_strips', strip=8)(variables(), x, rows, columns)
  assert strips.shape == want.shape == (3, 9, 2)
  np.testing.assert_allclose(strips, want, rtol=1e-5, atol=1e-5)
  # One strip is the whole.
  np.testing.assert_array_equal(
    compiled('in_strips', strip=40)(variables(), x, rows, columns), want
  )


@pytest.mark.parametrize('width', [1, 3])
def test_gradients_are_those_of_jax(width):
  x, kernel = draw(2, 5, 7, 3), draw(width, width, 3, 4, seed=1)
  weigh = draw(2, 5, 7, 4, seed=2)

  @functools.partial(jax.jit, static_argnums=0)
  def gradient(convolve, x, kernel):
    def loss(x, kernel):
      return (convolve(x, kernel, 'highest') * weigh).sum()

    return jax.grad(loss, (0, 1))(x, kernel)

  got = gradient(comparator._convolve, x, kernel)
  want = gradient(comparator._plain, x, kernel)
  for a, b in zip(got, want):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_tie_gives_its_gradient_to_the_first():
  x = np.array([[1.0, 1.0, 0.0, 2.0], [1.0, 0.0, 2.0, 1.0]], np.float32)
  grad = jax.jit(jax.grad(lambda x: comparator._pool(x).sum()))(
    x[None, ..., None]
  )
  np.testing.assert_array_equal(grad[0, ..., 0], [[1, 0, 0, 1], [0, 0, 0, 0]])
