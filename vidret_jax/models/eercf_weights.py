# SPDX-License-Identifier: Apache-2.0
"""Weights of EERCF's levels, for the model and, without JAX, for configs."""

# Of the training objective; upstream's command line, where `video` is
# video_weight, `frame_weak` weakframe_weight, `intra` cdcl_loss_weight, ...
LOSS_WEIGHTS = dict(
  video=0.5,
  frame_weak=0.5,
  patch_weak=0.05,
  frame_strong=1.0,
  patch_strong=0.0,
  weak=0.8,
  strong=0.2,
  intra=0.001,
  intra_video=1.0,
  intra_frame=1.0,
  intra_patch=0.0,
)
# Of the score that orders the short list; constants in upstream's evaluation.
RANK_WEIGHTS = dict(
  video=0.5, frame_weak=0.8, frame_strong=0.2, patch_weak=0.2, patch_strong=0.0
)
