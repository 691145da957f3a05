# SPDX-License-Identifier: Apache-2.0
"""Ranks and tables against sorting, and by hand."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from vidret_jax.metrics import ranks


def by_sorting(scores, own):
  """First, last and mean place of a value in a sorted list."""
  places = np.flatnonzero(np.sort(scores)[::-1] == own)
  return {'best': places[0], 'worst': places[-1], 'mean': places.mean()}


@st.composite
def problems(draw):
  """Few different scores, so that most of them tie; some items uncaptioned."""
  q, v = draw(st.integers(1, 12)), draw(st.integers(1, 6))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  sims = rng.integers(0, draw(st.integers(1, 6)), (q, v)).astype(np.float32)
  return sims, rng.integers(0, v, q)


@hypothesis.given(problems(), st.sampled_from(ranks.TIES))
@hypothesis.settings(deadline=None, max_examples=200)
def test_ranks_equal_places_in_a_sorted_list(problem, ties):
  sims, item = problem
  got = ranks.text_to_video(sims, item, ties)
  want = [by_sorting(row, row[v])[ties] for row, v in zip(sims, item)]
  np.testing.assert_array_equal(got, want)


@hypothesis.given(problems(), st.sampled_from(ranks.TIES))
@hypothesis.settings(deadline=None, max_examples=200)
def test_the_best_placed_own_caption_is_the_highest_scored(problem, ties):
  """What the counting of `evaluators.counting` rests on."""
  sims, item = problem
  got = ranks.video_to_text(sims, item, ties)
  for v in range(sims.shape[1]):
    own = [
      by_sorting(sims[:, v], sims[q, v])[ties]
      for q in np.flatnonzero(item == v)
    ]
    assert got[v] == min(own, default=np.inf)


@hypothesis.given(problems())
@hypothesis.settings(deadline=None, max_examples=100)
def test_max_pool_ranks_videos_among_videos(problem):
  sims, item = problem
  got = ranks.video_to_text(sims, item, v2t='max_pool')
  captioned = np.unique(item)
  pooled = np.stack([sims[item == v].max(0) for v in captioned])
  for v in range(sims.shape[1]):
    if v not in captioned:
      assert got[v] == np.inf
    else:
      own = pooled[np.flatnonzero(captioned == v)[0], v]
      assert got[v] == by_sorting(pooled[:, v], own)['mean']


def test_max_pool_differs_where_rival_captions_crowd():
  # Two captions of video 0 beat the only caption of video 1.
  sims = np.array([[1.0, 3.0], [1.0, 3.0], [0.0, 2.0]], np.float32)
  item = np.array([0, 0, 1])
  assert ranks.video_to_text(sims, item)[1] == 2
  assert ranks.video_to_text(sims, item, v2t='max_pool')[1] == 1


def test_summary_by_hand():
  table = ranks.summary(np.array([0, 0.5, 4, 5, 9.5, 49, 50, np.inf]))
  assert table == {
    'R@1': 12.5,
    'R@5': 37.5,
    'R@10': 62.5,
    'R@50': 75.0,
    'MdR': 8.25,
    'MnR': np.inf,
    'geom': pytest.approx((12.5 * 37.5 * 62.5) ** (1 / 3)),
  }
  assert list(table) == ['R@1', 'R@5', 'R@10', 'R@50', 'MdR', 'MnR', 'geom']


def test_a_tie_for_the_first_place_is_no_hit():
  sims = np.zeros((2, 2), np.float32)
  item = np.arange(2)
  assert ranks.summary(ranks.text_to_video(sims, item))['R@1'] == 0
  assert ranks.summary(ranks.text_to_video(sims, item, 'best'))['R@1'] == 100
  assert ranks.summary(ranks.text_to_video(sims, item))['geom'] == 0


def test_right_labels_do_not_push_each_other_down():
  sims = np.array([[3.0], [2.0], [1.0], [4.0]])
  positive = np.array([[1], [1], [0], [0]])
  assert ranks.as_classification(sims, positive).tolist() == [1, 1]


def test_recall_curve_ends_where_everything_is_found():
  curve = ranks.recall_curve(np.array([0.0, 2.5, np.inf]), np.array([1, 3, 9]))
  np.testing.assert_allclose(curve, [100 / 3, 200 / 3, 200 / 3])


@pytest.mark.parametrize('bad', [[], [1.0, np.nan]])
def test_no_table_without_ranks(bad):
  with pytest.raises(ValueError, match='Cannot summarise'):
    ranks.summary(np.array(bad))


@pytest.mark.parametrize('option', [dict(ties='average'), dict(v2t='max')])
def test_options_are_checked(option):
  with pytest.raises(ValueError, match='expected one of'):
    ranks.video_to_text(np.zeros((1, 1)), np.zeros(1, int), **option)
