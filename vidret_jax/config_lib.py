# SPDX-License-Identifier: Apache-2.0
"""Config files: reading, overriding, checking, freezing, saving.

A config is a Python file with `get_config(arg=None)` that returns an
`ml_collections.ConfigDict`. `FILE:key=value,...` picks the structure (it is
parsed by `parse_arg` before the config exists), `--config.key=value` changes
one value afterwards. This module imports nothing of ours, so that a config
file, which imports only this module, loads in a moment.
"""

import ast
import copy
import difflib
import importlib
import importlib.util
import json
import os
import pkgutil
import types

import ml_collections as mlc

_UNITS = ('steps', 'epochs', 'examples', 'percent')


class ConfigError(ValueError):
  """A config, or a change to one, that cannot be run as written."""


# ------------------------------------------------------------------ arguments


def parse_arg(arg, **defaults):
  """Parses the text after the colon of `FILE:arg`.

  Args:
    arg: `'split=full,seed=1,runlocal'`, '' or None. A bare name means True.
    **defaults: every name that is allowed; the type of the default is the
      type of the value (None: a string).

  Returns:
    A namespace with one attribute per default.

  Raises:
    ConfigError: for an unknown name, a doubled one or a bad value.
  """
  out, seen = dict(defaults), set()
  for item in filter(None, (s.strip() for s in (arg or '').split(','))):
    name, eq, text = item.partition('=')
    if name not in defaults:
      raise ConfigError(
        f'unknown config argument {name!r}{_near(name, defaults)}; '
        f'this config takes: {", ".join(defaults) or "none"}'
      )
    if name in seen:
      raise ConfigError(f'config argument {name!r} is given twice')
    seen.add(name)
    out[name] = _typed(name, text if eq else 'true', defaults[name])
  return types.SimpleNamespace(**out)


def _typed(name, text, like):
  """Converts `text` to the type of `like`; None accepts any literal."""
  try:
    if isinstance(like, bool):
      return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
    if isinstance(like, int):
      return int(text)
    if isinstance(like, float):
      return float(text)
    if isinstance(like, str):
      return text
    if like is None:
      try:
        return ast.literal_eval(text)
      except (ValueError, SyntaxError):
        return text
    value = ast.literal_eval(text)
    if isinstance(like, (list, tuple)) and isinstance(value, (list, tuple)):
      return type(like)(value)
    if isinstance(value, type(like)):
      return value
  except (KeyError, ValueError, SyntaxError):
    pass
  raise ConfigError(
    f'{name}={text!r}: expected {type(like).__name__}, as in {like!r}'
  )


def _near(name, names):
  """' (did you mean ...?)' with the nearest of `names`, or ''."""
  near = difflib.get_close_matches(str(name), list(map(str, names)), 1, 0.5)
  return f' (did you mean {near[0]!r}?)' if near else ''


# -------------------------------------------------------------------- loading


def load_module(path):
  """Imports the Python file of a config (for `get_config` and `sweep`)."""
  if not os.path.isfile(path):
    folder = os.path.dirname(path) or '.'
    there = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    there = [f for f in there if f.endswith('.py')]
    raise FileNotFoundError(
      f'no config file {path}{_near(os.path.basename(path), there)}'
    )
  name = 'config_' + os.path.basename(path).removesuffix('.py')
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def load(spec, overrides=(), defaults=None):
  """Loads `FILE.py[:arg]`.

  Args:
    spec: path of the config file and, after a colon, its argument.
    overrides: `('key.subkey=value', ...)`, applied in order; each key must
      exist in the config or in `defaults`.
    defaults: nested dict of keys to add where the config is silent.

  Returns:
    The locked ConfigDict.
  """
  head, ext, arg = spec.partition('.py')
  module = load_module(head + ext)
  if not hasattr(module, 'get_config'):
    raise ConfigError(f'{head + ext} has no get_config(arg=None)')
  config = module.get_config(arg.removeprefix(':') or None)
  config = mlc.ConfigDict(config)
  with_defaults(config, defaults or {})
  for text in overrides:
    override(config, *text.split('=', 1))
  return config.lock()


def with_defaults(config, defaults):
  """Adds absent keys in place; returns the config, locked."""
  raw = untracked(config)
  with raw.unlocked():
    for key, value in defaults.items():
      if key not in raw:
        raw[key] = copy.deepcopy(value)
      elif isinstance(value, dict) and _is_mapping(raw[key]):
        with_defaults(raw[key], value)
  raw.lock()
  return config


def override(config, key, text=None):
  """Sets one dotted key from command-line text, keeping its type.

  `ml_collections.config_flags` does the same for flags but refuses keys whose
  value is None or a list, and ends in a stack trace for a misspelt key.
  """
  if text is None:
    raise ConfigError(f'--config.{key} has no value: write --config.{key}=...')
  node, parts = config, key.split('.')
  for i, part in enumerate(parts):
    if not _is_mapping(node) or part not in node:
      at = '.'.join(parts[:i]) or 'the config'
      names = list(node) if _is_mapping(node) else []
      raise ConfigError(
        f'unknown config key {key!r}{_near(part, names)}; {at} has: '
        f'{", ".join(sorted(map(str, names))) or "no keys"}'
      )
    if i < len(parts) - 1:
      node = node[part]
  old = node[parts[-1]]
  if _is_mapping(old):
    names = ', '.join(f'{key}.{k}' for k in old)
    raise ConfigError(f'{key!r} is a group; set one of: {names}')
  if parts[-1].endswith(('_epochs', '_percent')) and isinstance(old, int):
    old = float(old)  # half an epoch is a duration, too
  with node.ignore_type():
    node[parts[-1]] = _typed(key, text, old)


def find(kind, name, attribute):
  """Looks up `vidret_jax.<kind>.<name>.<attribute>`.

  A name with a dot is a module path of your own (`my_lab.models.new`), so a
  system can live outside this package.
  """
  package = importlib.import_module(f'vidret_jax.{kind}')
  names = [m.name for m in pkgutil.iter_modules(package.__path__)]
  if '.' not in name and name not in names:
    raise ConfigError(
      f'no {kind} module named {name!r}{_near(name, names)}; there are: '
      f'{", ".join(sorted(names))}'
    )
  path = name if '.' in name else f'vidret_jax.{kind}.{name}'
  module = importlib.import_module(path)
  if not hasattr(module, attribute):
    raise ConfigError(f'{path} has no {attribute!r}, which {kind} need')
  return getattr(module, attribute)


# ------------------------------------------------------------------- checking


def check_keys(node, allowed, where):
  """Raises for a key of `node` that is not in `allowed`."""
  for key in node:
    if key not in allowed:
      raise ConfigError(
        f'unknown key {key!r} in {where}{_near(key, allowed)}; known: '
        f'{", ".join(sorted(allowed))}'
      )


def duration_keys(prefix):
  """The four spellings of one duration: `log_steps`, `log_epochs`, ..."""
  return tuple(f'{prefix}_{unit}' for unit in _UNITS)


def steps(
  config, prefix, *, epoch=None, batch_size=None, total=None, default=None
):
  """Reads `<prefix>_steps|epochs|examples|percent` as a number of steps.

  Args:
    config: mapping that holds at most one of the four keys (None: absent).
    prefix: 'total', 'log', 'ckpt', ...
    epoch: steps per epoch, for `_epochs`.
    batch_size: global batch size, for `_examples` (rounded up).
    total: all steps of the run, for `_percent`.
    default: what to return when none is given; without it, that is an error.

  Returns:
    int, at least 1 unless the value is 0 (never).
  """
  names = duration_keys(prefix)
  given = [k for k in names if k in config and config[k] is not None]
  if len(given) > 1:
    raise ConfigError(f'give only one of {" and ".join(given)}')
  if not given:
    if default is not None:
      return default
    raise ConfigError(f'give one of {", ".join(names)}')
  key, value = given[0], config[given[0]]
  scale = dict(
    zip(names, (1, epoch, batch_size and 1 / batch_size, total and total / 100))
  )[key]
  if not isinstance(value, (int, float)) or value < 0:
    raise ConfigError(f'{key} must be a number of at least 0, not {value!r}')
  if scale is None:
    raise ConfigError(f'{key} has no meaning here; use {names[0]}')
  n = value * scale
  n = -int(-n // 1) if key.endswith('_examples') else int(round(n))
  return max(n, 1) if value else 0


# ------------------------------------------------- freezing, shrinking, files


def freeze(value):
  """Lists to tuples, dicts to FrozenDict: hashable module attributes."""
  from flax.core import FrozenDict  # keeps `import config_lib` light

  if _is_mapping(value):
    return FrozenDict({k: freeze(v) for k, v in value.items()})
  if isinstance(value, (list, tuple)):
    return tuple(freeze(v) for v in value)
  return value


def shrink(config, *, steps=2, batch_size=8, **values):
  """A copy that runs `steps` small steps; for tests and smoke runs.

  Args:
    config: a resolved config.
    steps: length of the run; logs, evaluations and checkpoints come then.
    batch_size: for training and for every `*_block` of an evaluation.
    **values: further changes by dotted name, `**{'model.dim': 32}`.
  """
  out = mlc.ConfigDict(untracked(config).to_dict()).unlock()
  for node, prefixes in (
    (out, ('total', 'log', 'ckpt')),
    *((e, ('log',)) for e in out.get('evals', {}).values()),
  ):
    for prefix in prefixes:
      given = [k for k in duration_keys(prefix) if k in node]
      for key in given:
        del node[key]
      if given or prefix == 'total':
        node[f'{prefix}_steps'] = steps
    for key in [k for k in node if k.endswith('_block')]:
      node[key] = batch_size
  out.input.batch_size = batch_size
  for key, value in values.items():
    *path, last = key.split('.')
    node = out
    for part in path:
      node = node[part]
    with node.ignore_type():
      node[last] = value
  return out.lock()


def to_dict(config):
  """The config as JSON has it: dicts, lists, numbers, strings, None."""
  return json.loads(json.dumps(untracked(config).to_dict(), sort_keys=True))


def save(config, path):
  """Writes the resolved config as JSON, in one atomic step."""
  with open(path + '.tmp', 'w') as f:
    json.dump(to_dict(config), f, indent=2, sort_keys=True)
  os.replace(path + '.tmp', path)


def load_json(path):
  """Reads a saved config, locked."""
  with open(path) as f:
    return mlc.ConfigDict(json.load(f)).lock()


def diff(old, new):
  """[(dotted key, old value, new value)] of two `to_dict` results."""
  if not (isinstance(old, dict) and isinstance(new, dict)):
    return [] if old == new else [('', old, new)]
  out = []
  for key in sorted({*old, *new}):
    pair = old.get(key, '(absent)'), new.get(key, '(absent)')
    out += [(f'{key}.{k}'.rstrip('.'), a, b) for k, a, b in diff(*pair)]
  return out


# ------------------------------------------------------------------- tracking


def _is_mapping(value):
  return hasattr(value, 'items') and hasattr(value, '__getitem__')


def untracked(config):
  """The ConfigDict behind a `track`ed config, or the config itself."""
  return config.__dict__['_node'] if isinstance(config, Tracked) else config


def track(config):
  """Wraps a config so that `unread()` tells which keys nobody asked for."""
  return Tracked(config, (), set())


class Tracked:
  """A read-only view of a config that remembers which values were read."""

  def __init__(self, node, path, reads):
    self.__dict__.update(_node=node, _path=path, _reads=reads)

  def __getitem__(self, key):
    value = self._node[key]
    self._reads.add((*self._path, key))
    if _is_mapping(value):
      return Tracked(value, (*self._path, key), self._reads)
    return value

  def __getattr__(self, key):
    if key.startswith('__'):
      raise AttributeError(key)
    return self[key] if key in self._node else getattr(self._node, key)

  def get(self, key, default=None):
    return self[key] if key in self._node else default

  def keys(self):
    return self._node.keys()

  def values(self):
    return [self[k] for k in self._node]

  def items(self):
    return [(k, self[k]) for k in self._node]

  def __iter__(self):
    return iter(self._node)

  def __len__(self):
    return len(self._node)

  def __contains__(self, key):
    return key in self._node

  def unread(self):
    """Dotted names of the leaves that were never read, sorted."""

    def leaves(node, path):
      for key, value in node.items():
        if _is_mapping(value):
          yield from leaves(value, (*path, key))
        elif (*path, key) not in self._reads:
          yield '.'.join(map(str, (*path, key)))

    return sorted(leaves(self._node, self._path))
