# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of HAP-VR, and of S2VS and DnS, which have the same network.

Upstream: `yafeng19/HAP-VR`, `gkordo/s2vs`, `mever-team/distill-and-select`.
Such files hold the trained network; the frozen ones that make regions and
labels of frames come from files of their own, see `PARTS`.
"""

from collections import OrderedDict
from collections.abc import Mapping
import dataclasses
import os
from typing import Any

import jax
import numpy as np

from vidret_jax.convert import (
  hap_vr_config,
  hap_vr_fit,
  hap_vr_parts,
  hap_vr_rules,
  torch_file,
  torch_optimizer,
  torch_write,
)
from vidret_jax.convert import hap_vr_files as files
from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models.hap_vr_model import HapVr

# Of `init.parts`: names of frozen networks, and what reads and writes them.
PARTS = hap_vr_parts.PARTS
load_part = hap_vr_parts.load
save_part = hap_vr_parts.save
# Of `init.fit`.
fit_part = hap_vr_fit.fit_part
# Options of `models.hap_vr.make` that a checkpoint tells.
model_options = hap_vr_config.model_options

_FROZEN = ('params/backbone/', 'params/labeller/')
_HALVED = (
  'keys are those of S2VS and DnS. DnS reports s / 2 + 0.5 for a similarity s; '
  'the order of videos is the same, numbers of ours are s'
)


def variable_shapes(model: HapVr) -> dict:
  """Shapes and types of the trained network, without computing any."""
  model = model.clone(backbone=None, labeller=None, features_only=False)
  spec = jax.ShapeDtypeStruct
  batch = dict(
    regions=spec((1, 4, 1, model.dim), np.float32),
    length=spec((1,), np.int32),
  )

  def everything(model, batch):
    videos = model.encode_item(batch)
    return model.fine(videos, videos)

  def init(key, batch):
    return model.init(key, batch, method=everything)

  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(init, key, batch)


# ------------------------------------------------------------------- reading


def load(
  path: str | os.PathLike, model: HapVr
) -> tuple[dict, rules_lib.Report]:
  """Reads a checkpoint into variables of `model`.

  Frozen networks of the model are not in such files: they are absent from the
  variables, and `drawn` in the report.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: it belongs to another model.
  """
  source, checkpoint = os.fspath(path), files.read(path)
  variables, report = to_flax(checkpoint.state, model, source=source)
  notes = list(report.notes)
  try:
    told = hap_vr_config.model_options(checkpoint)
  except rules_lib.CheckpointMismatch as error:
    notes.append(f'its options were not compared: {error}')
  else:
    notes += hap_vr_config.differences(told, model)
  if checkpoint.visil:
    notes.append(_HALVED)
  return variables, dataclasses.replace(report, notes=tuple(notes))


def describe(
  source: str | os.PathLike,
) -> tuple[str, dict[str, dict[str, Any]]]:
  """The file, and what it tells of a config of ours: options of the model.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: of another system, or it contradicts itself.
  """
  path = os.fspath(source)
  try:
    return path, dict(model=hap_vr_config.model_options(files.read(path)))
  except hap_vr_config.ConfigMismatch as error:
    raise hap_vr_config.ConfigMismatch(f'{path}: {error}') from None


def to_flax(
  state: Mapping[str, np.ndarray],
  model: HapVr,
  *,
  source: str = 'checkpoint',
) -> tuple[dict, rules_lib.Report]:
  """A state dict of upstream as variables of `model`, and a report.

  Raises:
    CheckpointMismatch: it belongs to another model.
  """
  shapes = {k: tuple(v.shape) for k, v in state.items()}
  variables, report = rules_lib.to_flax(
    state,
    hap_vr_rules.similarity(model),
    variable_shapes(model),
    source=source,
    advice=_advice(hap_vr_config.shape_options(shapes), model),
  )
  frozen = tuple(hap_vr_parts.shapes(model))
  return variables, dataclasses.replace(report, drawn=frozen)


def _advice(found, model):
  have = dict(dim=model.dim, attention=model.attention, bits=model.bits or None)
  lines = [
    f'model.{name}: file {value!r}, model {have[name]!r}'
    for name, value in found.items()
    if have[name] != value
  ]
  if lines:
    return '\n  '.join(['Options that the file contradicts:', *lines])
  return 'The file has the options of the model, but not its arrays.'


def optimizer_slots(
  checkpoint: files.Checkpoint, model: HapVr
) -> dict[str, dict]:
  """State of upstream's AdamW as trees like `params`.

  Returns:
    {'step', 'exp_avg', 'exp_avg_sq'}, or nothing where the file has none.

  Raises:
    CheckpointMismatch: another number of parameters.
  """
  table = hap_vr_rules.similarity(model)
  return torch_optimizer.slots(checkpoint.optimizer, table)


# ------------------------------------------------------------------- writing


def to_torch(variables: Mapping, model: HapVr) -> OrderedDict:
  """The trained network in `variables` as a state dict, in upstream's order.

  Raises:
    CheckpointMismatch: the variables are not those of `model`.
  """
  table, trained = hap_vr_rules.similarity(model), _trained(variables)
  state = rules_lib.to_torch(trained, table)
  have = rules_lib.flatten(trained)
  wrong = [
    f'{leaf} {tuple(have[leaf].shape)}, model {tuple(want.shape)}'
    for leaf, want in rules_lib.flatten(variable_shapes(model)).items()
    if have[leaf].shape != want.shape
  ]
  if wrong:  # What args say of the network would be of another one.
    raise CheckpointMismatch(
      '\n  '.join(['the variables are of another model:', *wrong])
      + '\nTake the config that the run was made with.'
    )
  return OrderedDict(state)


def _trained(variables):
  flat = rules_lib.flatten(variables)
  return rules_lib.unflatten(
    {k: v for k, v in flat.items() if not k.startswith(_FROZEN)}
  )


def save(
  path: str | os.PathLike,
  variables: Mapping,
  model: HapVr,
  *,
  step: int = 0,
  slots: Mapping[str, Mapping] | None = None,
  group: Mapping[str, Any] | None = None,
) -> rules_lib.Report:
  """Writes a checkpoint that upstream's evaluation and training load.

  Args:
    path: the file.
    variables: `params`; frozen networks are left out, as upstream does.
    model: their model.
    step: updates done.
    slots: state of AdamW, see `optimizer_slots`; None: none is stored.
    group: its settings (lr, betas, eps, weight_decay), with `slots`.

  Returns:
    A report.

  Raises:
    CheckpointMismatch: the variables are not those of `model`.
  """
  state, optimizer = to_torch(variables, model), {}
  if slots:
    table = hap_vr_rules.similarity(model)
    optimizer = torch_optimizer.state(slots, table, group or {})
  content = dict(
    args=torch_file.Namespace(hap_vr_config.upstream_args(model)),
    model=state,
    optimizer=optimizer,
    global_step=int(step),
  )
  torch_write.write(path, content)
  return rules_lib.report(
    hap_vr_rules.similarity(model), state, rules_lib.flatten(variables)
  )
