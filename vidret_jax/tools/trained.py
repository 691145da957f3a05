# SPDX-License-Identifier: Apache-2.0
"""A trained system, loaded without the data it was trained on.

Its config says how videos become frames and sentences tokens; that, and a
fingerprint of the weights, decide which index it can search.
"""

import dataclasses
import hashlib
import inspect
import json
import os
import pathlib
from typing import Any

import flax
import jax
import numpy as np

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.data import vocabulary as vocabulary_lib
from vidret_jax.train import ckpt, defaults, initial
from vidret_jax.train import run as run_lib
from vidret_jax.train import state as state_lib

# How a video becomes frames; the names that datasets of frames give it.
FRAMES = (
  *('max_frames', 'image_size', 'select', 'frame_order', 'framerate'),
  'transform',
)


@dataclasses.dataclass(frozen=True)
class Trained:
  """A system that can embed.

  Attributes:
    config: of the run.
    model: the Retriever.
    mesh: the devices.
    variables: weights, on the devices.
    frames: options for `data.folder.make`.
    max_words: tokens of a sentence, start and end included.
    fingerprint: of the weights.
    source: folder of the run, or file, that they came from.
    select: which weights of the run: 'best', 'last' or None.
  """

  config: Any
  model: Any
  mesh: Any
  variables: Any
  frames: dict[str, Any]
  max_words: int
  fingerprint: str
  source: str
  select: str | None

  @property
  def recipe(self) -> dict[str, Any]:
    """What embeddings depend on besides the weights, as JSON values."""
    config = cl.to_dict(self.config)
    return dict(
      system=config['system'], model=config['model'], frames=self.frames
    )


def read_config(path: str | os.PathLike, overrides=()) -> Any:
  """A config, resolved: of a saved `config.json`, or of `FILE.py:arg`.

  Raises:
    ConfigError, FileNotFoundError: see `config_lib.load`.
  """
  if str(path).endswith('.json'):
    config = cl.load_json(path)
    with config.unlocked():
      for text in overrides:
        cl.override(config, *text.split('=', 1))
  else:
    config = cl.load(str(path), overrides, defaults.DEFAULTS)
  return defaults.resolve(config)


def load(
  config: Any, source: str | os.PathLike, select: str | None = None
) -> Trained:
  """Builds a system and reads its weights.

  Args:
    config: see `read_config`.
    source: workdir of a run, or a file for `convert.<system>.load`.
    select: 'best' or 'last' weights of a run; None: as its config says.

  Raises:
    ConfigError: the system does not take frames of videos.
    FileNotFoundError: there are no weights.
    CheckpointError, ValueError: they are damaged or of another architecture.
  """
  frames, max_words = _options(config)
  model = run_lib.model_of(config)
  mesh = sharding.make_mesh(config.mesh)
  size, n = frames['image_size'], frames['max_frames']
  spec = dict(
    text=((max_words,), np.int32),
    frames=((n, size, size, 3), np.uint8),
    frame_mask=((n,), bool),
  )
  abstract = state_lib.abstract(model, spec, config.seed)
  state = state_lib.start_from(abstract, None, None)
  target = state_lib.with_sharding(state, config.sharding, mesh).variables
  path = pathlib.Path(source).absolute()
  if path.is_file():
    flat, _ = initial.convert(config, model, str(path))
    read = flax.traverse_util.unflatten_dict(flat, sep='/')
    state_lib.check_same(
      state_lib.describe(read), state_lib.describe(target), str(path)
    )
    variables = jax.device_put(read, state_lib.shardings(target))
    del read, flat
  else:
    variables, _ = ckpt.load_variables(str(path), target, select)
  return Trained(
    config=config,
    model=model,
    mesh=mesh,
    variables=variables,
    frames=frames,
    max_words=max_words,
    fingerprint=fingerprint(variables),
    source=str(path),
    select=select,
  )


def fingerprint(variables: Any) -> str:
  """16 hexadecimal digits that change with any bit of the weights."""
  text = json.dumps(state_lib.checksums_of(variables), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _options(config) -> tuple[dict[str, Any], int]:
  """Options of the frames, as evaluations of the run have them; max_words."""
  data = dict(cl.freeze(config.input.data))
  known = inspect.signature(cl.find('data', data['name'], 'make')).parameters
  if not {*FRAMES, 'max_words'} <= set(known):
    raise cl.ConfigError(
      f'system {config.system!r} was trained on {data["name"]!r}, which are no '
      'frames: it cannot encode videos. Use a run of a system that takes '
      'frames, as configs/eercf_shapes.py makes one'
    )
  for entry in config.evals.values():
    # Training may reverse or shuffle frames.
    if entry.get('data') and entry.data.get('name') == data['name']:
      data = dict(cl.freeze(entry.data))
      break
  chosen = {
    name: data.get(name, known[name].default) for name in (*FRAMES, 'max_words')
  }
  return {name: chosen[name] for name in FRAMES}, chosen['max_words']


def tokenizer_file(config: Any, given: str | None = None) -> pathlib.Path:
  """The file of the tokenizer that a run was trained with.

  Args:
    config: of the run.
    given: a path that overrides what the config says.

  Raises:
    ConfigError: neither says it.
    FileNotFoundError: it is not on this machine.
  """
  data = dict(cl.freeze(config.input.data))
  path = given or data.get('tokenizer')
  if path is None:
    try:
      find = cl.find('data', data.pop('name'), 'tokenizer_file')
    except cl.ConfigError:
      raise cl.ConfigError(
        'the config of the run names no tokenizer; give --tokenizer, the file '
        'that it was trained with'
      ) from None
    path = find(**data)
  return pathlib.Path(path)


def write_tokenizer(
  source: str | os.PathLike, target: str | os.PathLike, model: Any
) -> None:
  """Writes a tokenizer of any kind as one `tokenizer.json`.

  Raises:
    ValueError: damaged, or with more tokens than the model knows.
  """
  found = vocabulary_lib.read(pathlib.Path(source))
  size = getattr(getattr(model, 'sizes', None), 'vocab', None)
  if size is not None and len(found.ids) > size:
    raise ValueError(
      f'{source} has {len(found.ids)} tokens, the model knows {size}; give the '
      'tokenizer that it was trained with'
    )
  merges = [list(pair) for pair in found.merges]
  with open(target, 'w') as file:
    json.dump(dict(model=dict(vocab=found.ids, merges=merges)), file)
