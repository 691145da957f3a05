# SPDX-License-Identifier: Apache-2.0
"""Re-ranking of matrices, and the two kinds of metrics, on small cases."""

import numpy as np
import pytest

from vidret_jax.metrics import caption_ranks, rerank


def levels(seed=0, q=5, v=4):
  rng = np.random.default_rng(seed)
  return {n: rng.normal(size=(q, v)).astype(np.float32) for n in rerank.LEVELS}


def test_candidates_stand_above_all_others():
  given = levels()
  fused = rerank.fuse_groups(given)
  got = rerank.two_pass(given['video'], fused, given, 2)
  best = np.argsort(-given['video'], 1)
  fine = rerank.fuse(given, rerank.FINAL)
  for row in range(5):
    listed, rest = best[row, :2], best[row, 2:]
    np.testing.assert_allclose(got[row, listed], fine[row, listed] + 100, 1e-6)
    np.testing.assert_array_equal(got[row, rest], given['video'][row, rest])
  assert not rerank.needs_both_passes(given['video'], fused)
  np.testing.assert_array_equal(
    got, rerank.two_pass(given['video'], fused, given, 2, general=False)
  )


@pytest.mark.parametrize('k', [0, 4, 9])
def test_no_length_and_a_large_one_take_all(k):
  given = levels()
  got = rerank.two_pass(given['video'], given['video'], given, k)
  np.testing.assert_array_equal(
    got, rerank.fuse(given, rerank.FINAL, rerank.LIFT)
  )


def test_the_second_pass_may_choose_others():
  # Lifted, the candidate stays below the one that was left alone.
  video = np.float32([[5, 4, 3]])
  fused = np.float32([[-200, 7, 7]])
  given = {'video': video}
  got = rerank.two_pass(video, fused, given, 1, weights={'video': 2.0})
  np.testing.assert_array_equal(got, [[-100, 108, 3]])
  assert rerank.needs_both_passes(video, fused)
  short = rerank.two_pass(
    video, fused, given, 1, weights={'video': 2.0}, general=False
  )
  np.testing.assert_array_equal(short, [[110, 4, 3]])


def test_nan_is_the_largest():
  video = np.float32([[1, np.nan, 3]])
  assert rerank.largest(video, 2).tolist() == [[2, 1]]
  assert rerank.largest(video, 1).tolist() == [[1]]


def test_errors_say_what_is_wrong():
  with pytest.raises(ValueError, match='k=-2: expected 0'):
    rerank.largest(np.zeros((2, 2)), -2)
  with pytest.raises(ValueError, match="'patch_weak'; there are"):
    rerank.fuse({'video': np.zeros((1, 1))}, {'video': 1, 'patch_weak': 0.2})
  with pytest.raises(ValueError, match='tau=0'):
    rerank.dual_softmax(np.zeros((2, 2)), 0)
  with pytest.raises(ValueError, match=r'square matrix, found shape \(2, 3\)'):
    caption_ranks.diagonal_ranks(np.zeros((2, 3)))
  with pytest.raises(ValueError, match='no ranks'):
    caption_ranks.summary(np.zeros(0))
  with pytest.raises(ValueError, match="form='cube': expected one of captions"):
    caption_ranks.evaluate(np.zeros((2, 2)), np.arange(2), 'cube')
  with pytest.raises(ValueError, match='video number 1 has 2'):
    caption_ranks.evaluate(np.zeros((3, 2)), np.array([0, 1, 1]), 'square')


def test_levels_without_weight_are_not_looked_at():
  given = levels()
  del given['patch_strong']
  want = 0.8 * (
    0.5 * given['video']
    + 0.5 * given['frame_weak']
    + 0.05 * given['patch_weak']
  )
  want = want + 0.2 * given['frame_strong']
  np.testing.assert_allclose(rerank.fuse_groups(given), want, atol=1e-6)
  only = ((1.0, {'video': 2.0}), (0.0, {'patch_strong': 1.0}))
  got = rerank.fuse_groups(given, only)
  np.testing.assert_array_equal(got, 2 * given['video'])


def test_the_softmax_over_texts_sums_to_their_number():
  sims = levels(q=7)['video']
  share = rerank.dual_softmax(sims, 0.7) / sims
  np.testing.assert_allclose(share.sum(0), 7, rtol=1e-5)


def test_captions_of_a_video_are_stacked_in_order():
  sims = np.arange(12.0).reshape(4, 3)
  got = caption_ranks.by_video(sims, np.array([2, 0, 2, 0]))
  assert got.shape == (3, 2, 3)
  np.testing.assert_array_equal(got[0], sims[[1, 3]])
  np.testing.assert_array_equal(got[2], sims[[0, 2]])
  assert (got[1] == -np.inf).all()
  ranks = caption_ranks.caption_ranks(got)
  assert ranks.tolist() == [2, 0, 2, 0]  # First captions first.


def test_ties_and_medians_of_both_forms():
  even = np.zeros((4, 4))
  assert caption_ranks.diagonal_ranks(even).tolist() == [0, 1, 2, 3] * 4
  ranks = np.array([0, 1, 2, 7])
  assert caption_ranks.summary(ranks, 'square')['MdR'] == 2.5
  assert caption_ranks.summary(ranks, 'captions')['MdR'] == 2
  row = caption_ranks.summary(ranks)
  assert row['rsum'] == row['R@1'] + row['R@5'] + row['R@10'] == 200
  stacked = np.zeros((3, 1, 3))
  assert caption_ranks.caption_ranks(stacked).tolist() == [0, 1, 2]


def test_lost_scores_give_no_rank():
  sims = np.eye(3)
  sims[1, 1], sims[2, 2] = -np.inf, np.nan
  assert caption_ranks.diagonal_ranks(sims).tolist() == [0]
  stacked = sims[:, None]
  assert caption_ranks.caption_ranks(stacked).tolist() == [0]
  assert np.isneginf(caption_ranks.video_to_text(stacked)[2, 2])
