# SPDX-License-Identifier: Apache-2.0
"""States of PyTorch's optimisers as trees like our parameters, and back.

PyTorch numbers parameters in the order in which a model registers them, which
is the order of the trainable keys of a table.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.rules import CheckpointMismatch, Rule


def slots(optimizer: Mapping | None, rules: Sequence[Rule]) -> dict[str, dict]:
  """Reads a state dict of an optimiser.

  Args:
    optimizer: {'state', 'param_groups'}; None or empty: there is none.
    rules: the table of the model.

  Returns:
    {slot: tree}, e.g. `exp_avg`, `exp_avg_sq` and `step`; empty where there is
    no optimiser. Parameters that were never updated have no entry.

  Raises:
    CheckpointMismatch: another number of parameters, or no such state dict.
  """
  if not optimizer:
    return {}
  trainable = _trainable(rules)
  try:
    order = [i for g in optimizer['param_groups'] for i in g['params']]
    states = {i: dict(optimizer['state'].get(i, {})) for i in order}
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    raise CheckpointMismatch(
      "the optimiser is no {'state', 'param_groups'} of PyTorch."
    ) from error
  if len(order) != len(trainable):
    raise CheckpointMismatch(
      f'the optimiser holds {len(order)} parameters, the model '
      f'{len(trainable)}.'
    )
  found = {}
  for index, rule in zip(order, trainable):
    for slot, value in states[index].items():
      value = np.asarray(value)
      if value.ndim:
        value = rule.form.to_flax(value)
      leaf = rule.leaf.removeprefix('params/')
      found.setdefault(slot, {})[leaf] = value
  return {slot: rules_lib.unflatten(flat) for slot, flat in found.items()}


def state(
  slots: Mapping[str, Mapping],
  rules: Sequence[Rule],
  group: Mapping[str, Any],
) -> dict[str, Any]:
  """What `slots` has read, as a state dict of one group of parameters.

  Args:
    slots: {slot: tree}; a parameter without an entry has no state.
    rules: the table of the model.
    group: settings of the optimiser, e.g. lr, betas, eps, weight_decay.
  """
  flat = {slot: rules_lib.flatten(tree) for slot, tree in slots.items()}
  states = {}
  for index, rule in enumerate(_trainable(rules)):
    leaf = rule.leaf.removeprefix('params/')
    for slot, values in flat.items():
      if leaf in values:
        value = np.asarray(values[leaf])
        if value.ndim:
          value = np.array(rule.form.to_torch(value), order='C')
        states.setdefault(index, {})[slot] = value
  numbers = list(range(len(_trainable(rules))))
  return dict(state=states, param_groups=[dict(group, params=numbers)])


def _trainable(rules):
  return [r for r in rules if r.leaf.startswith('params/')]
