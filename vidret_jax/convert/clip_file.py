# SPDX-License-Identifier: Apache-2.0
"""The state dict inside a file, however it was saved."""

from collections.abc import Mapping
import os

import numpy as np

from vidret_jax.convert import (
  clip_hf,
  safetensors_file,
  torch_file,
  torchscript,
)
from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.rules import CheckpointMismatch

# Looked for in a folder, in this order.
IN_FOLDERS = ('model.safetensors', 'pytorch_model.bin')
# Under which programs keep a state dict next to other things.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model')


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The state dict in a file, by public names where it is a CLIP.

  Args:
    path: a TorchScript archive (`ViT-B-32.pt`), a pickled state dict, one
      inside a dict of a training program, `model.safetensors` or
      `pytorch_model.bin` of Hugging Face, or a folder with one of these two.

  Raises:
    FileNotFoundError: no such file.
    torch_file.TorchFileError: truncated, malformed or another kind of file.
    CheckpointMismatch: no state dict in it.
  """
  path = os.fspath(path)
  if os.path.isdir(path):
    files = [os.path.join(path, name) for name in IN_FOLDERS]
    path = next((f for f in files if os.path.isfile(f)), files[0])
  if not os.path.isfile(path):
    raise FileNotFoundError(
      f'{path}: no such file. CLIP is published as ViT-B-32.pt (OpenAI) and '
      'as model.safetensors (Hugging Face), EERCF as pytorch_model.bin.<epoch>.'
    )
  if path.endswith('.safetensors') or safetensors_file.is_one(path):
    state = safetensors_file.read(path)
  else:
    state = torch_file.read(path)
  try:
    if torchscript.is_module(state):
      state = torchscript.state_dict(state)
    state = _unwrap(state)
    check_extent(state, path)
    return clip_hf.to_public(state) if clip_hf.is_hf(state) else state
  except ValueError as error:
    raise type(error)(f'{path}: {error}') from None


def _unwrap(state):
  """The mapping of arrays inside whatever a program has saved."""
  for name in _WRAPPERS:
    if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
      state = state[name]
  if isinstance(state, Mapping) and 'optimizer_state_dict' in state:
    raise CheckpointMismatch(
      'this is the state of an optimiser; name the weights beside it, '
      'pytorch_model.bin.<epoch>.'
    )
  if (
    not isinstance(state, Mapping)
    or not state
    or not all(
      isinstance(k, str) and isinstance(v, np.ndarray) for k, v in state.items()
    )
  ):
    raise CheckpointMismatch(
      'expected a state dict of tensors or a TorchScript archive; found '
      + _what(state)
    )
  return rules_lib.strip_module(state)


def _what(state):
  if isinstance(state, torch_file.Bag):
    kind = type(state)
    return f'an object of the class {kind.module}.{kind.name}.'
  if isinstance(state, Mapping):
    return f'a dict with the keys {[str(k)[:40] for k in list(state)[:6]]}.'
  return f'an object of type {type(state).__name__}.'


def check_extent(state: Mapping[str, np.ndarray], path: str) -> None:
  """Raises TorchFileError where arrays are much larger than their file.

  Views may overlap, but a small file must not fill the memory.
  """
  total, size = sum(x.nbytes for x in state.values()), os.path.getsize(path)
  if total > 4 * size + 2**30:
    raise torch_file.TorchFileError(
      f'its tensors add up to {total:,} bytes, but the file has {size:,}.'
    )
