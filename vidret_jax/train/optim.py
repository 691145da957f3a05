# SPDX-License-Identifier: Apache-2.0
"""Optimisers from a config: ports of the originals' own, or any of optax.

`c.optim = dict(name='ranger', lr=0.1, wd=1e-3)` takes `ranger`, `radam` and
`adam` as the original systems wrote them (`optimizers.py`), and every other
name from optax (`adamw`, `sgd`, `lion`, ...), with the keys of that function.

`c.schedule` is a list of (regex, schedule): the first regex that matches the
whole name of a tensor ('text_unit_audio/fc/kernel') decides. None freezes: no
update, no decay, no optimiser state. `c.optim.wd_mults` is a list of
(regex, factor on the weight decay) of the same kind.
"""

from collections.abc import Callable, Mapping, Sequence
import inspect
import re
from typing import Any

import jax
import optax

from vidret_jax import config_lib, sharding
from vidret_jax.train import optimizers, schedules

_PORTS = ('ranger', 'radam', 'adam')
_FROZEN = 'frozen'
# Short names of the config -> names of the arguments.
_RENAMED = {'wd': 'weight_decay'}


def make(
  optim: Mapping[str, Any],
  schedule: Sequence[tuple[str, Mapping[str, Any] | None]],
  *,
  params: Any,
  steps_per_epoch: int,
  total_steps: int,
) -> tuple[optax.GradientTransformation, Callable[..., dict[str, jax.Array]]]:
  """Builds the optimiser of a run.

  Args:
    optim: dict(name=, lr=, [wd=, wd_mults=,] and what that optimiser takes).
    schedule: ((regex, dict(decay=...) or None), ...).
    params: tree of parameters or of their shapes.
    steps_per_epoch: updates per pass over the training set.
    total_steps: updates of the run.

  Returns:
    (transformation, function step -> {name: learning rate}); the name is ''
    if there is one rate, else the place of its rule in `schedule`.

  Raises:
    ConfigError: a tensor no rule covers, a rule that covers none, an unknown
      optimiser or key.
  """
  optim = dict(optim.items())
  name, lr = _take(optim, 'name'), _take(optim, 'lr')
  mults = optim.pop('wd_mults', (('.*', 1.0),))
  factory = _find(name)
  kwargs = {_RENAMED.get(k, k): v for k, v in optim.items()}
  allowed = list(inspect.signature(factory).parameters)
  allowed.remove('learning_rate')
  config_lib.check_keys(
    kwargs, allowed, f'optim of name={name!r} (wd is weight_decay)'
  )
  leaves = jax.tree_util.tree_leaves_with_path(params)
  names = [sharding.path_name(path) for path, _ in leaves]
  rules = _first_match(names, [r for r, _ in schedule], 'schedule')
  decays = _first_match(names, [r for r, _ in mults], 'optim.wd_mults')
  rates = {
    i: schedules.make(
      spec, lr, steps_per_epoch=steps_per_epoch, total_steps=total_steps
    )
    for i, (_, spec) in enumerate(schedule)
    if spec is not None and i in rules
  }
  if not rates:
    raise config_lib.ConfigError('schedule: every tensor is frozen')

  groups, labels = {_FROZEN: optax.set_to_zero()}, []
  for rule, decay in zip(rules, decays):
    label = f'{rule}_{decay}' if rule in rates else _FROZEN
    labels.append(label)
    if label not in groups:
      mine = dict(kwargs)
      if 'weight_decay' in kwargs:
        mine['weight_decay'] = kwargs['weight_decay'] * mults[decay][1]
      groups[label] = factory(learning_rate=rates[rule], **mine)
  labels = jax.tree.unflatten(jax.tree.structure(params), labels)

  def lr_fn(step):
    found = {str(i): rate(step) for i, rate in rates.items()}
    return found if len(found) > 1 else {'': found.popitem()[1]}

  return optax.partition(groups, labels), lr_fn


def _take(optim, key):
  if key not in optim:
    raise config_lib.ConfigError(f'optim lacks {key!r}')
  return optim.pop(key)


def _find(name):
  """The function that makes an optimiser of this name."""
  if name in _PORTS:
    return getattr(optimizers, name)
  factory = getattr(optax, str(name), None)
  try:
    found = 'learning_rate' in inspect.signature(factory).parameters
  except TypeError:
    found = False
  if not found:
    raise config_lib.ConfigError(
      f'optim.name={name!r}: expected {", ".join(_PORTS)} or an optimiser of '
      'optax, such as adamw, sgd, lion'
    )
  return factory


def _first_match(names, regexes, where):
  """The index of the first regex that matches each name, whole.

  Raises:
    ConfigError: a name without a regex, or a regex (other than '.*') that
      matches no name: it would be a misspelling without an effect.
  """
  for regex in regexes:
    if regex != '.*' and not any(re.fullmatch(regex, n) for n in names):
      raise config_lib.ConfigError(
        f'{where}: {regex!r} matches no tensor; there are {len(names)}, the '
        f'first are {", ".join(names[:8])}'
      )
  out = []
  for name in names:
    found = [i for i, r in enumerate(regexes) if re.fullmatch(r, name)]
    if not found:
      raise config_lib.ConfigError(
        f"{where}: no rule covers {name!r}; end the rules with ('.*', ...)"
      )
    out.append(found[0])
  return out
