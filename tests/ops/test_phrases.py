# SPDX-License-Identifier: Apache-2.0
"""Phrase similarities against the sums that they avoid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.ops import phrases


def problem(dtype=np.float32):
  rng = np.random.default_rng(0)
  q, p, v, t, d = 5, 3, 4, 6, 7
  words = rng.standard_normal((q, p, d)).astype(dtype)
  frames = rng.standard_normal((v, t, d)).astype(dtype)
  counts = np.array([0, 1, 2, 3, 1])
  mask = np.arange(p) < counts[:, None]
  frame_mask = np.arange(t) < np.array([6, 1, 4, 2])[:, None]
  # No frame points the phrase's way: weights are equal there.
  frames[1] = -np.abs(frames[1])
  words[1] = np.abs(words[1])
  return words, mask, frames, frame_mask


def naive(words, mask, frames, frame_mask, sigma, fusion):
  out = np.zeros((len(words), len(frames)))
  for q, v in np.ndindex(out.shape):
    real = frames[v, frame_mask[v]]
    scores = []
    for phrase in words[q, mask[q]]:
      length = np.linalg.norm(real, axis=1) * np.linalg.norm(phrase)
      cosine = real @ phrase / length
      chosen = np.maximum(cosine, 0)
      chosen = chosen / max(np.linalg.norm(chosen), 1e-10)
      weight = np.exp(sigma * chosen)
      weight /= weight.sum()
      mixed = weight @ real
      scores.append(
        weight @ cosine
        if fusion == 'sim'
        else mixed @ phrase / np.linalg.norm(mixed) / np.linalg.norm(phrase)
      )
    out[q, v] = sum(scores) / max(1, len(scores))
  return out


def ours(words, mask, frames, frame_mask, sigma, fusion, **options):
  words = phrases.unit(jnp.asarray(words))
  frames = jnp.asarray(frames)
  return phrases.similarities(
    words,
    mask,
    frames,
    frame_mask,
    phrases.gram(frames),
    sigma=sigma,
    fusion=fusion,
    **options,
  )


@pytest.mark.parametrize('fusion', phrases.FUSIONS)
@pytest.mark.parametrize('sigma', [4.0, 300.0])
def test_against_weighted_sums(fusion, sigma):
  given = problem()
  want = naive(
    *(x.astype(np.float64) for x in given[:1]), *given[1:], sigma, fusion
  )
  got = ours(*given, sigma, fusion)
  np.testing.assert_allclose(got, want, atol=3e-6)
  assert not np.any(got[0])  # A caption without phrases.


@pytest.mark.parametrize('fusion', phrases.FUSIONS)
def test_gradients_are_those_of_the_sums(fusion):
  words, mask, frames, frame_mask = problem(np.float64)
  with jax.enable_x64(True):

    def total(words, frames):
      out = ours(words, mask, frames, frame_mask, 4.0, fusion)
      return jnp.sum(out * jnp.arange(out.size).reshape(out.shape))

    def reference(words, frames):
      out = naive(words, mask, frames, frame_mask, 4.0, fusion)
      return np.sum(out * np.arange(out.size).reshape(out.shape))

    got = jax.grad(total, argnums=(0, 1))(words, frames)
  rng = np.random.default_rng(1)
  for which, slope in enumerate(got):
    direction = rng.standard_normal(slope.shape)
    step = 1e-6
    ends = []
    for sign in (1, -1):
      given = [words, frames]
      given[which] = given[which] + sign * step * direction
      ends.append(reference(*given))
    want = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(np.sum(slope * direction), want, rtol=1e-6)


def test_what_is_masked_is_never_read():
  words, mask, frames, frame_mask = problem()
  other = np.where(frame_mask[..., None], frames, np.float32(9))
  others = np.where(mask[..., None], words, np.float32(9))
  np.testing.assert_array_equal(
    ours(words, mask, frames, frame_mask, 4.0, 'embed'),
    ours(others, mask, other, frame_mask, 4.0, 'embed'),
  )


def test_rows_of_padding_are_finite():
  words, mask, frames, frame_mask = problem()
  frame_mask[0] = False
  words[2] = 0

  def total(words, frames):
    return ours(words, mask, frames, frame_mask, 4.0, 'embed').sum()

  value, slopes = jax.value_and_grad(total, argnums=(0, 1))(words, frames)
  assert np.isfinite(value)
  assert all(np.isfinite(x).all() for x in slopes)


def test_unknown_fusion():
  with pytest.raises(ValueError, match="fusion='max'"):
    ours(*problem(), 4.0, 'max')
