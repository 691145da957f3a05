# SPDX-License-Identifier: Apache-2.0
"""Tables that pair checkpoint keys with Flax leaves, run in both directions.

A table is an ordered tuple of `Rule`s, one per array of the upstream
checkpoint, in the order in which upstream stores them. Nothing is guessed: a
conversion succeeds when every key and every leaf is accounted for with the
expected shape, and otherwise one error lists all that is not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import re

import numpy as np

Shape = tuple[int, ...]
_ADVICE = (
  'Take the config that belongs to the checkpoint (upstream writes config.json '
  'beside it), or set model.* to its widths.'
)


class CheckpointMismatch(ValueError):
  """The checkpoint was written by another architecture, or configuration."""


def _same(x: np.ndarray) -> np.ndarray:
  return x


def _transpose(x: np.ndarray) -> np.ndarray:
  return x.T


def _drop_lead(x: np.ndarray) -> np.ndarray:
  return x[0] if x.shape[:1] == (1,) else x


def _add_lead(x: np.ndarray) -> np.ndarray:
  return x[None]


@dataclasses.dataclass(frozen=True)
class Form:
  """How an array looks on either side."""

  name: str
  to_flax: Callable[[np.ndarray], np.ndarray]
  to_torch: Callable[[np.ndarray], np.ndarray]


SAME = Form('same', _same, _same)
# torch.nn.Linear stores (out, in), Flax kernels are (in, out).
KERNEL = Form('transposed', _transpose, _transpose)
LEADING_ONE = Form('squeezed', _drop_lead, _add_lead)


@dataclasses.dataclass(frozen=True)
class Rule:
  """One array: `key` upstream, `leaf` here ('params/a/b/kernel').

  Attributes:
    key: state-dict key.
    leaf: path of the Flax leaf, collection first.
    form: conversion of the values.
    optional: the key may be absent from a file; the leaf is then zero.
  """

  key: str
  leaf: str
  form: Form = SAME
  optional: bool = False


def linear(key: str, leaf: str) -> list[Rule]:
  """torch.nn.Linear <-> layers.linear.Linear."""
  return [
    Rule(f'{key}.weight', f'params/{leaf}/kernel', KERNEL),
    Rule(f'{key}.bias', f'params/{leaf}/bias'),
  ]


def batch_norm(key: str, leaf: str) -> list[Rule]:
  """torch.nn.BatchNorm1d <-> layers.norm.BatchNorm."""
  return [
    Rule(f'{key}.weight', f'params/{leaf}/scale'),
    Rule(f'{key}.bias', f'params/{leaf}/bias'),
    Rule(f'{key}.running_mean', f'batch_stats/{leaf}/mean'),
    Rule(f'{key}.running_var', f'batch_stats/{leaf}/var'),
    # Files from before PyTorch 0.4.1 do not count batches.
    Rule(
      f'{key}.num_batches_tracked', f'batch_stats/{leaf}/count', optional=True
    ),
  ]


def flatten(tree: Mapping, prefix: str = '') -> dict:
  """{'a/b': leaf} from a nested mapping."""
  flat = {}
  for key, value in tree.items():
    path = f'{prefix}{key}'
    if isinstance(value, Mapping):
      flat.update(flatten(value, f'{path}/'))
    else:
      flat[path] = value
  return flat


def unflatten(flat: Mapping) -> dict:
  tree = {}
  for path, value in flat.items():
    *parents, name = path.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = value
  return tree


@dataclasses.dataclass(frozen=True)
class Report:
  """What a conversion did with every key.

  Attributes:
    rows: (key, shape, leaf, shape, form) per converted array.
    ignored: keys left out on purpose.
    filled: leaves set to zero because an optional key was absent.
    parameters: number of trainable values.
    notes: differences that no shape shows.
    drawn: leaves that the file lacks and that training draws.
    unused: keys that the model has no place for.
  """

  rows: tuple[tuple[str, Shape, str, Shape, str], ...]
  ignored: tuple[str, ...]
  filled: tuple[str, ...]
  parameters: int
  notes: tuple[str, ...] = ()
  drawn: tuple[str, ...] = ()
  unused: tuple[str, ...] = ()

  def check_whole(self, source: str) -> None:
    """Raises CheckpointMismatch if the file and the model only overlap."""
    if self.drawn or self.unused:
      raise CheckpointMismatch(
        f'{source}: a part of a checkpoint, or one of another configuration\n'
        + _listing('leaves that the file lacks', self.drawn)
        + _listing('keys of the file the model has no use for', self.unused)
        + ''.join(f'{note}\n' for note in self.notes)
        + 'Training can start from it (init.torch): what it lacks is drawn.'
      )

  def table(self) -> str:
    """The coverage table as text."""
    cells = [('checkpoint key', 'shape', 'leaf', 'shape', 'values')]
    cells += [(k, str(s), p, str(t), f) for k, s, p, t, f in self.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    lines = [
      '  '.join(c.ljust(w) for c, w in zip(row, widths)).rstrip()
      for row in cells
    ]
    lines += [f'{key}  ignored' for key in self.ignored]
    lines += [f'{key}  ignored, no place in the model' for key in self.unused]
    lines += [f'{leaf}  absent from the file: zero' for leaf in self.filled]
    lines += [f'{leaf}  absent from the file: drawn' for leaf in self.drawn]
    lines.append(
      f'{len(self.rows)} arrays converted, '
      f'{len(self.ignored) + len(self.unused)} ignored, '
      f'{len(self.filled)} filled, {len(self.drawn)} drawn; '
      f'{self.parameters:,} trainable parameters'
    )
    lines += [f'WARNING: {note}' for note in self.notes]
    return '\n'.join(lines)


def strip_module(state: Mapping) -> dict:
  """Removes the prefix that torch.nn.DataParallel puts before every key."""
  if state and all(k.startswith('module.') for k in state):
    return {k.removeprefix('module.'): v for k, v in state.items()}
  return dict(state)


def to_flax(
  state: Mapping[str, np.ndarray],
  rules: Sequence[Rule],
  expected: Mapping,
  *,
  ignore: Iterable[str] = (),
  source: str = 'checkpoint',
  advice: str = '',
) -> tuple[dict, Report]:
  """Converts a state dict to Flax variables.

  Args:
    state: arrays by upstream key.
    rules: the table.
    expected: tree of arrays or ShapeDtypeStructs: the model's variables.
    ignore: regular expressions of keys to leave out.
    source: file name, for messages.
    advice: what to do about a mismatch, in place of the usual text.

  Returns:
    The variables, of the expected dtypes, and a report.

  Raises:
    CheckpointMismatch: any key or leaf missing, left over or mis-shaped.
  """
  state = strip_module(state)
  ignored = tuple(k for k in state if any(re.match(p, k) for p in ignore))
  shapes = flatten(expected)
  check_table(rules, shapes)
  known = {r.key for r in rules}
  extra = [k for k in state if k not in known and k not in ignored]
  missing, wrong, out, filled = [], [], {}, []
  for rule in rules:
    want = shapes[rule.leaf]
    if rule.key not in state:
      if rule.optional:
        out[rule.leaf] = np.zeros(want.shape, want.dtype)
        filled.append(rule.leaf)
      else:
        missing.append(rule.key)
      continue
    value = np.asarray(state[rule.key])
    array = rule.form.to_flax(value)
    if tuple(array.shape) != tuple(want.shape):
      found = rule.form.to_torch(np.empty(want.shape, np.bool_)).shape
      wrong.append(f'{rule.key} {tuple(value.shape)}, model {tuple(found)}')
      continue
    out[rule.leaf] = np.array(array, want.dtype, order='C')
  if missing or extra or wrong:
    raise CheckpointMismatch(
      mismatch(source, missing, extra, wrong, advice or _ADVICE)
    )
  return unflatten(out), report(rules, state, out, ignored, filled)


def report(
  rules: Sequence[Rule],
  state: Mapping,
  leaves: Mapping,
  ignored: Iterable[str] = (),
  filled: Iterable[str] = (),
) -> Report:
  """What the table did, for arrays by key and leaves by path."""
  rows = [
    (
      r.key,
      tuple(state[r.key].shape),
      r.leaf,
      tuple(leaves[r.leaf].shape),
      r.form.name,
    )
    for r in rules
    if r.leaf not in filled
  ]
  parameters = sum(x.size for k, x in leaves.items() if k.startswith('params/'))
  return Report(tuple(rows), tuple(ignored), tuple(filled), parameters)


def to_torch(
  variables: Mapping, rules: Sequence[Rule]
) -> dict[str, np.ndarray]:
  """Converts Flax variables to a state dict, in upstream's order.

  Raises:
    CheckpointMismatch: the variables are not those of the table's model.
  """
  flat = flatten(variables)
  check_table(rules, flat)
  state = {}
  for rule in rules:
    value = np.asarray(flat[rule.leaf])
    # Upstream counts batches in int64.
    if rule.leaf.startswith('batch_stats/') and value.dtype == np.int32:
      value = value.astype(np.int64)
    state[rule.key] = np.array(rule.form.to_torch(value), order='C')
  return state


def check_table(rules: Sequence[Rule], leaves: Mapping) -> None:
  """Raises unless the table's leaves and the model's are the same set."""
  table = [r.leaf for r in rules]
  missing = sorted(set(table) - set(leaves))
  extra = sorted(set(leaves) - set(table))
  if missing or extra or len(set(table)) != len(table):
    raise CheckpointMismatch(
      'the variables are not those of this model:\n'
      + _listing('leaves missing', missing)
      + _listing('leaves without a rule', extra)
    )


def mismatch(
  source: str,
  missing: Sequence[str],
  extra: Sequence[str],
  wrong: Sequence[str],
  advice: str = _ADVICE,
) -> str:
  """What is wrong with a checkpoint, by kind, and what to do."""
  return (
    f'{source}: checkpoint of another architecture or configuration\n'
    + _listing('keys the model needs and the file lacks', missing)
    + _listing('keys of the file the model has no use for', extra)
    + _listing('shapes that differ (file, model)', wrong)
    + advice
  )


def _listing(title, items, limit=12):
  if not items:
    return ''
  lines = [f'  {item}' for item in items[:limit]]
  if len(items) > limit:
    lines.append(f'  ... and {len(items) - limit} more')
  return '\n'.join([f'{title} ({len(items)}):', *lines, ''])
