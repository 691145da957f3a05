# SPDX-License-Identifier: Apache-2.0
"""Options of HAP-VR in groups; see `hap_vr`, which makes the model."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Weights:
  """Of the parts of the loss.

  Without weight, the two of average precision are not computed; the others are,
  for the log.

  Attributes:
    frame: average precision of frames.
    video: average precision of clips.
    nce: InfoNCE.
    sshn: similarity of a clip to itself, and to its hardest negative.
    reg: similarities outside of -1 to 1.
  """

  frame: float = 6.0
  video: float = 4.0
  nce: float = 1.0
  sshn: float = 3.0
  reg: float = 1.0


@dataclasses.dataclass(frozen=True)
class Pooling:
  """Over regions of two frames and over frames of two videos.

  Attributes:
    frame: see `ops.chamfer.POOLS`.
    video: likewise.
    frame_rate: share of the target's regions that 'topk' averages.
    video_rate: share of the target's places that 'topk' averages.
    most: frames of a target, at most.
  """

  frame: str = 'topk'
  video: str = 'topk'
  frame_rate: float = 0.1
  video_rate: float = 0.03
  most: int = 2048


@dataclasses.dataclass(frozen=True)
class Precision:
  """Constants of the two losses of average precision; see their module.

  Attributes:
    video_sigma: width of the surrogate, of clips.
    video_rho: weight of positives ranked above one, of clips.
    frame_sigma: width of the surrogate, of frames.
    frame_rho: weight of positives ranked above one, of frames.
    top: share of frames that are positives.
    bottom: share of frames that are negatives.
  """

  video_sigma: float = 0.05
  video_rho: float = 0.1
  frame_sigma: float = 0.05
  frame_rho: float = 5.0
  top: float = 0.35
  bottom: float = 0.35
