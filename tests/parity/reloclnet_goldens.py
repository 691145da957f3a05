# SPDX-License-Identifier: Apache-2.0
"""Models and batches of the golden files of ReLoCLNet and XML."""

from collections.abc import Mapping
import json
import pathlib

import numpy as np
import pytest

from vidret_jax.convert import reloclnet as convert
from vidret_jax.convert import reloclnet_config, torch_file
from vidret_jax.models import reloclnet, reloclnet_model

# The golden README's allowances, absolute unless said otherwise.
VALID = 5e-6
PADDED = 3e-4
SCORE = 1e-6
RAW = 2e-5
RAW_PADDED = 1e-3
LOGIT = 2e-5
# Of the last two valid positions, which see rows of padding.
LOGIT_EDGE = 5e-4
LOSS = 1e-5
# Of a tensor's largest entry, and absolute.
GRAD = dict(rtol=5e-4, atol=1e-7)
MASKED = np.float32(-1e10)
# Upstream's names of the terms of the loss -> ours.
TERMS = dict(
  st_ed='span', fcl='frame', vcl='video', neg_ctx='neg_ctx', neg_q='neg_q'
)
# Upstream's names of the streams by ours.
STREAMS = dict(video='video', subtitle='sub')


def folder(golden_root: pathlib.Path) -> pathlib.Path:
  """The files of this system."""
  return golden_root / 'reloclnet'


def present(path: pathlib.Path) -> pathlib.Path:
  """The path; skips the test where nothing is there."""
  if not path.exists():
    pytest.skip(f'{path} is absent')
  return path


def config(path: pathlib.Path) -> dict:
  """An upstream `model_cfg` stored as JSON."""
  return json.loads(present(path).read_text())


def state(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a `.pth` of tensors, or of a `.ckpt` container."""
  found = torch_file.read(present(path))
  return dict(found.get('model', found))


def model(cfg: Mapping, **overrides) -> reloclnet_model.Reloclnet:
  """The model of an upstream `model_cfg`."""
  return reloclnet.make(**{**reloclnet_config.model_options(cfg), **overrides})


def variables(tensors: Mapping[str, np.ndarray], cfg: Mapping) -> dict:
  """Our variables of an upstream state dict."""
  return convert.to_flax(tensors, model(cfg))[0]


def load(
  golden_root: pathlib.Path, name: str, **overrides
) -> tuple[dict, reloclnet_model.Reloclnet, dict]:
  """Config, model and variables of `<name>_state.pth`, `<name>_cfg.json`."""
  root = folder(golden_root)
  cfg = config(root / f'{name}_cfg.json')
  tensors = state(root / f'{name}_state.pth')
  return cfg, model(cfg, **overrides), variables(tensors, cfg)


def batch(io: Mapping[str, np.ndarray], streams=tuple(STREAMS)) -> dict:
  """The `in_*` arrays of a forward file as a batch of view 'pairs'."""
  mask = io['in_video_mask'] > 0
  np.testing.assert_array_equal(io['in_sub_mask'] > 0, mask)
  out = dict(
    query=io['in_query_feat'],
    query_mask=io['in_query_mask'] > 0,
    clip_mask=mask,
    span=io['in_st_ed_indices'].astype(np.int32),
    _mask=np.ones(len(mask), bool),
  )
  for stream in streams:
    out[stream] = io[f'in_{STREAMS[stream]}_feat']
  return out


def check_boundaries(errors, name, got, want, mask):
  """Compares start or end logits [..., t] of videos with masks [..., t].

  The last two valid positions of a video see rows of its padding, which agree
  less well; those that are not valid are one constant.
  """
  got, want = np.asarray(got), np.asarray(want)
  mask = np.broadcast_to(mask, got.shape)
  last = np.zeros_like(mask)
  last[..., :-2] = mask[..., 2:]
  errors.close(f'{name} inside', got[last], want[last], atol=LOGIT)
  edge = mask & ~last
  errors.close(f'{name} edge', got[edge], want[edge], atol=LOGIT_EDGE)
  np.testing.assert_array_equal(got[~mask], MASKED)
  np.testing.assert_array_equal(want[~mask], MASKED)


def check_gradients(errors, name, got, want, cfg):
  """Compares gradients with arrays by upstream's names.

  Args:
    errors: the fixture.
    name: of the comparison.
    got: gradients, shaped as variables.
    want: {upstream's name of a parameter: gradient}.
    cfg: upstream's config of the model.
  """
  flat = convert.to_torch(got, model(cfg))
  assert set(want) <= set(flat), sorted(set(want) - set(flat))
  for key, slope in want.items():
    if not key.endswith('key.bias'):
      # Those are zero but for rounding: a softmax does not see a shift.
      errors.close(f'{name} {key}', flat[key], slope, allowed(slope))


def allowed(slope: np.ndarray) -> float:
  """The error a gradient may have anywhere."""
  return GRAD['atol'] + GRAD['rtol'] * float(np.abs(slope).max())
