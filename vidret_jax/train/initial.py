# SPDX-License-Identifier: Apache-2.0
"""Weights to start from: of files, of another run, or drawn.

`init.torch` is a file of the original authors, for the model or most of it;
`init.parts` are files of single parts, such as frozen networks that others
publish. The converter of the system says which parts there are (`PARTS`) and
reads them (`load_part`).
"""

from collections.abc import Mapping
import dataclasses
import os
import sys
from typing import Any

from absl import logging
import flax
import jax
import numpy as np

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.train import ckpt
from vidret_jax.train import state as state_lib


def files(init: Mapping[str, Any]) -> dict[str, str]:
  """The files that a config starts from: {'init.torch': path, ...}."""
  parts = {f'init.parts.{name}': p for name, p in init['parts'].items()}
  return {k: p for k, p in {'init.torch': init['torch'], **parts}.items() if p}


def check(init: Mapping[str, Any]) -> None:
  """Raises FileNotFoundError where a file to start from is absent."""
  _there(files(init))


def check_parts(config, target) -> None:
  """Raises ConfigError where a part of the model waits for its file.

  `init.parts` has None for a file that has to be named, and '' for a part that
  is to be drawn: a frozen network of random weights is seldom meant.

  Args:
    config: resolved.
    target: variables of its model, may be abstract.
  """
  init = config.init
  waiting = [name for name, file in init.parts.items() if file is None]
  if init.run or not waiting:
    return
  names = state_lib.describe(target)
  if notes := _parts_without_file(config, names, waiting):
    raise cl.ConfigError(
      'no weights for a part of the model (docs/converting.md says where they '
      'are published; an empty name draws it):\n  ' + '\n  '.join(notes)
    )


def _there(named):
  for key, path in named.items():
    if not os.path.exists(path):
      raise FileNotFoundError(
        f'{key}={path!r}: no such file. Put it there (docs/converting.md says '
        f'where it is published), or name another with --config.{key}=FILE.'
      )


def fresh(config, model, target, draw, whole=False):
  """Variables of a run that starts: `init.parts`, then init.run, init.torch.

  Args:
    config: resolved.
    model: its model.
    target: abstract variables with shardings.
    draw: target -> variables from the seed.
    whole: raise where `init.torch` and the parts are not all of the variables;
      otherwise the rest is drawn, as it would be without the files.

  Returns:
    (variables, where they come from, names of those that were not drawn).
  """
  init = config.init
  if init.run:
    given, _ = convert(config, model, parts_only=True)
    variables, about = _from_run(init.run, given or {}, target)
    return variables, about, frozenset(state_lib.describe(target))
  given, report = convert(config, model)
  if given is None:
    want = state_lib.describe(target)
    for note in _parts_without_file(config, want):
      logging.warning('%s; it is drawn', note)
    return draw(target), f'seed {config.seed}', frozenset()
  about = ', '.join(files(init).values())
  want = state_lib.describe(target)
  if not init.torch:
    drawn = tuple(leaf for leaf in want if leaf not in given)
    report = _noted(dataclasses.replace(report, drawn=drawn), config)
  if whole:
    report.check_whole(about)
  _check(given, {k: v for k, v in want.items() if k not in report.drawn}, about)
  if report.drawn or report.unused:
    left = (*report.ignored, *report.unused)
    logging.warning(
      '%s fits in part:\n  taken (%d): %s\n  DRAWN from seed %d (%d): %s\n'
      '  ignored (%d): %s%s',
      *(about, len(given), ', '.join(given)),
      *(config.seed, len(report.drawn), ', '.join(report.drawn)),
      *(len(left), ', '.join(left)),
      ''.join(f'\n  {note}' for note in report.notes),
    )
    about = f'{about} ({len(given)} of {len(want)} arrays)'
  start = draw(target) if report.drawn else target
  return overlaid(start, given), about, frozenset(given)


def _from_run(folder, given, target):
  """Variables of another run, but for `given`, which it need not have."""
  there = flax.traverse_util.flatten_dict(ckpt.abstract(folder), sep='/')
  want = flax.traverse_util.flatten_dict(target, sep='/')
  _check(
    given,
    {k: v for k, v in state_lib.describe(target).items() if k in given},
    'init.parts',
  )
  asked = {k: v for k, v in want.items() if k in there or k not in given}
  variables, step = ckpt.load_variables(
    folder, flax.traverse_util.unflatten_dict(asked, sep='/')
  )
  about = f'step {step} of {folder}'
  if not given:
    return variables, about
  flat = flax.traverse_util.flatten_dict(variables, sep='/')
  start = flax.traverse_util.unflatten_dict({**want, **flat}, sep='/')
  return overlaid(start, given), f'{about}, {len(given)} arrays of init.parts'


def _noted(report, config):
  notes = _parts_without_file(config, report.drawn)
  return dataclasses.replace(report, notes=(*report.notes, *notes))


def parts(system: str) -> Mapping[str, str]:
  """Parts of a system that have a file of their own: {name: place}."""
  try:
    load = cl.find('convert', system, 'load')
  except cl.ConfigError:
    return {}  # A system of the user's own may have no converter.
  return getattr(sys.modules[load.__module__], 'PARTS', {})


def _parts_without_file(config, drawn, names=None):
  """Notes about parts with a file of their own that none was named for."""
  return [
    f'{place} comes from a file of its own: --config.init.parts.{name}=FILE'
    for name, place in parts(config.system).items()
    if not config.init.fit.get(name)
    and (names is None or name in names)
    and any(leaf.startswith(f'{place}/') for leaf in drawn)
  ]


def _check(given, want, about):
  have = {k: [list(x.shape), str(x.dtype)] for k, x in given.items()}
  state_lib.check_same(have, want, about)


def overlaid(start, given):
  """Arrays of files in place of those with the same path, on the devices."""

  def place(at, t):
    if (x := given.get(sharding.path_name(at))) is None:
      return t
    # Every process reads the file and gives its devices their part.
    return jax.make_array_from_callback(
      t.shape, t.sharding, lambda index: np.asarray(x)[index]
    )

  return jax.tree_util.tree_map_with_path(place, start)


def convert(config, model, path=None, *, parts_only=False):
  """Reads the files that a config starts from.

  Args:
    config: resolved.
    model: its model.
    path: in place of `init.torch`.
    parts_only: `init.parts` without `init.torch`.

  Returns:
    ({path: array} on the host, a Report of all files); (None, None) where
    there are no files.

  Raises:
    ConfigError: the system has no such parts, or two files the same arrays.
    FileNotFoundError, ValueError: a file is absent, or does not fit.
  """
  named, reports, flat = files(config.init), [], {}
  if parts_only or path is not None:
    named.pop('init.torch', None)
  _there(named)
  if path is not None:
    named = {'init.torch': os.fspath(path), **named}
  for key, file in named.items():
    if key == 'init.torch':
      load = cl.find('convert', config.system, 'load')
      found, report = load(file, model)
    else:
      load = cl.find('convert', config.system, 'load_part')
      found, report = load(key.rpartition('.')[2], file, model)
    logging.info('converted %s:\n%s', file, report.table())
    leaves = flax.traverse_util.flatten_dict(found, sep='/')
    if both := sorted(set(leaves) & set(flat)):
      raise cl.ConfigError(
        f'{key}={file!r} has {both[0]} and {len(both) - 1} more arrays that '
        'another file has, too: name one of them'
      )
    flat.update(leaves)
    reports.append(report)
  if not reports:
    return None, None
  return flat, _noted(_joined(reports, flat), config)


def _joined(reports, flat):
  """One Report of several; what one file lacks another may have."""
  first, *rest = reports
  lists = ('rows', 'ignored', 'filled', 'notes', 'drawn', 'unused')
  for other in rest:
    both = {k: (*getattr(first, k), *getattr(other, k)) for k in lists}
    parameters = first.parameters + other.parameters
    first = dataclasses.replace(first, **both, parameters=parameters)
  drawn = tuple(leaf for leaf in first.drawn if leaf not in flat)
  return dataclasses.replace(first, drawn=drawn)
