# SPDX-License-Identifier: Apache-2.0
"""Models and batches of the EERCF golden files."""

from collections.abc import Mapping
import json
import pathlib

import numpy as np
import pytest

from vidret_jax.convert import eercf as convert
from vidret_jax.models import eercf

# Upstream's names of loss weights -> ours.
LOSS_WEIGHTS = {
  'video_weight': 'video',
  'weakframe_weight': 'frame_weak',
  'weakpatch_weight': 'patch_weak',
  'strongframe_weight': 'frame_strong',
  'strongpatch_weight': 'patch_strong',
  'weak_loss_weight': 'weak',
  'strong_loss_weight': 'strong',
  'cdcl_loss_weight': 'intra',
  'cdcl_video_weight': 'intra_video',
  'cdcl_frame_weight': 'intra_frame',
  'cdcl_patch_weight': 'intra_patch',
}
# Of configs.json -> ours.
_SIZES = {
  'vw': 'vision_width',
  'vl': 'vision_layers',
  'patch': 'patch',
  'res': 'image_size',
  'tw': 'text_width',
  'tl': 'text_layers',
  'ctx': 'context',
  'vocab': 'vocab',
  'embed': 'dim',
}


def present(path: pathlib.Path) -> pathlib.Path:
  """The path; skips the test where nothing is there."""
  if not path.exists():
    pytest.skip(f'{path} is absent')
  return path


def config(root: pathlib.Path, name: str) -> dict:
  """Entry `name` of configs.json; root: the folder 'eercf'."""
  found = json.loads(present(root / 'configs.json').read_text())
  if name not in found:
    pytest.skip(f'{root / "configs.json"} has no {name}')
  return found[name]


def make(given: Mapping, **options) -> eercf.Eercf:
  """The model of an entry of configs.json; options as `eercf.make` has them."""
  return eercf.make(
    clip={ours: given[theirs] for theirs, ours in _SIZES.items()},
    max_frames=given['F'],
    temporal_layers=given['cross'],
    linear_patch=given['linear_patch'],
    **options,
  )


def golden_model(
  root: pathlib.Path, name: str, **options
) -> tuple[eercf.Eercf, dict]:
  """Model and variables of `eercf_<name>.pth`; root: the folder 'eercf'."""
  model = make(config(root, name), **options)
  path = present(root / f'eercf_{name}.pth')
  variables, _ = convert.load(path, model)
  return model, variables


def batch(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """`input_ids`, `video` and `video_mask` of upstream's loader as our batch.

  Frames stay as they are stored, normalised: [b, f, r, r, 3] float32.
  """
  frames = arrays['video'][:, 0, :, 0].transpose(0, 1, 3, 4, 2)
  return dict(
    text=arrays['input_ids'].astype(np.int32),
    frames=frames.astype(np.float32),
    frame_mask=arrays['video_mask'][:, 0] > 0,
  )
