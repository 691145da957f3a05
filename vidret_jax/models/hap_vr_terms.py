# SPDX-License-Identifier: Apache-2.0
"""The parts of HAP-VR's loss and their sum, as in upstream's `train.py`."""

import dataclasses

import jax

from vidret_jax.losses import average_precision, contrastive, hard_negatives
from vidret_jax.models.base import Array
from vidret_jax.models.hap_vr_options import Precision, Weights


def of_group(
  sim: Array,
  frames: Array,
  places: Array,
  features: Array | None,
  labels: Array,
  where: Array,
  *,
  weights: Weights,
  ap: Precision,
  temperature: float,
) -> dict[str, Array]:
  """The parts, not weighted, of clips that are each other's negatives.

  Args:
    sim: [n, n] similarities of clips.
    frames: [n, n, t, t], of their frames.
    places: [n, n, t // 4, t // 4], what the comparator made of these.
    features: [n, t, l], for the labels of frames; None without `frame`.
    labels: [n, n], which clips show the same.
    where: bool [n], valid clips.
    weights: of the parts.
    ap: constants of the average precisions.
    temperature: of InfoNCE.
  """
  pairs = where[:, None] & where[None]
  out = {
    'nce': contrastive.info_nce(
      sim, labels, temperature=temperature, where=where
    ),
    'reg': hard_negatives.overshoot(places, pairs[..., None, None]),
  }
  out['hardneg'], out['self'] = hard_negatives.sshn(sim, labels, where=where)
  if weights.video:
    out['video'] = average_precision.quad_linear_ap(
      sim, labels, sigma=ap.video_sigma, rho=ap.video_rho, where=where
    )
  if weights.frame:
    out['frame'] = average_precision.batch_frame_ap(
      frames,
      features,
      labels,
      top=ap.top,
      bottom=ap.bottom,
      sigma=ap.frame_sigma,
      rho=ap.frame_rho,
      where=where,
    )
  return out


def of_groups(
  *arrays: Array | None, weights: Weights, ap: Precision, temperature: float
) -> tuple[Array, dict[str, Array]]:
  """The weighted sum, and the parts: means over groups.

  Args:
    *arrays: of `of_group`, with an axis of groups in front.
    weights: of the parts.
    ap: constants of the average precisions.
    temperature: of InfoNCE.
  """
  terms = jax.vmap(
    lambda *x: of_group(*x, weights=weights, ap=ap, temperature=temperature)
  )(*arrays)
  terms = {name: term.mean() for name, term in terms.items()}
  parts = {f.name for f in dataclasses.fields(weights)} & set(terms)
  total = sum(getattr(weights, name) * terms[name] for name in sorted(parts))
  total = total + weights.sshn * (terms['hardneg'] + terms['self'])
  return total, terms
