# SPDX-License-Identifier: Apache-2.0
"""Files of ReLoCLNet and XML, and what they tell of their run.

Upstream saves {"model", "model_cfg", "epoch"} as `model.ckpt`, beside the
`opt.json` of the run. Plain state dicts are read, too.
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from vidret_jax.convert import clip as clip_convert
from vidret_jax.convert import reloclnet_config, torch_file
from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.reloclnet_config import NAMES
from vidret_jax.convert.rules import CheckpointMismatch

CHECKPOINT, OPTIONS = 'model.ckpt', 'opt.json'
# Of an opt.json; upstream's has 3,000.
_MOST_CHARACTERS = 2**20


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """What is in a file.

  Attributes:
    state: arrays by upstream's key.
    config: `model_cfg`; None in plain state dicts.
    epoch: when it was saved, from 0; None in plain state dicts.
  """

  state: dict[str, np.ndarray]
  config: Mapping[str, Any] | None = None
  epoch: int | None = None

  @property
  def options(self) -> dict[str, Any]:
    """Options of `models.reloclnet.make` that shapes tell."""
    return reloclnet_config.shape_options(shapes(self.state))

  @property
  def sizes(self) -> dict[str, int]:
    """Widths of the inputs, by stream and for 'query'."""
    return sizes(self.state)


def shapes(state: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
  """Shapes by key."""
  return {k: tuple(v.shape) for k, v in state.items()}


def sizes(state: Mapping[str, np.ndarray]) -> dict[str, int]:
  """Widths of the inputs that a state dict is for, see `Checkpoint`."""
  keys = {'query': 'query', **NAMES}
  keys = {s: f'{key}_input_proj.LayerNorm.weight' for s, key in keys.items()}
  return {
    s: state[key].shape[0]
    for s, key in keys.items()
    if key in state and state[key].ndim == 1
  }


def locate(source: str | os.PathLike) -> pathlib.Path:
  """The checkpoint that a file is, or a folder of a run has.

  Raises:
    FileNotFoundError: it has none.
  """
  path = pathlib.Path(source)
  if path.is_dir():
    path = path / CHECKPOINT
    if not path.is_file():
      raise FileNotFoundError(
        f'{source}: no {CHECKPOINT} in it, as in a run of the original, and no '
        'config.json, as in a run of ours.'
      )
  return path


def read(path: str | os.PathLike) -> Checkpoint:
  """Reads a `model.ckpt`, or a plain state dict.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: it is of another system.
  """
  source = os.fspath(path)
  whole = torch_file.read(path)
  whole = whole if isinstance(whole, Mapping) else {}
  state = whole['model'] if 'model' in whole else whole
  if (
    not isinstance(state, Mapping)
    or not state
    or not all(
      isinstance(k, str) and isinstance(v, np.ndarray) for k, v in state.items()
    )
  ):
    raise CheckpointMismatch(
      f"{source}: expected {{'model', 'model_cfg', 'epoch'}} as ReLoCLNet and "
      'XML save it, or a state dict of theirs; found the keys '
      f'{[str(k)[:40] for k in list(whole)[:6]]}.'
    )
  state = rules_lib.strip_module(state)
  if not reloclnet_config.shape_options(shapes(state)):
    raise CheckpointMismatch(
      f'{source}: a state dict, but of neither ReLoCLNet nor XML, which have '
      'ctx_pos_embed and query_pos_embed; it begins with '
      f'{[k[:40] for k in list(state)[:4]]}.'
    )
  clip_convert.check_numbers(state, source)
  epoch, config = whole.get('epoch'), whole.get('model_cfg')
  return Checkpoint(
    state,
    config if isinstance(config, Mapping) else None,
    epoch if isinstance(epoch, int) else None,
  )


def describe(
  path: str | os.PathLike, checkpoint: Checkpoint | None = None
) -> dict[str, dict[str, Any]]:
  """What a checkpoint and the `opt.json` beside it tell of a config.

  Args:
    path: the file.
    checkpoint: its content, if it has been read.

  Returns:
    model, data and search, see `reloclnet_config.run_config`. All with an
    `opt.json`; a `model_cfg` lacks epochs and what only data and evaluators
    read, a plain state dict all that shapes do not show.

  Raises:
    CheckpointMismatch: the two or the shapes contradict each other.
  """
  checkpoint = checkpoint or read(path)
  source, found = os.fspath(path), checkpoint.options
  places = {k: found[k] for k in ('max_clips', 'max_words') if k in found}
  out = dict(model=found, data=places, search={})
  if checkpoint.config is not None:
    stored = checkpoint.config
    model = reloclnet_config.model_options(stored)
    _agree(source, found, 'its model_cfg', model)
    out = dict(model=model, **reloclnet_config.data_config(stored))
  opt = pathlib.Path(path).absolute().parent / OPTIONS
  if opt.is_file():
    content = read_options(opt)
    run = reloclnet_config.run_config(content)
    _agree(
      source, checkpoint.sizes, opt, reloclnet_config.feature_sizes(content)
    )
    # The file has them as they were when it was saved.
    changing = ('hard_start_epoch', 'loss')
    kept = {k: v for k, v in out['model'].items() if k not in changing}
    _agree(source, kept, opt, run['model'])
    out = run
  return out


def _agree(source, found, other, told):
  """Raises where two descriptions of a run differ."""
  lines = [
    f'{k}: {value!r} and {told[k]!r}'
    for k, value in found.items()
    if k in told and told[k] != value
  ]
  if lines:
    raise CheckpointMismatch(
      '\n  '.join(
        [f'{source} and {os.fspath(other)} are not of one run:', *lines]
      )
      + '\nPut the file where the opt.json of its own run is, or none.'
    )


def read_options(path: str | os.PathLike) -> Mapping[str, Any]:
  """Reads an `opt.json`.

  Raises:
    CheckpointMismatch: no JSON object.
  """
  try:
    with open(path, encoding='utf-8') as file:
      text = file.read(_MOST_CHARACTERS)
    content = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise CheckpointMismatch(
      f'{os.fspath(path)}: no JSON ({error}). Take the file that upstream '
      'writes into the folder of a run, or remove it.'
    ) from error
  if not isinstance(content, Mapping):
    raise CheckpointMismatch(
      f'{os.fspath(path)}: expected an object, found {type(content).__name__}.'
    )
  return content
