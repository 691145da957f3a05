# SPDX-License-Identifier: Apache-2.0
"""Files of HAP-VR and its family, whatever their layout.

Upstream saves {"args", "model", "optimizer", "global_step"}, `args` being the
`argparse.Namespace` of its command line. S2VS and DnS save the same network
under other names.
"""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

import numpy as np

from vidret_jax.convert import clip as clip_convert
from vidret_jax.convert import (
  clip_file,
  hap_vr_rules,
  safetensors_file,
  torch_file,
)
from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.rules import CheckpointMismatch

# The comparator's prefix in S2VS and DnS.
VISIL = 'visil_head'
# Under which programs keep a state dict next to other things.
_WRAPPERS = ('model', 'state_dict', 'model_state_dict')


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """What is in a file.

  Attributes:
    state: arrays by HAP-VR's key.
    args: plain values of upstream's command line; None where there are none.
    visil: keys were those of S2VS and DnS.
    optimizer: state dict of AdamW; empty where there is none.
    step: updates done.
  """

  state: dict[str, np.ndarray]
  args: dict[str, Any] | None = None
  visil: bool = False
  optimizer: Mapping = dataclasses.field(default_factory=dict)
  step: int = 0


def read(path: str | os.PathLike) -> Checkpoint:
  """Reads a checkpoint of HAP-VR, S2VS or DnS, or a plain state dict.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: it is of another system.
  """
  source = os.fspath(path)
  whole = _object(path, 'a checkpoint of HAP-VR, S2VS or DnS')
  state = _state(whole, _WRAPPERS, source)
  visil = any(k.startswith(f'{VISIL}.') for k in state)
  if visil:
    state = {_renamed(k): v for k, v in state.items()}
  if not any(k.startswith(f'{hap_vr_rules.COMPARATOR}.') for k in state):
    raise CheckpointMismatch(
      f'{source}: a state dict without {hap_vr_rules.COMPARATOR}.* (HAP-VR) '
      f'or {VISIL}.* (S2VS, DnS); it begins with '
      f'{[k[:40] for k in list(state)[:4]]}. Frozen networks belong to '
      'init.parts.'
    )
  args, step = whole.get('args'), whole.get('global_step')
  optimizer = whole.get('optimizer')
  return Checkpoint(
    state,
    _plain(args) if isinstance(args, Mapping) else None,
    visil,
    optimizer if isinstance(optimizer, Mapping) else {},
    step if isinstance(step, int) and not isinstance(step, bool) else 0,
  )


def _renamed(key):
  if key.startswith(f'{VISIL}.'):
    return hap_vr_rules.COMPARATOR + key.removeprefix(VISIL)
  return key


def _plain(args):
  """Options that are numbers, text, flags or lists of them."""
  single = (bool, int, float, str, type(None))

  def fine(value):
    if isinstance(value, (list, tuple)):
      return all(isinstance(v, single) for v in value)
    return isinstance(value, single)

  return {k: v for k, v in args.items() if isinstance(k, str) and fine(v)}


def read_state(
  path: str | os.PathLike, what: str, wrappers: tuple[str, ...] = _WRAPPERS
) -> dict[str, np.ndarray]:
  """The state dict in a file of a frozen network.

  Args:
    path: a `.pth`, or a `.safetensors` with the same names.
    what: it should be, for messages.
    wrappers: keys under which it may lie.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: no state dict in it.
  """
  return _state(_object(path, what), wrappers, os.fspath(path))


def _object(path, what):
  if not os.path.isfile(path):
    raise FileNotFoundError(
      f'{os.fspath(path)}: no such file, expected {what}. See '
      'docs/converting.md, "HAP-VR", for where it comes from.'
    )
  if safetensors_file.is_one(path):
    return safetensors_file.read(path)
  found = torch_file.read(path)
  if not isinstance(found, Mapping):
    raise CheckpointMismatch(
      f'{os.fspath(path)}: expected {what}, found an object of the type '
      f'{type(found).__name__}.'
    )
  return found


def _state(whole, wrappers, source):
  state = next(
    (whole[k] for k in wrappers if isinstance(whole.get(k), Mapping)), whole
  )
  if not state or not all(
    isinstance(k, str) and isinstance(v, np.ndarray) for k, v in state.items()
  ):
    raise CheckpointMismatch(
      f'{source}: expected a state dict of tensors, or one under '
      f'{" or ".join(map(repr, wrappers))}; found the keys '
      f'{[str(k)[:40] for k in list(state)[:6]]}.'
    )
  state = rules_lib.strip_module(state)
  counts = '.num_batches_tracked'
  clip_convert.check_numbers(
    {k: v for k, v in state.items() if not k.endswith(counts)}, source
  )
  try:
    clip_file.check_extent(state, source)
  except torch_file.TorchFileError as error:
    raise torch_file.TorchFileError(f'{source}: {error}') from None
  return state
