# SPDX-License-Identifier: Apache-2.0
"""CE and MoEE checkpoints of the original repositories.

`collaborative-experts` writes dicts with `state_dict`, `config` and, usually,
`optimizer`; `Mixture-of-Embedding-Experts` plain state dicts. Experts are
numbered in upstream by the byte-wise order of their names, which is the order
of `model.experts`, too.
"""

from collections import OrderedDict
from collections.abc import Mapping
import dataclasses
import os

import jax
import numpy as np

from vidret_jax.convert import (
  ce_config,
  torch_file,
  torch_optimizer,
  torch_write,
)
from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.rules import LEADING_ONE, Rule
from vidret_jax.models import ce_inputs
from vidret_jax.models.ce import CollaborativeExperts

# Leftovers of an abandoned mixture network in released files.
IGNORE = (r'ce\.moe_fc_bottleneck1', r'ce\.moe_cg', r'ce\.moe_fc_proj')
# Layers that the network of 2019 stores and never calls.
IGNORE_2019 = (
  r'ce\.g_reason_3\.',
  r'ce\.f_reason_3\.',
  r'ce\.batch_norm_[gf][12]\.',
)

# Order in which upstream registers its pooling modules.
_POOLING_ORDER = ('ocr', 'audio', 'speech')
# Gated units of the original MoEE follow this order, its mixture the sorted.
_MOEE_UNITS = ('face', 'audio', 'visual', 'motion')


def rules(model: CollaborativeExperts) -> tuple[Rule, ...]:
  """The table of `collaborative-experts`, in state-dict order."""
  table = []
  variable = [e for e in model.experts if e.max_tokens]
  first = [e for n in _POOLING_ORDER for e in variable if e.name == n]
  for e in first + [e for e in variable if e not in first]:
    table += _netvlad(f'pooling.{e.name}', f'video_pooling_{e.key}')
  if model.text.clusters:
    table += _netvlad('text_pooling', 'text_pooling')
  table += rules_lib.linear('ce.moe_fc', 'mixing')
  keys = [e.key for e in model.experts]
  if model.projects:
    for i, key in enumerate(keys):
      table += rules_lib.linear(
        f'ce.video_dim_reduce.{i}.fc', f'projection_{key}/fc'
      )
  if model.relates:
    table += _relation(model, keys)
  video = text = ['all'] if model.gating == 'concat_mix' else keys
  if model.relates or model.gating == 'concat':
    video = []
  if model.gating == 'concat':
    text = []
  for i, key in enumerate(video):
    table += _unit(
      f'ce.video_GU.{i}', f'video_unit_{key}', first=model.gating != 'mimic'
    )
  for i, key in enumerate(text):
    table += _unit(f'ce.text_GU.{i}', f'text_unit_{key}')
  return tuple(table)


def moee_rules(model: CollaborativeExperts) -> tuple[Rule, ...]:
  """The table of the original `Mixture-of-Embedding-Experts`."""
  table = _netvlad('audio_pooling', 'video_pooling_audio')
  table += _netvlad('text_pooling', 'text_pooling')
  for side in ('video', 'text'):
    for i, name in enumerate(_MOEE_UNITS):
      table += _unit(f'mee.{side}_GU.{i}', f'{side}_unit_{name}')
  return tuple(table + rules_lib.linear('mee.moe_fc', 'mixing'))


def _netvlad(key, leaf):
  return [
    Rule(f'{key}.clusters', f'params/{leaf}/clusters'),
    Rule(f'{key}.clusters2', f'params/{leaf}/centres', LEADING_ONE),
    *rules_lib.batch_norm(f'{key}.batch_norm', f'{leaf}/batch_norm'),
  ]


def _unit(key, leaf, first=True):
  table = rules_lib.linear(f'{key}.fc', f'{leaf}/fc') if first else []
  return table + [
    *rules_lib.linear(f'{key}.cg.fc', f'{leaf}/gate/fc'),
    *rules_lib.batch_norm(f'{key}.cg.batch_norm', f'{leaf}/gate/batch_norm'),
  ]


def _chain(key, leaf, layers, norm):
  """A Sequential of (BN,) nonlinearity, linear; the middle has no weights."""
  table, stride = [], 3 if norm else 2
  for i in range(layers):
    if norm:
      table += rules_lib.batch_norm(f'{key}.{stride * i}', f'{leaf}/norms_{i}')
    table += rules_lib.linear(
      f'{key}.{stride * (i + 1) - 1}', f'{leaf}/linears_{i}'
    )
  return table


def _relation(model, keys):
  if model.gating == 'legacy_2019':
    table = [
      *rules_lib.linear('ce.g_reason_1', 'relation/g_in'),
      *rules_lib.linear('ce.g_reason_2', 'relation/g/linears_0'),
      *rules_lib.linear('ce.f_reason_1', 'relation/h_in'),
      *rules_lib.linear('ce.f_reason_2', 'relation/h/linears_0'),
    ]
  else:
    table = []
    if model.gating == 'pairwise_star_tensor':
      table += rules_lib.linear('ce.dim_reduce', 'relation/reduce')
    if model.gating == 'pairwise_star_specific':
      for i in range(len(keys)):
        key = f'ce.g_reason_unshared_weights.{i}'
        table += rules_lib.linear(
          f'{key}.g_reason_1_specific', f'relation/g_in_{i}'
        )
        table += rules_lib.linear(
          f'{key}.g_reason_2_specific', f'relation/g_mid_{i}'
        )
    else:
      table += rules_lib.linear('ce.g_reason_1', 'relation/g_in')
    table += _chain(
      'ce.g_reason_shared', 'relation/g', model.g_layers - 1, model.g_norm
    )
    table += _chain('ce.h_reason', 'relation/h', model.h_layers, model.g_norm)
  for i, key in enumerate(keys):
    unit, leaf = f'ce.video_GU.{i}.cg', f'relation/units_{key}'
    table += rules_lib.linear(f'{unit}.fc', f'{leaf}/fc')
    table += rules_lib.batch_norm(f'{unit}.batch_norm', f'{leaf}/mask_norm')
    table += rules_lib.batch_norm(f'{unit}.batch_norm2', f'{leaf}/own_norm')
  return table


def is_moee(state: Mapping) -> bool:
  """Whether a state dict is of the original MoEE repository."""
  return any(k.removeprefix('module.').startswith('mee.') for k in state)


def variable_shapes(model: CollaborativeExperts) -> dict:
  """Shapes and types of the model's variables, without computing any."""
  batch = ce_inputs.batch_spec(model, rows=2)
  key = jax.eval_shape(lambda: jax.random.key(0))

  def init(key, batch):
    return model.init(key, batch, step=0, train=False, method='loss')

  return jax.eval_shape(init, key, batch)


def state_dict(checkpoint) -> dict[str, np.ndarray]:
  """The arrays of a checkpoint, whether wrapped in upstream's dict or not."""
  state = checkpoint
  if isinstance(state, Mapping) and 'state_dict' in state:
    state = state['state_dict']
  if (
    not isinstance(state, Mapping)
    or not state
    or not all(isinstance(v, np.ndarray) for v in state.values())
  ):
    raise rules_lib.CheckpointMismatch(
      'expected a state dict of tensors, or a dict with state_dict; found '
      f'{type(state).__name__}'
      + (
        f' with {sorted(map(str, state))[:8]}'
        if isinstance(state, Mapping)
        else ''
      )
      + '.'
    )
  return rules_lib.strip_module(state)


def to_flax(
  state: Mapping[str, np.ndarray],
  model: CollaborativeExperts,
  *,
  source: str = 'checkpoint',
) -> tuple[dict, rules_lib.Report]:
  """A state dict of either repository as Flax variables, and a report."""
  ignore = IGNORE
  if model.gating == 'legacy_2019':
    ignore += IGNORE_2019
  return rules_lib.to_flax(
    state,
    _table(state, model),
    variable_shapes(model),
    ignore=ignore,
    source=source,
  )


def _table(state, model):
  if not is_moee(state):
    return rules(model)
  names = set(model.expert_names)
  if model.gating != 'none' or names != set(_MOEE_UNITS):
    raise rules_lib.CheckpointMismatch(
      'a checkpoint of the original MoEE repository needs gating="none" and '
      f'the experts {sorted(_MOEE_UNITS)}; the model has '
      f'gating={model.gating!r} and {sorted(names)}.'
    )
  return moee_rules(model)


def load(
  path: str | os.PathLike, model: CollaborativeExperts
) -> tuple[dict, rules_lib.Report]:
  """Reads a `.pth` file into variables of `model`.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    rules.CheckpointMismatch: it belongs to another model.
  """
  raw = torch_file.read(path)
  variables, report = to_flax(state_dict(raw), model, source=os.fspath(path))
  config = ce_config.stored_config(raw) if isinstance(raw, Mapping) else None
  if config is not None:
    notes = ce_config.differences(config, model)
    report = dataclasses.replace(report, notes=tuple(notes))
  return variables, report


def to_torch(
  variables: Mapping, model: CollaborativeExperts, *, moee: bool = False
) -> OrderedDict:
  """Variables as a state dict, in upstream's order.

  Args:
    variables: `params` and `batch_stats`.
    model: their model.
    moee: for the original MoEE repository.
  """
  if moee:
    return OrderedDict(rules_lib.to_torch(variables, moee_rules(model)))
  state = OrderedDict(rules_lib.to_torch(variables, rules(model)))
  if model.gating == 'legacy_2019':
    state.update(_unused_2019(model.dim))
  return state


def _unused_2019(dim):
  """Layers that strict loading of a 2019 checkpoint expects, and no more."""
  state = {}
  for name in ('g_reason_3', 'f_reason_3'):
    state[f'ce.{name}.weight'] = np.zeros((dim, dim), np.float32)
    state[f'ce.{name}.bias'] = np.zeros(dim, np.float32)
  for name in ('g1', 'g2', 'f1', 'f2'):
    for field, fill in dict(
      weight=1, bias=0, running_mean=0, running_var=1
    ).items():
      state[f'ce.batch_norm_{name}.{field}'] = np.full(dim, fill, np.float32)
    state[f'ce.batch_norm_{name}.num_batches_tracked'] = np.zeros((), np.int64)
  return state


def save(
  path: str | os.PathLike,
  variables: Mapping,
  model: CollaborativeExperts,
  *,
  config: Mapping | None = None,
  epoch: int = 0,
  monitor_best: float = 0.0,
  moee: bool = False,
) -> rules_lib.Report:
  """Writes variables as a `.pth` file that the original code loads.

  Args:
    path: the file.
    variables: `params` and `batch_stats`.
    model: their model.
    config: stored under `config`, as plain values.
    epoch: stored as is.
    monitor_best: stored as is.
    moee: in the layout of the original MoEE repository.

  Returns:
    A report.
  """
  state = to_torch(variables, model, moee=moee)
  whole = (
    state
    if moee
    else dict(
      arch='CENet',
      epoch=epoch,
      state_dict=state,
      monitor_best=monitor_best,
      config=dict(config or {}),
    )
  )
  torch_write.write(path, whole)
  table = moee_rules(model) if moee else rules(model)
  return rules_lib.report(table, state, rules_lib.flatten(variables))


def optimizer_slots(
  checkpoint: Mapping, model: CollaborativeExperts
) -> dict[str, dict]:
  """Per-parameter state of upstream's optimiser, as trees like `params`.

  Args:
    checkpoint: the whole dict of a `.pth` file.
    model: its model.

  Returns:
    {slot: tree}, e.g. `exp_avg`, `exp_avg_sq`, `slow_buffer` and `step`; empty
    where the file holds no optimiser. Parameters that were never updated have
    no entry.

  Raises:
    rules.CheckpointMismatch: another number of parameters.
  """
  return torch_optimizer.slots(checkpoint.get('optimizer'), rules(model))
