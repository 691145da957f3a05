# SPDX-License-Identifier: Apache-2.0
"""HAP-VR: find copies and relatives of a video, learnt without labels.

Liu et al., "Not all pairs are equal: hierarchical learning for average-
precision-oriented video retrieval", ACM MM 2024,
https://arxiv.org/abs/2407.15566; upstream https://github.com/yafeng19/HAP-VR.
The network is that of ViSiL, DnS and S2VS, whose weights fit.

A video is a sequence of frames, one a second, each with nine region vectors of
a frozen network. A pair of videos is a matrix of how alike their frames are,
in which a small CNN looks for diagonals; the best places give the score. It is
trained on pairs of differently edited views of a clip, for the average
precision of clips among clips and of frames among frames.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from vidret_jax.layers.linear import Numerics
from vidret_jax.models import dino, regions
from vidret_jax.models import hap_vr_model as model_lib
from vidret_jax.models import hap_vr_options as options
from vidret_jax.ops import chamfer, chamfer_kernel


def make(
  *,
  dim: int = 512,
  attention: bool = True,
  bits: int | None = None,
  frame_pool: str = 'topk',
  video_pool: str = 'topk',
  frame_rate: float = 0.1,
  video_rate: float = 0.03,
  max_frames: int = 2048,
  features_only: bool = False,
  loss: Mapping[str, float] | None = None,
  video_sigma: float = 0.05,
  video_rho: float = 0.1,
  frame_sigma: float = 0.05,
  frame_rho: float = 5.0,
  top_rate: float = 0.35,
  bottom_rate: float = 0.35,
  temperature: float = 0.03,
  groups: int = 1,
  backbone: Mapping[str, Any] | None = None,
  labeller: Mapping[str, Any] | None = None,
  antialias: bool = False,
  kernel: str = 'auto',
  dtype: str = 'float32',
  precision: str | None = 'highest',
) -> model_lib.HapVr:
  """Builds the model from plain values.

  Args:
    dim: width of region vectors.
    attention: whether regions are weighed.
    bits: makes regions binary, of so many bits; without attention only.
    frame_pool: over regions of two frames: 'topk', 'chamfer', 'max', 'average'.
    video_pool: over places of two videos, likewise.
    frame_rate: share of regions that 'topk' averages.
    video_rate: share of places that 'topk' averages; a place is four frames.
      At the published rates 'topk' is 'chamfer' for targets below 200 frames.
    max_frames: of a target; longer ones are cut before they come here.
    features_only: score with the regions as they are, without network.
    loss: weights of its parts, see `hap_vr_options.Weights`. Without 'frame' no
      frame labels are needed.
    video_sigma: see `hap_vr_options.Precision`, also for the next five.
    video_rho: of clips.
    frame_sigma: of frames.
    frame_rho: of frames.
    top_rate: share of frames that are positives.
    bottom_rate: share of frames that are negatives.
    temperature: of InfoNCE.
    groups: equal parts of a batch, in order, whose clips are compared among
      themselves only; upstream has one for each device. 1: all with all.
    backbone: options of `regions.Regions`, if batches hold frames.
    labeller: options of `dino.Dino`, for the part 'frame' with a backbone.
    antialias: of training on frames, whether a clip that is pasted over another
      is smoothed as it shrinks; see `ops.video_in_video`. For crops the data
      have a switch of their own.
    kernel: 'einsum', 'pallas' (fused; one of a GPU or TPU) or 'auto'.
    dtype: of matrix products.
    precision: of matrix products.

  Raises:
    ValueError: a bad option, with what is expected.
  """
  for name, value in (('dim', dim), ('groups', groups)):
    if value < 1:
      raise ValueError(f'{name}={value}: expected a number from 1.')
  if max_frames < 4:
    raise ValueError(f'max_frames={max_frames}: expected 4 or more.')
  if bits is not None and (bits < 1 or attention):
    raise ValueError(
      f'bits={bits}, attention={attention}: expected a number from 1, without '
      'attention, or None.'
    )
  for name, pool in (('frame_pool', frame_pool), ('video_pool', video_pool)):
    if pool not in chamfer.POOLS:
      raise ValueError(
        f'{name}={pool!r}: expected one of {", ".join(chamfer.POOLS)}.'
      )
  for name, rate in (('frame_rate', frame_rate), ('video_rate', video_rate)):
    if not 0 < rate <= 1:
      raise ValueError(f'{name}={rate}: expected above 0, and 1 at most.')
  for name, value in (
    *(('video_sigma', video_sigma), ('frame_sigma', frame_sigma)),
    ('temperature', temperature),
  ):
    if value <= 0:
      raise ValueError(f'{name}={value}: expected a number above 0.')
  if kernel not in chamfer_kernel.KERNELS:
    raise ValueError(
      f'kernel={kernel!r}: expected one of {chamfer_kernel.KERNELS}.'
    )
  given = dict(loss or {})
  known = [f.name for f in dataclasses.fields(options.Weights)]
  unknown = sorted(set(given) - set(known))
  if unknown:
    raise ValueError(
      f'loss has no part {", ".join(map(repr, unknown))}; known are '
      f'{", ".join(known)}.'
    )
  weights = options.Weights(**given)
  if weights.frame and not (
    top_rate > 0 and bottom_rate > 0 and top_rate + bottom_rate <= 1
  ):
    raise ValueError(
      f'top_rate={top_rate}, bottom_rate={bottom_rate}: expected shares above '
      '0, at most 1 together.'
    )
  if weights.frame and backbone is not None and labeller is None:
    raise ValueError(
      'labeller=None: the part frame of the loss needs labels of frames. Set '
      'model.labeller, or loss.frame=0.'
    )
  num = Numerics(dtype, precision)
  return model_lib.HapVr(
    dim=dim,
    attention=attention,
    bits=bits or 0,
    pooling=options.Pooling(
      frame_pool, video_pool, frame_rate, video_rate, max_frames
    ),
    features_only=features_only,
    weights=weights,
    ap=options.Precision(
      video_sigma, video_rho, frame_sigma, frame_rho, top_rate, bottom_rate
    ),
    temperature=temperature,
    groups=groups,
    backbone=None if backbone is None else regions.Regions(**backbone),
    labeller=None
    if labeller is None or not weights.frame
    else dino.Dino(**labeller),
    antialias=antialias,
    kernel=kernel,
    num=num,
  )
