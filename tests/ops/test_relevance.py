# SPDX-License-Identifier: Apache-2.0
"""Tests of ops/relevance.py against sets and fractions."""

import fractions

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.ops import relevance

# With repetitions and with empty sets.
ROWS = st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=4, max_size=4)
jitted = jax.jit(relevance.relevance, static_argnames='part')
overlap = jax.jit(relevance.overlap)


def padded(rows, width=6):
  out = np.full((len(rows), width), -1, np.int32)
  for i, row in enumerate(rows):
    out[i, : len(row)] = row
  return out


def iou(a, b):
  a, b = set(a), set(b)
  return len(a & b) / max(1, len(a | b))


def by_sets(video_verbs, video_nouns, verbs, nouns, part):
  out = np.zeros((len(video_verbs), len(verbs)))
  for i in range(len(video_verbs)):
    for j in range(len(verbs)):
      verb = iou(video_verbs[i], verbs[j])
      noun = iou(video_nouns[i], nouns[j])
      out[i, j] = {
        'full': (verb + noun) / 2,
        'verb': verb,
        'noun': noun,
        'verb_dummy': (verb + 1) / 2,
        'noun_dummy': (noun + 1) / 2,
      }[part]
  return out


@settings(max_examples=30, deadline=None)
@given(ROWS, ROWS, ROWS, ROWS)
def test_sets_one_pair_at_a_time(video_verbs, video_nouns, verbs, nouns):
  lists = video_verbs, video_nouns, verbs, nouns
  for part in relevance.PARTS:
    got = jitted(*map(padded, lists), part=part)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, by_sets(*lists, part), atol=2e-7)


@settings(max_examples=20, deadline=None)
@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_order_repetition_and_padding_mean_nothing(a, b, random):
  def again(row):
    row = row + row[: 6 - len(row)]
    random.shuffle(row)
    return row

  want = np.asarray(overlap(padded(a), padded(b)))
  got = overlap(padded([again(r) for r in a]), padded([again(r) for r in b], 9))
  np.testing.assert_array_equal(got, want)
  turned = overlap(padded(b), padded(a))
  np.testing.assert_array_equal(turned.T, want)


def test_numbers_of_clips_captions_and_classes_differ():
  rng = np.random.default_rng(0)
  clips = [rng.integers(0, 9, n).tolist() for n in (3, 0, 5)]
  captions = [rng.integers(0, 9, n).tolist() for n in (1, 2, 0, 4, 2)]
  got = overlap(padded(clips, 5), padded(captions, 4))
  want = [[iou(a, b) for b in captions] for a in clips]
  np.testing.assert_allclose(got, want, atol=1e-7)


def test_no_classes_at_all():
  none = np.zeros((3, 0), np.int32)
  got = relevance.relevance(none, none, none[:2], none[:2])
  np.testing.assert_array_equal(got, np.zeros((3, 2)))


@pytest.mark.parametrize('classes', [4, 32])
def test_memory_does_not_grow_with_the_number_of_classes(classes):
  rows = 512
  ids = jax.ShapeDtypeStruct((rows, classes), jnp.int32)
  compiled = jitted.lower(ids, ids, ids, ids).compile()
  found = compiled.memory_analysis().temp_size_in_bytes
  assert found < 4 * rows * rows * 4


@pytest.mark.parametrize('threshold', ['0.05', '0.1', '0.15', '0.4', '0.75'])
def test_decisions_are_those_of_exact_numbers(threshold):
  rng = np.random.default_rng(0)
  union = rng.integers(1, 31, (2, 20000))
  # Near the threshold, where rounding matters.
  wanted = 2 * float(threshold) * rng.uniform(0.3, 0.7, 20000)
  first = np.minimum(np.round(wanted * union[0]), union[0])
  rest = 2 * float(threshold) - first / union[0]
  second = np.clip(np.round(rest * union[1]), 0, union[1])
  verb, noun = (
    jnp.asarray(x, jnp.float32) / jnp.asarray(u, jnp.float32)
    for x, u in zip((first, second), union)
  )
  decide = jax.jit(relevance.at_least, static_argnums=1)
  got = decide((verb + noun) / 2, float(threshold))
  limit = 2 * fractions.Fraction(threshold)
  num, den = limit.numerator, limit.denominator
  total = first.astype(int) * union[1] + second.astype(int) * union[0]
  want = total * den >= num * union[0] * union[1]
  np.testing.assert_array_equal(got, want)
  assert (total * den == num * union[0] * union[1]).sum() > 100


def test_plain_float32_would_decide_otherwise():
  verbs = [list(range(5)), list(range(6))]
  nouns = [list(range(23)), list(range(30))]
  clip, caption = (
    (padded([v], 6), padded([n], 30)) for v, n in zip(verbs, nouns)
  )
  got = jitted(*clip, *caption)
  assert relevance.at_least(got, 0.8).all()
  assert not relevance.at_least(got, 0.80001).any()


def test_half_precision_is_compared_in_float32():
  assert relevance.at_least(jnp.asarray([0.5, 0.25], jnp.bfloat16), 0.5)[0]


def test_wrong_input_is_named():
  ids = np.zeros((3, 2), np.int32)
  with pytest.raises(ValueError, match="part='verbs': expected one of"):
    relevance.relevance(ids, ids, ids, ids, part='verbs')
  with pytest.raises(ValueError, match=r'noun classes of the captions.*\(3,\)'):
    relevance.relevance(ids, ids, ids, ids[:, 0], part='noun')
  with pytest.raises(ValueError, match='verb classes of the clips.*float32'):
    relevance.relevance(ids.astype('f'), ids, ids, ids)
