# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/architecture.md, read off the source with `ast`."""

import ast
import pathlib
import re
import subprocess
import sys
import warnings

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'vidret_jax'

# Layer -> what of ours it may import besides itself; None: everything.
LAYERS = {
  'ops': (),
  'metrics': (),
  'config_lib': (),
  'sharding': (),
  'layers': ('ops',),
  'losses': ('ops',),
  'models': ('layers', 'losses', 'ops'),
  'data': ('config_lib',),
  'search': ('models.base', 'ops', 'sharding', 'data.source', 'data.pipeline'),
  'evaluators': (
    *('models.base', 'search', 'metrics', 'ops', 'data', 'sharding'),
  ),
  'train': (
    *('ops', 'metrics', 'config_lib', 'sharding', 'layers', 'losses'),
    *('models', 'data', 'search', 'evaluators'),
  ),
  'convert': ('models', 'data.encoders'),
  'tools': None,
  'main': None,
}
TENSORFLOW = {'tensorflow', 'tensorflow_datasets', 'clu'}
SPEAKING = ('tools', 'main')  # The layers that may print.
# Works where TensorFlow, TFDS, clu and PyTorch are not installed.
WITHOUT_TENSORFLOW = (
  *('ops', 'layers', 'losses', 'models', 'metrics', 'search', 'convert'),
  *('evaluators', 'config_lib', 'sharding', 'data.source'),
)
FIRM_LIMIT = 400  # Lines; above 300 is a warning.


def modules():
  """{dotted name below vidret_jax: path} of every module there is."""
  found = {}
  for path in sorted(PACKAGE.rglob('*.py')):
    parts = list(path.relative_to(PACKAGE).with_suffix('').parts)
    if parts[-1] == '__init__':
      parts.pop()
    found['.'.join(parts)] = path
  return found


def imports(source, module=''):
  """Yields (dotted name, line, is it at the top level) of every import."""
  tree = ast.parse(source)
  inner = set()
  for node in ast.walk(tree):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
      inner.update(id(n) for n in ast.walk(node))
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ''
      if node.level:
        above = ['vidret_jax', *module.split('.')][: -node.level]
        base = '.'.join(above + ([base] if base else []))
      names = [f'{base}.{alias.name}' for alias in node.names]
    else:
      continue
    for name in names:
      yield name, node.lineno, id(node) not in inner


def import_violations(module, source):
  """What the imports of one module break, as a list of sentences."""
  layer = module.split('.')[0]
  allowed = LAYERS[layer]
  out = []
  for name, line, top in imports(source, module):
    where = f'vidret_jax.{module}:{line} imports {name}'
    first = name.split('.')[0]
    if first == 'configs':
      out.append(f'{where}: the package knows no config')
    if first in TENSORFLOW and not (
      layer == 'data' or module == 'train.writers'
    ):
      out.append(f'{where}: only data/ and train/writers.py may')
    if first == 'torch' and (layer not in ('convert', 'tools') or top):
      out.append(f'{where}: only inside functions of convert/')
    if layer == 'metrics' and first not in _plain('numpy'):
      out.append(f'{where}: metrics/ is numpy and the standard library')
    if layer == 'data' and first in ('jax', 'flax', 'optax'):
      out.append(f'{where}: data/ makes no JAX arrays')
    if first != 'vidret_jax' or name == 'vidret_jax':
      continue
    target = name.removeprefix('vidret_jax.')
    if _within(target, 'main'):
      out.append(f'{where}: nothing imports main')
    known = (layer, *(allowed or ()))
    if allowed is not None and not any(_within(target, k) for k in known):
      out.append(f'{where}: {layer} may import {", ".join(known)}')
  return out


def _plain(*extra):
  return {*sys.stdlib_module_names, 'vidret_jax', *extra}


def _within(target, name):
  return target == name or target.startswith(name + '.')


def call_violations(module, source):
  """Forbidden names and calls in one module."""
  layer = module.split('.')[0]
  program = "if __name__ == '__main__':" in source
  out = []
  for node in ast.walk(ast.parse(source)):
    where = f'vidret_jax.{module}:{getattr(node, "lineno", 0)}'
    if isinstance(node, ast.Call):
      name = ast.unparse(node.func)
      if name in ('pickle.load', 'pickle.loads', 'breakpoint'):
        out.append(f'{where}: {name}() (pickles: a restricted Unpickler)')
      if name == 'print' and layer not in SPEAKING and not program:
        out.append(f'{where}: print() in a module that is no program')
      for keyword in node.keywords:
        if keyword.arg == 'allow_pickle' and (
          getattr(keyword.value, 'value', True) is not False
        ):
          out.append(f'{where}: allow_pickle runs code of the file')
    elif isinstance(node, ast.Raise) and node.exc is not None:
      if 'NotImplementedError' in ast.unparse(node.exc):
        out.append(f'{where}: NotImplementedError')
    elif isinstance(node, (ast.Attribute, ast.Name)) and layer != 'sharding':
      name = ast.unparse(node)
      if re.fullmatch(r'(jax\.)?(pmap|make_mesh)|(.*\.)?PartitionSpec', name):
        out.append(f'{where}: {name} outside sharding.py')
  return out


def _broken(check):
  return [
    text
    for name, path in modules().items()
    if name and name.split('.')[0] in LAYERS
    for text in check(name, path.read_text())
  ]


def test_every_module_belongs_to_a_layer():
  layers = {name.split('.')[0] for name in modules()} - {''}
  assert layers <= set(LAYERS), sorted(layers - set(LAYERS))


def test_layers_import_downwards_only():
  broken = _broken(import_violations)
  assert not broken, '\n'.join(broken)


def test_forbidden_calls():
  broken = _broken(call_violations)
  assert not broken, '\n'.join(broken)


@pytest.mark.parametrize(
  'module, source',
  [
    ('models.ce', 'from vidret_jax.data import source'),
    ('models.ce', 'from ..data import source'),
    ('ops.masks', 'def f():\n  import vidret_jax.layers.norm'),
    ('search.exact', 'from vidret_jax.models import ce'),
    ('metrics.ranks', 'import jax.numpy as jnp'),
    ('metrics.ranks', 'import scipy'),
    ('evaluators.retrieval', 'import tensorflow as tf'),
    ('train.loop', 'from clu import metric_writers'),
    ('convert.ce', 'import torch'),
    ('data.experts', 'import jax'),
    ('tools.inspect', 'from vidret_jax import main'),
    ('train.loop', 'from configs import ce_shapes'),
  ],
)
def test_a_forbidden_import_is_found(module, source):
  assert import_violations(module, source)


@pytest.mark.parametrize(
  'module, source',
  [
    ('search.exact', 'from vidret_jax.models import base'),
    ('convert.ce', 'def f():\n  import torch'),
    ('data.pipeline', 'import tensorflow as tf'),
    ('train.writers', 'def f():\n  from clu import metric_writers'),
    ('models.ce', 'from . import base'),
    ('tools.inspect', 'from vidret_jax.train import state'),
  ],
)
def test_an_allowed_import_passes(module, source):
  assert not import_violations(module, source)


@pytest.mark.parametrize(
  'source',
  [
    'import pickle\npickle.load(f)',
    'print(1)',
    'np.load(f, allow_pickle=True)',
    'def f():\n  raise NotImplementedError("later")',
    'jax.pmap(f)',
    'spec = PartitionSpec("data")',
  ],
)
def test_a_forbidden_call_is_found(source):
  assert call_violations('models.ce', source)


def test_works_without_tensorflow():
  """Imports the TensorFlow-free modules with TensorFlow's import blocked."""
  names = [
    f'vidret_jax.{name}'
    for name in modules()
    if any(_within(name, part) for part in WITHOUT_TENSORFLOW)
  ]
  assert names
  code = f"""
import importlib, sys
blocked = {sorted(TENSORFLOW | {'torch'})!r}
class Blocked:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in blocked:
      raise ModuleNotFoundError(name + ' is blocked in this test', name=name)
sys.meta_path.insert(0, Blocked())
for name in {names!r}:
  importlib.import_module(name)
# Lazily imported parts of other libraries may ask for it too: none got it.
assert not set(blocked) & set(sys.modules)
print(len({names!r}), 'modules imported')
"""
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith(f'{len(names)} modules')


def _python_files():
  folders = ('vidret_jax', 'configs', 'launch', 'benchmarks', 'tests')
  return [p for f in folders for p in sorted((ROOT / f).rglob('*.py'))]


def test_no_file_is_called_utils():
  bad = [p for p in _python_files() if re.search(r'util(s|itie)', p.name)]
  assert not bad


def test_files_are_short():
  """One idea per file: 300 lines is a warning, FIRM_LIMIT the end."""
  lengths = {
    str(p.relative_to(ROOT)): len(p.read_text().splitlines())
    for p in _python_files()
    if not p.is_relative_to(ROOT / 'tests')
  }
  for name, length in lengths.items():
    if length > 300:
      warnings.warn(f'{name} has {length} lines', stacklevel=1)
  assert not {n: k for n, k in lengths.items() if k > FIRM_LIMIT}


def test_configs_import_config_lib_only():
  allowed = _plain('ml_collections') - {'vidret_jax'}
  bad = [
    f'{path.name}:{line} imports {name}'
    for path in sorted((ROOT / 'configs').rglob('*.py'))
    for name, line, _ in imports(path.read_text())
    if name != 'vidret_jax.config_lib' and name.split('.')[0] not in allowed
  ]
  assert not bad


def _text_files():
  """Every file of the checkout that git would track and that is text."""
  listed = subprocess.run(
    ['git', 'ls-files', '-z', '-co', '--exclude-standard'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  if listed.returncode:
    pytest.skip('not a git checkout')
  for name in filter(None, listed.stdout.split('\0')):
    path = ROOT / name
    try:
      yield name, path.read_text()
    except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
      continue


def test_no_machine_paths_and_no_package_hosts():
  """What is written works on any machine and with any package index."""
  folders = '|'.join(('work', 'tmp', 'root', 'home', 'opt', 'mnt'))
  path = re.compile(rf'(?<![\w.~$}}-])/(?:{folders})/\w')
  host = re.compile(
    '|'.join(('index' + '-url', r'pypi\.' + 'org', 'python' + 'hosted'))
  )
  bad = []
  for name, text in _text_files():
    for i, line in enumerate(text.splitlines(), 1):
      for pattern in (path, host):
        if found := pattern.search(line):
          bad.append(f'{name}:{i}: {found.group()}')
  assert not bad, '\n'.join(bad)


def test_no_loose_ends():
  """No marks of unfinished work in the package."""
  marks = re.compile(r'\b(TO' r'DO|FIX' r'ME|XX' r'X|ip?db\.set_trace)\b')
  bad = [
    f'{name}: {found.group()}'
    for name, path in modules().items()
    if (found := marks.search(path.read_text()))
  ]
  assert not bad
