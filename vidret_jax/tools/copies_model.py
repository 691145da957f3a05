# SPDX-License-Identifier: Apache-2.0
"""A network that compares videos, with the frozen one that looks at frames.

Most weights that are published hold the first only, and a run that was trained
on features has no other; the second comes from files of its own then.
"""

from collections.abc import Mapping
import dataclasses
import inspect
import os
import pathlib
from typing import Any

import jax
import numpy as np

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.convert import hap_vr as convert_lib
from vidret_jax.convert import hap_vr_parts
from vidret_jax.convert import rules as rules_lib
from vidret_jax.models import hap_vr as hap_vr_lib
from vidret_jax.tools import copies_eyes
from vidret_jax.tools import trained as trained_lib
from vidret_jax.train import ckpt
from vidret_jax.train import state as state_lib

SYSTEM = 'hap_vr'
PARTS = ('resnet', 'pca')  # Of the frozen network.
_FROZEN = 'params/backbone/'
_MADE_OF = ('stages', 'width', 'dims', 'kernels')  # What regions depend on.
# What datasets of frames call the fields of `Frames`.
_SIZES = dict(
  resize='resize',
  store_size='resize',
  size='crop',
  image_size='crop',
  fps='fps',
  framerate='fps',
)


@dataclasses.dataclass(frozen=True)
class Trained:
  """What finds copies.

  Attributes:
    config: of the run.
    model: compares videos.
    eyes: the same, leaving regions as the frozen network makes them.
    mesh: the devices.
    variables: of both, on the devices.
    frames: how a video is read.
    recipe: what regions depend on besides weights, as JSON values.
    fingerprint: of the frozen weights.
    source: folder of the run, or file, that the weights came from.
    select: which weights of the run: 'best', 'last' or None.
    parts: name -> file of frozen weights that are not in `source`.
  """

  config: Any
  model: Any
  eyes: Any
  mesh: Any
  variables: Any
  frames: copies_eyes.Frames
  recipe: dict[str, Any]
  fingerprint: str
  source: str
  select: str | None
  parts: dict[str, str]


def load(
  config: Any,
  source: str | os.PathLike,
  select: str | None = None,
  *,
  parts: Mapping[str, str | None] | None = None,
  frames: Mapping[str, Any] | None = None,
  piece: int = copies_eyes.PIECE,
) -> Trained:
  """Builds the system of a config and reads its weights.

  Args:
    config: see `trained.read_config`.
    source: workdir of a run, or a file of the authors (HAP-VR, S2VS, DnS).
    select: 'best' or 'last' weights of a run; None: as its config says.
    parts: name of `PARTS` -> file; default: `init.parts` of the config.
    frames: fields of `Frames` that differ from what the config says.
    piece: frames of a row of the index.

  Raises:
    ConfigError: another system, or one that cannot look at frames.
    FileNotFoundError: there are no weights.
    CheckpointError, ValueError: they are damaged or of another architecture.
  """
  given = _absolute(parts or {})
  said = _absolute(dict(cl.freeze(config.init)).get('parts') or {})
  model = _build(config, bool(given or said))
  mesh = sharding.make_mesh(config.mesh)
  where = sharding.replicated(mesh)
  path = pathlib.Path(source).absolute()
  flat = _read(path, select, model, where)
  # A run has the weights that it once took from files.
  for name, leaf in hap_vr_parts.PARTS.items():
    if any(x.startswith(f'{leaf}/') for x in flat):
      said.pop(name, None)
  used = said | given
  for name, file in used.items():
    flat |= rules_lib.flatten(hap_vr_parts.load(name, file, model)[0])
  want = _shapes(model)
  absent = sorted(set(want) - set(flat))
  if absent and absent[0].startswith(_FROZEN):
    raise cl.ConfigError(_no_eyes(path))
  flat = {name: flat[name] for name in want if name in flat}
  state_lib.check_same(
    {k: [list(x.shape), str(x.dtype)] for k, x in flat.items()},
    {k: [list(x.shape), str(x.dtype)] for k, x in want.items()},
    str(path),
  )
  variables = jax.device_put(rules_lib.unflatten(flat), where)
  seen = _frames(config, frames or {})
  eyes = model.clone(features_only=True)
  _try(eyes, variables, seen)
  return Trained(
    config=config,
    model=model,
    eyes=eyes,
    mesh=mesh,
    variables=variables,
    frames=seen,
    recipe=dict(
      system=SYSTEM,
      backbone={k: getattr(model.backbone, k) for k in _MADE_OF},
      frames=dataclasses.asdict(seen),
      piece=piece,
    ),
    fingerprint=trained_lib.fingerprint(variables['params']['backbone']),
    source=str(path),
    select=select,
    parts=used,
  )


def _try(eyes, variables, frames):
  """Raises ValueError where the network cannot look at frames of this size."""
  shape = (1, frames.min_frames, frames.crop, frames.crop, 3)
  batch = dict(
    frames=jax.ShapeDtypeStruct(shape, np.uint8),
    length=jax.ShapeDtypeStruct((1,), np.int32),
  )

  def encode(variables, batch):
    return eyes.apply(variables, batch, method='encode_item')

  jax.eval_shape(encode, variables, batch)


def _absolute(files) -> dict[str, str]:
  """Files of the parts that are needed here."""
  return {
    name: str(pathlib.Path(files[name]).absolute())
    for name in PARTS
    if files.get(name)
  }


def _build(config, named: bool):
  """The model without what only training needs."""
  options = dict(cl.freeze(config.model))
  if config.system != SYSTEM:
    raise cl.ConfigError(
      f'system {config.system!r} does not compare videos with videos: use a '
      f'run of {SYSTEM}, or configs/{SYSTEM}_*.py with weights'
    )
  if options.get('backbone') is None:
    if not named:
      raise cl.ConfigError(_no_eyes('its config'))
    options['backbone'] = dict(dims=options.get('dim', 512))
  options['labeller'] = None
  options['loss'] = {**(options.get('loss') or {}), 'frame': 0.0}
  return hap_vr_lib.make(**options)


def _no_eyes(where) -> str:
  return (
    f'{where} has no network that makes regions of frames: it was trained on, '
    'or published for, features that others extracted. Name the files of that '
    'network: --resnet resnet50.pth (of torchvision, IMAGENET1K_V1) and --pca '
    'pca_resnet50_vcdb_1M.pth; for one of other sizes also '
    '--config.model.backbone. docs/own_copies.md says where they are published'
  )


def _shapes(model) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and types of the model's variables, by path."""
  return {
    **rules_lib.flatten(convert_lib.variable_shapes(model)),
    **hap_vr_parts.shapes(model),
  }


def _read(path, select, model, where) -> dict[str, Any]:
  """Arrays of a run or of a file, by path."""
  if path.is_file():
    return rules_lib.flatten(convert_lib.load(str(path), model)[0])
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    ckpt.abstract(str(path), select),
  )
  variables, _ = ckpt.load_variables(str(path), target, select)
  return rules_lib.flatten(variables)


def _frames(config, given) -> copies_eyes.Frames:
  """As the run has frames, unless told otherwise."""
  said: dict[str, Any] = {}
  for data in (
    config.input.get('data'),
    *(entry.get('data') for entry in config.evals.values()),
  ):
    found = dict(cl.freeze(data or {}))
    try:
      make = cl.find('data', found.get('name', ''), 'make')
    except cl.ConfigError:
      known = {}  # A dataset of the user's own, that is not here.
    else:
      known = inspect.signature(make).parameters
    for key, field in _SIZES.items():
      if key in found:
        said[field] = found[key]
      elif key in known and known[key].default is not inspect.Parameter.empty:
        said[field] = known[key].default
  said |= {k: v for k, v in given.items() if v is not None}
  return copies_eyes.Frames(**said)
