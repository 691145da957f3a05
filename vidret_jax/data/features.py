# SPDX-License-Identifier: Apache-2.0
"""Feature files: where they lie, and whether what is in them may be used.

The path rules are those of the Collaborative Experts loaders.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import containers

# The packs disagree on these folder names (high-quality pack, LSMDC).
_TWINS = (
  ('aggregated_audio_feats/', 'aggregated_audio/'),
  ('aggregated_speech_feats/', 'aggregated_speech/'),
  ('aggregated_ocr_feats/', 'aggregated_ocr/'),
)
_FRAMES = dict(fps=25, pixel_dim=256, stride=1, offset=0)
_CLIPS = dict(fps=25, pixel_dim=256, stride=8, offset=0, inner_stride=5)
_I3D = dict(fps=25, pixel_dim=256, stride=25, offset=0, inner_stride=1)
_R2P1D = dict(fps=30, pixel_dim=256, stride=32, offset=0, inner_stride=1)
_S3DG = dict(fps=10, pixel_dim=256, stride=16, offset=0, inner_stride=1)
# Sampling of the visual experts, which names their folders.
AGGREGATION = {
  'imagenet.senet154.0': _FRAMES,
  'imagenet.resnext101_32x48d.0': _FRAMES,
  'imagenet.resnext101_32x48d.1': _FRAMES,
  'scene.densenet161.0': _FRAMES,
  'moments_2d.resnet50.0': _FRAMES,
  'trn.moments-trn.0': _CLIPS,
  'moments_3d.moments-resnet3d50.0': _CLIPS,
  'moments_3d.moments-resnet3d50.1': _CLIPS,
  'i3d.i3d.0': _I3D,
  'i3d.i3d.1': {**_I3D, 'stride': 4},
  's3dg.s3dg.0': _S3DG,
  's3dg.s3dg.1': {**_S3DG, 'stride': 8, 'pixel_dim': 224},
  'r2p1d.r2p1d-ig65m.0': _R2P1D,
  'r2p1d.r2p1d-ig65m.1': _R2P1D,
  'r2p1d.r2p1d-ig65m-kinetics.0': _R2P1D,
  'r2p1d.r2p1d-ig65m-kinetics.1': {**_R2P1D, 'stride': 8},
}


class MissingFile(FileNotFoundError):
  """A feature file that is in none of the places it could be in."""


def aggregated_files(name: str, options: Mapping[str, Any]) -> list[str]:
  """Files of a visual expert, one per temporal aggregate.

  Args:
    name: '<family>.<model>.<variant>'.
    options: fps, pixel_dim, stride; offset, inner_stride and num_segments when
      the folder name has them; `temporal` ('avg', 'avg-max', ...); `type`
      ('embed' or 'logits').

  Returns:
    Paths relative to the feature folder, to be concatenated in this order.
  """
  family, model, _ = name.split('.')
  family = family.replace('-', '_')
  folder = (
    f'aggregated_{family}_{options["fps"]}fps_{options["pixel_dim"]}px'
    f'_stride{options["stride"]}'
  )
  for key in ('offset', 'inner_stride', 'num_segments'):
    if options.get(key) is not None:
      folder += f'_{key}{options[key]}'
  tail = '-logits' if options.get('type') == 'logits' else ''
  return [
    f'{folder}/{model}-{part}{tail}.pickle'
    for part in (options.get('temporal') or 'avg').split('-')
  ]


def resolve(
  folders: Sequence[pathlib.Path], names: Sequence[str], what: str
) -> pathlib.Path:
  """Finds the first file that exists, tolerant of suffix and twin folders.

  Args:
    folders: where to look, the likeliest first.
    names: relative paths, the likeliest first.
    what: for the error, e.g. "expert 'face'".

  Raises:
    MissingFile: listing what was tried.
  """
  tried = []
  for name in names:
    variants = [name]
    for a, b in _TWINS:
      if name.startswith(a):
        variants.append(b + name[len(a) :])
      elif name.startswith(b):
        variants.append(a + name[len(b) :])
    for variant in variants:
      tried.append(variant)
      for folder in folders:
        exact = folder / variant
        for suffix in (exact.suffix, *containers.SUFFIXES):
          # Not with_suffix: a folder's own dots must stay.
          file = exact.parent / (exact.stem + suffix)
          if file.is_file():
            return file
  places = ', '.join(str(f) for f in folders)
  raise MissingFile(
    f'{what}: no file found.\n  looked in: {places}\n  for: '
    + '\n       '.join(tried)
    + f'\n  each with the suffixes {" ".join(containers.SUFFIXES)}'
  )


def rows(
  value: Any, dim: int, *, variable: bool, path: Any, video: str, key: str
) -> np.ndarray | None:
  """Checks one value of an expert.

  Args:
    value: what the file holds.
    dim: width the config expects.
    variable: whether the expert has any number of rows, or a single vector.
    path: for errors, as are `video` and `key`.

  Returns:
    float32 [n, dim], or None when the expert is missing.

  Raises:
    ValueError: wrong width, wrong number of rows, NaN or Inf.
  """
  if containers.is_missing(value):
    return None
  where = f'{path}: {key}, video {video!r}'
  try:
    array = np.asarray(value, np.float32)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{where}: expected an array of numbers, found {type(value).__name__} '
      f'({error}). Write float arrays, or a float NaN when missing.'
    ) from error
  if variable and array.size == 0:
    return np.zeros((0, dim), np.float32)
  if array.ndim == 1 and not variable:
    array = array[None]
  if array.ndim != 2:
    raise ValueError(
      f'{where}: expected shape {"(n, D)" if variable else "(D,) or (1, D)"}, '
      f'found {array.shape}. Correct the file, or the max_tokens of {key}.'
    )
  if array.shape[1] != dim:
    raise ValueError(
      f'{where}: expected width {dim}, found {array.shape[1]}. Set '
      f'dim={array.shape[1]} for it in the config, or use the other features.'
    )
  if not variable and len(array) != 1:
    raise ValueError(
      f'{where}: expected one vector, found {len(array)} rows. Give the expert '
      'max_tokens in the config if its length varies.'
    )
  if not np.isfinite(array).all():
    raise ValueError(
      f'{where}: expected finite numbers, found NaN or Inf in shape '
      f'{array.shape}. Only a plain float NaN marks a missing expert; repair '
      'the value.'
    )
  return array
