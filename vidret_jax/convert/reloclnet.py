# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of ReLoCLNet and of XML.

Upstream: `26hzhang/ReLoCLNet` and `jayleicn/TVRetrieval`.
"""

from collections import OrderedDict
from collections.abc import Mapping
import dataclasses
import os
from typing import Any

import jax
import numpy as np

from vidret_jax.convert import reloclnet_config, torch_file, torch_write
from vidret_jax.convert import reloclnet_files as files
from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.reloclnet_config import model_options
from vidret_jax.convert.reloclnet_rules import rules
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models import reloclnet
from vidret_jax.models.reloclnet_model import Reloclnet

# What `tools.convert` asks before it takes options from a file.
check_config = reloclnet_config.check_config


def variable_shapes(
  model: Reloclnet, sizes: Mapping[str, int] | None = None
) -> dict:
  """Shapes and types of the model's variables, without computing any.

  Args:
    model: any of the system.
    sizes: widths of its inputs, by stream and for 'query'; 1 where absent,
      since the model does not know them.
  """
  sizes = sizes or {}
  spec = jax.ShapeDtypeStruct
  batch = dict(
    query=spec((2, 1, sizes.get('query', 1)), np.float32),
    query_mask=spec((2, 1), np.bool_),
    clip_mask=spec((2, 1), np.bool_),
    **{
      name: spec((2, 1, sizes.get(name, 1)), np.float32)
      for name in model.streams
    },
  )
  key = jax.eval_shape(lambda: jax.random.key(0))

  def everything(model, batch):
    q, v = model.encode_query(batch), model.encode_item(batch)
    return model.boundaries(model.similarity(q, v), v['mask'])

  def init(key, batch):
    return model.init(key, batch, method=everything)

  return jax.eval_shape(init, key, batch)


# ------------------------------------------------------------------- reading


def load(
  path: str | os.PathLike, model: Reloclnet
) -> tuple[dict, rules_lib.Report]:
  """Reads a checkpoint into variables of `model`.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: it belongs to another model.
  """
  source, checkpoint, notes = os.fspath(path), files.read(path), ()
  try:
    told = _told(path, checkpoint)
  except ValueError as error:
    told, notes = {}, (f'its options were not compared: {error}',)
  # No shape shows them, and other heads are another function.
  heads = told.get('heads', model.options.heads)
  if heads != model.options.heads:
    raise CheckpointMismatch(
      f'{source}: trained with {heads} heads, the model has '
      f'{model.options.heads}; set model.heads={heads}.'
    )
  variables, report = to_flax(checkpoint.state, model, source=source)
  return variables, dataclasses.replace(report, notes=notes)


def describe(
  source: str | os.PathLike,
) -> tuple[str, dict[str, dict[str, Any]]]:
  """The checkpoint in a file or folder, and what it tells of a config.

  Args:
    source: a checkpoint, or upstream's folder of a run.

  Returns:
    (file, values), see `reloclnet_files.describe`.
  """
  path = files.locate(source)
  return str(path), files.describe(path)


def to_variables(
  state: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None
) -> dict:
  """A state dict of upstream as variables of the model that it is for.

  Args:
    state: arrays by upstream's key.
    config: its `model_cfg`; by default the shapes tell the model.

  Raises:
    CheckpointMismatch: the two contradict each other, or something is missing.
  """
  if config is not None:
    options = model_options(config)
  else:
    found = reloclnet_config.shape_options(files.shapes(state))
    # Heads and schedules are no matter of shapes.
    options = dict(found, heads=1, hard_start_epoch=-1)
  return to_flax(state, reloclnet.make(**options))[0]


def _told(path, checkpoint):
  """Options of the model, from the file if it has them."""
  if checkpoint.config is not None:
    return model_options(checkpoint.config)
  return files.describe(path, checkpoint)['model']


def to_flax(
  state: Mapping[str, np.ndarray],
  model: Reloclnet,
  *,
  source: str = 'checkpoint',
) -> tuple[dict, rules_lib.Report]:
  """A state dict of upstream as variables of `model`, and a report.

  Raises:
    CheckpointMismatch: it belongs to another model.
  """
  state = rules_lib.strip_module(state)
  found = reloclnet_config.shape_options(files.shapes(state))
  return rules_lib.to_flax(
    state,
    rules(model),
    variable_shapes(model, files.sizes(state)),
    source=source,
    advice=_advice(found, model),
  )


def _advice(found, model):
  lines = [
    f'model.{name}: file {value!r}, model {getattr(model, name)!r}'
    for name, value in found.items()
    if getattr(model, name) != value
  ]
  if lines:
    return '\n  '.join(['Options that the file contradicts:', *lines])
  return 'The file has the options of the model, but not its arrays.'


# ------------------------------------------------------------------- writing


def to_torch(variables: Mapping, model: Reloclnet) -> OrderedDict:
  """Variables as a state dict, in upstream's order."""
  return OrderedDict(rules_lib.to_torch(variables, rules(model)))


def facts(config: Any) -> dict[str, str]:
  """What `save` takes from a run's config: the context mode of its data."""
  context = config.input.data.get('context')
  return dict(context=context) if context else {}


def save(
  path: str | os.PathLike,
  variables: Mapping,
  model: Reloclnet,
  *,
  context: str | None = None,
  epoch: int = 0,
) -> rules_lib.Report:
  """Writes a `model.ckpt` that upstream's `setup_model` loads.

  `model_cfg` is stored as an `easydict.EasyDict`, whose attributes upstream
  reads: loading the file needs that package, and weights_only=False.

  Args:
    path: the file.
    variables: `params`.
    model: their model.
    context: mode of its data; default: the streams without TEF, which only
      upstream's data ask about.
    epoch: stored as is.

  Returns:
    A report.
  """
  state = to_torch(variables, model)
  config = reloclnet_config.upstream_config(model, files.sizes(state), context)
  content = dict(
    model=state, model_cfg=torch_file.EasyDict(config), epoch=int(epoch)
  )
  torch_write.write(path, content)
  report = rules_lib.report(rules(model), state, rules_lib.flatten(variables))
  if len(model.streams) > 1 or model.variant == 'xml':
    return report
  note = (
    "upstream's ReLoCLNet has no model of one stream and cannot load this "
    'file; keys are those of XML with one stream, and of a second encoder of '
    'queries'
  )
  return dataclasses.replace(report, notes=(note,))
