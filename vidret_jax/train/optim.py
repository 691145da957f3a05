# SPDX-License-Identifier: Apache-2.0
"""Optimisers from a config: ports of the originals' own, or any of optax.

`c.optim = dict(name='ranger', lr=0.1, wd=1e-3)` takes `ranger`, `radam` and
`adam` (`optimizers.py`) and `bert_adam` (`bert_adam.py`) as the original
systems wrote them, and every other name from optax (`adamw`, `sgd`, `lion`,
...), with the keys of that function.

`c.schedule` is a list of (regex, schedule): the first regex that matches the
whole name of a tensor ('text_unit_audio/fc/kernel') decides. None freezes: no
gradient, no update, no decay, no optimiser state.

More keys of `c.optim`, all optional; regexes are matched in the same way, and
one that matches no tensor is an error:

  wd_mults    [(regex, factor on the weight decay)]; must cover every tensor
  grad_mults  [(regex, factor on the gradient)]; for instance 1 / ranks where
              the original averages gradients that it should add up
  clip_norm   largest norm of all gradients together, as in
              torch.nn.utils.clip_grad_norm_; frozen tensors do not count
  half        [regex] of tensors that the optimiser treats as float16; only
              with name='bert_adam'
  limits      [(regex, low, high)] of values of parameters, kept after every
              update; None: no limit on that side

They act in this order: factors, clip, optimiser, limits. None of them keeps a
state of its own.
"""

from collections.abc import Callable, Mapping, Sequence
import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vidret_jax import config_lib, sharding
from vidret_jax.train import bert_adam, optimizers, schedules

_PORTS = {
  'ranger': optimizers.ranger,
  'radam': optimizers.radam,
  'adam': optimizers.adam,
  'bert_adam': bert_adam.bert_adam,
}
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
    optim: dict(name=, lr=, the keys above, and what that optimiser takes).
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
  mults = optim.pop('wd_mults', None) or (('.*', 1.0),)
  clip_norm = optim.pop('clip_norm', None)
  grad_mults = optim.pop('grad_mults', None) or ()
  half = optim.pop('half', None) or ()
  limits = optim.pop('limits', None) or ()
  factory = _find(name)
  kwargs = {_RENAMED.get(k, k): v for k, v in optim.items()}
  allowed = list(inspect.signature(factory).parameters)
  allowed.remove('learning_rate')
  config_lib.check_keys(
    kwargs, allowed, f'optim of name={name!r} (wd is weight_decay)'
  )
  names = _names(params)
  rules = _first_match(names, [r for r, _ in schedule], 'schedule')
  decays = _first_match(names, [r for r, _ in mults], 'optim.wd_mults')
  halves = _first_match(names, half, 'optim.half', partial=True)
  if half and 'half' not in allowed:
    raise config_lib.ConfigError(
      f"optim.half: only name='bert_adam' takes it, not name={name!r}"
    )
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
  for rule, decay, as_half in zip(rules, decays, halves):
    label = f'{rule}_{decay}' if rule in rates else _FROZEN
    if as_half is not None and rule in rates:
      label += '_half'
    labels.append(label)
    if label not in groups:
      mine = dict(kwargs)
      if 'weight_decay' in kwargs:
        mine['weight_decay'] = kwargs['weight_decay'] * mults[decay][1]
      if as_half is not None:
        mine['half'] = True
      groups[label] = factory(learning_rate=rates[rule], **mine)
  labels = jax.tree.unflatten(jax.tree.structure(params), labels)
  tx = _around(
    optax.partition(groups, labels),
    names,
    [rule in rates for rule in rules],
    grad_mults,
    clip_norm,
    limits,
  )

  def lr_fn(step):
    found = {str(i): rate(step) for i, rate in rates.items()}
    return found if len(found) > 1 else {'': found.popitem()[1]}

  return tx, lr_fn


def trained(
  schedule: Sequence[tuple[str, Mapping[str, Any] | None]], params: Any
) -> Any:
  """Which tensors a schedule does not freeze: the tree of booleans.

  Args:
    schedule: ((regex, dict(decay=...) or None), ...).
    params: tree of parameters or of their shapes.
  """
  rules = _first_match(_names(params), [r for r, _ in schedule], 'schedule')
  found = [schedule[i][1] is not None for i in rules]
  return jax.tree.unflatten(jax.tree.structure(params), found)


def _around(tx, names, trained, grad_mults, clip_norm, limits):
  """Adds what happens before and after `tx`; the state stays that of `tx`.

  Args:
    tx: the transformation.
    names: of the tensors, in the order of the leaves.
    trained: whether each is trained.
    grad_mults: ((regex, factor), ...).
    clip_norm: number or None.
    limits: ((regex, low, high), ...).
  """
  regexes = [r for r, _ in grad_mults]
  scaled = _first_match(names, regexes, 'optim.grad_mults', partial=True)
  regexes = [r for r, *_ in limits]
  limited = _first_match(names, regexes, 'optim.limits', partial=True)
  limited = [i if t else None for i, t in zip(limited, trained)]
  for regex, low, high in limits:
    if low is not None and high is not None and low > high:
      raise config_lib.ConfigError(
        f'optim.limits: {regex!r} has low={low!r} above high={high!r}'
      )
  if clip_norm is not None and not clip_norm > 0:
    raise config_lib.ConfigError(
      f'optim.clip_norm={clip_norm!r}: expected a number above 0, or None'
    )
  if not (grad_mults or clip_norm or limits):
    return tx

  def update(grads, state, params):
    leaves, tree = jax.tree.flatten(grads)
    leaves = [
      g if i is None else g * grad_mults[i][1] for g, i in zip(leaves, scaled)
    ]
    if clip_norm is not None:
      squares = [
        jnp.sum(jnp.square(g.astype(jnp.float32)))
        for g, t in zip(leaves, trained)
        if t
      ]
      # The small number is that of clip_grad_norm_.
      factor = clip_norm / (jnp.sqrt(sum(squares)) + 1e-6)
      factor = jnp.minimum(factor, 1.0)
      leaves = [(g * factor).astype(g.dtype) for g in leaves]
    grads = jax.tree.unflatten(tree, leaves)
    updates, state = tx.update(grads, state, params)
    if not limits:
      return updates, state
    leaves = [
      u if i is None else jnp.clip(p + u, *limits[i][1:]) - p
      for u, p, i in zip(
        jax.tree.leaves(updates), jax.tree.leaves(params), limited
      )
    ]
    return jax.tree.unflatten(tree, leaves), state

  return optax.GradientTransformation(tx.init, update)


def _names(params):
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return [sharding.path_name(path) for path, _ in leaves]


def _take(optim, key):
  if key not in optim:
    raise config_lib.ConfigError(f'optim lacks {key!r}')
  return optim.pop(key)


def _find(name):
  """The function that makes an optimiser of this name."""
  if name in _PORTS:
    return _PORTS[name]
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


def _first_match(names, regexes, where, partial=False):
  """The index of the first regex that matches each name, whole.

  Args:
    names: of the tensors.
    regexes: in order.
    where: key of the config, for messages.
    partial: whether names may be left over; they get None.

  Raises:
    ConfigError: a name left over, or a regex (other than '.*') that
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
    if not found and not partial:
      raise config_lib.ConfigError(
        f"{where}: no rule covers {name!r}; end the rules with ('.*', ...)"
      )
    out.append(found[0] if found else None)
  return out
