# SPDX-License-Identifier: Apache-2.0
"""The frozen networks of HAP-VR by themselves: frames to regions and labels."""

from collections.abc import Mapping
import dataclasses
import functools
import json
import os
from typing import Any

import jax
import numpy as np

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.convert import rules as rules_lib
from vidret_jax.data.copies import feature_parts
from vidret_jax.tools import trained as trained_lib
from vidret_jax.train import ckpt
from vidret_jax.train import state as state_lib

SYSTEM = 'hap_vr'
PARTS = ('resnet', 'pca', 'labeller')
_WHERE = (
  'resnet50.pth (of torchvision, IMAGENET1K_V1) as --resnet and '
  'pca_resnet50_vcdb_1M.pth (of ViSiL) as --pca, and for labels '
  'dino_deitsmall16_pretrain.pth as --dino; see docs/extracting.md'
)


@dataclasses.dataclass(frozen=True)
class Spec:
  """What networks are made of; plain values, for other processes.

  Attributes:
    backbone: options of `models.regions.Regions`, as JSON.
    labeller: options of `models.dino.Dino`, as JSON; None: no labels.
    parts: (name of `PARTS`, file) of weights.
    run: workdir of a run with the other weights; None: there are none.
    select: which weights of the run: 'best', 'last' or None.
    untrained: draws what no file has, for tests.
    batch: frames at a time.
  """

  backbone: str
  labeller: str | None
  parts: tuple[tuple[str, str], ...] = ()
  run: str | None = None
  select: str | None = None
  untrained: bool = False
  batch: int = 32

  def settings(self) -> dict[str, Any]:
    """JSON values that features depend on; files by name and size."""
    labeller = self.labeller and json.loads(self.labeller)
    files = {
      name: [os.path.basename(path), os.path.getsize(path)]
      for name, path in self.parts
    }
    return dict(
      backbone=json.loads(self.backbone),
      labeller=labeller,
      parts=files,
      run=self.run,
      select=self.select,
    )


def spec(
  config: Any | None,
  *,
  labels: bool,
  parts: Mapping[str, str | None],
  **rest: Any,
) -> Spec:
  """Reads off a config what is needed.

  Args:
    config: see `trained.read_config`; None: the published networks.
    labels: whether frames get labels, too.
    parts: name of `PARTS` -> file, or None; they go before the config's.
    **rest: other fields of `Spec`.

  Raises:
    ConfigError: another system, or weights that are named nowhere.
    FileNotFoundError: a file is absent.
  """
  options, files = {}, {}
  if config is not None:
    if config.system != SYSTEM:
      raise cl.ConfigError(
        f'system {config.system!r} has no regions: use one of {SYSTEM}'
      )
    plain = cl.to_dict(config)
    options = plain['model']
    # A run has all weights, whatever files it once began with.
    if not rest.get('run'):
      files = dict(plain['init'].get('parts') or {})
  dims = {'dims': options['dim']} if options.get('dim') else {}
  backbone = options.get('backbone') or dims
  labeller = (options.get('labeller') or {}) if labels else None
  files |= {name: path for name, path in parts.items() if path}
  wanted = PARTS if labels else PARTS[:2]
  files = {
    name: os.path.abspath(path)
    for name, path in files.items()
    if path and name in wanted
  }
  for name, path in files.items():
    if not os.path.isfile(path):
      raise FileNotFoundError(f'{path}: no such file of weights ({name}).')
  if backbone.get('dims', 1) is None:
    wanted = tuple(name for name in wanted if name != 'pca')
  absent = [name for name in wanted if name not in files]
  if absent and not rest.get('run') and not rest.get('untrained'):
    raise cl.ConfigError(f'no weights of {", ".join(absent)}. Name {_WHERE}')
  return Spec(
    backbone=json.dumps(backbone, sort_keys=True),
    labeller=None if labeller is None else json.dumps(labeller, sort_keys=True),
    parts=tuple(sorted(files.items())),
    **rest,
  )


class Networks:
  """Regions, and perhaps labels, of frames.

  Attributes:
    kinds: what is made, of `feature_parts.KINDS`.
    batch: frames at a time, over all devices.
  """

  def __init__(self, given: Spec):
    """Reads weights.

    Raises:
      FileNotFoundError: there are none.
      CheckpointError, ValueError: they are damaged or of other networks.
    """
    make = cl.find('models', SYSTEM, 'make')
    backbone = json.loads(given.backbone)
    labeller = given.labeller and json.loads(given.labeller)
    model = make(
      dim=backbone.get('dims') or 1,
      backbone=backbone,
      labeller=labeller,
      loss=dict(frame=0.0 if labeller is None else 1.0),
    )
    self._mesh = sharding.make_mesh([('data', -1)])
    devices = self._mesh.devices.size
    self.batch = -(-given.batch // devices) * devices
    self._networks = {feature_parts.REGIONS: model.backbone.clone(parent=None)}
    if labeller is not None:
      self._networks[feature_parts.LABELS] = model.labeller.clone(parent=None)
    self.kinds = tuple(self._networks)
    names = ('backbone', 'labeller')[: len(self.kinds)]
    params = _weights(given, model)
    self._variables = jax.device_put(
      {kind: {'params': params[name]} for kind, name in zip(self.kinds, names)},
      sharding.replicated(self._mesh),
    )
    self._apply = jax.jit(self._of_frames)

  def _of_frames(self, variables, frames):
    return {
      kind: network.apply(variables[kind], frames)
      for kind, network in self._networks.items()
    }

  def __call__(self, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Looks at frames.

    Args:
      frames: uint8 [n, h, w, 3], n at most `batch`.

    Returns:
      float32 `regions` [n, r, d], and perhaps `labels` [n, l].
    """
    n = len(frames)
    padded = np.zeros((self.batch, *frames.shape[1:]), np.uint8)
    padded[:n] = frames
    given = sharding.put_batch({'frames': padded}, self._mesh)['frames']
    out = sharding.fetch(self._apply(self._variables, given))
    return {kind: x[:n] for kind, x in out.items()}


@functools.cache
def networks(given: Spec) -> Networks:
  """The networks of a spec, made once per process."""
  return Networks(given)


def _weights(given: Spec, model) -> dict[str, Any]:
  """{'backbone': params, 'labeller': params} on the host."""
  shapes_of = cl.find('convert', 'hap_vr_parts', 'shapes')
  load_part = cl.find('convert', SYSTEM, 'load_part')
  want, flat = shapes_of(model), {}
  if given.run is not None:
    found = _of_run(given.run, given.select)
    flat = {name: x for name, x in found.items() if name in want}
  for name, path in given.parts:
    read, _ = load_part(name, path, model)
    flat |= rules_lib.flatten(read)
  absent = sorted(set(want) - set(flat))
  if absent and not given.untrained:
    raise cl.ConfigError(
      f'{given.run or "the files"}: no weights of {absent[0]} and '
      f'{len(absent) - 1} more. Name {_WHERE}'
    )
  if absent:
    flat = _drawn(want, absent) | flat
  state_lib.check_same(
    *(
      {k: [list(x.shape), str(x.dtype)] for k, x in tree.items()}
      for tree in (flat, want)
    ),
    given.run or 'the files',
  )
  return rules_lib.unflatten(flat)['params']


def _of_run(run, select):
  where = sharding.replicated(sharding.make_mesh([('data', -1)]))
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    ckpt.abstract(run, select),
  )
  variables, _ = ckpt.load_variables(run, target, select)
  return rules_lib.flatten(variables)


def _drawn(want, names):
  """Random values that keep the sizes of activations about equal."""
  rng = np.random.default_rng(0)
  out = {}
  for name in names:
    shape, dtype = want[name].shape, want[name].dtype
    if len(shape) > 1:
      fan_in = np.prod(shape[:-1])
      value = rng.normal(size=shape) * np.sqrt(2 / fan_in)
    else:
      value = np.ones(shape) if _is_scale(name) else np.zeros(shape)
    out[name] = value.astype(dtype)
  return out


def _is_scale(name):
  return name.rpartition('/')[2] in ('scale', 'var')


def add_arguments(add) -> None:
  """Arguments of a command line that decide which networks."""
  add('--run', help='workdir of a run that has the frozen networks')
  add('--select', choices=('best', 'last'), help='weights of the run')
  add('--config', help='FILE.py[:arg]; --config.key=value')
  add('--resnet', help='resnet50.pth of torchvision (IMAGENET1K_V1)')
  add('--pca', help='pca_resnet50_vcdb_1M.pth of ViSiL')
  add('--dino', help='dino_deitsmall16_pretrain.pth, or one of your own')
  add('--labels', action='store_true', help='also labels of frames, by DINO')
  add('--batch_size', type=int, default=32, help='frames at a time')
  add('--untrained', action='store_true', help='draw absent weights: for tests')


def of_arguments(args, overrides=()) -> Spec:
  """What a command line means.

  Raises:
    ConfigError, FileNotFoundError, ValueError: see `spec`.
  """
  config = None
  if args.run and args.config:
    raise cl.ConfigError('give --run or --config, not both')
  if args.batch_size < 1:
    raise cl.ConfigError(f'--batch_size {args.batch_size}: expected 1 or more')
  path = args.config or (args.run and os.path.join(args.run, 'config.json'))
  if path:
    config = trained_lib.read_config(path, overrides)
  elif overrides:
    raise cl.ConfigError(f'--config.{overrides[0]}: there is no --config')
  return spec(
    config,
    labels=args.labels,
    parts=dict(resnet=args.resnet, pca=args.pca, labeller=args.dino),
    run=args.run and os.path.abspath(args.run),
    select=args.select,
    untrained=args.untrained,
    batch=args.batch_size,
  )
