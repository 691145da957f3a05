# SPDX-License-Identifier: Apache-2.0
"""setup.cfg, the requirement files and the package agree with each other."""

import ast
import configparser
import importlib
import importlib.metadata
import pathlib
import re
import sys

from packaging import requirements, utils
import pytest

import vidret_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'vidret_jax'
TENSORFLOW = {
  *('tensorflow', 'tensorflow-datasets', 'clu', 'tensorboard'),
  *('array-record', 'importlib-resources'),
}
# Pinned in the tests without being a requirement of ours.
INDIRECT = {'jaxlib', 'protobuf', 'pyarrow'}


def setup_cfg():
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  return parser


def parse(lines):
  """{canonical name: requirement} of the lines that are not comments."""
  out = {}
  for line in lines.splitlines():
    if line.strip() and not line.strip().startswith('#'):
      requirement = requirements.Requirement(line)
      out[utils.canonicalize_name(requirement.name)] = requirement
  return out


def core():
  return parse(setup_cfg()['options']['install_requires'])


def extras():
  section = setup_cfg()['options.extras_require']
  return {name: parse(lines) for name, lines in section.items()}


def tested():
  return parse((ROOT / 'requirements' / 'tested.txt').read_text())


def test_extras_are_there():
  assert {'convert', 'beam', 'serve', 'dev'} <= set(extras())


def test_lower_bounds_are_the_tested_versions():
  """PyTorch aside, whose releases the converter has no need to follow."""
  versions = {n: str(r.specifier).lstrip('=') for n, r in tested().items()}
  everything = dict(core())
  for extra in extras().values():
    everything |= extra
  for name, requirement in everything.items():
    if name != 'torch':
      assert str(requirement.specifier) == f'>={versions[name]}', name
  assert set(versions) - set(everything) == INDIRECT
  assert everything['torch'].specifier.contains(versions['torch'])


def test_installed_versions_are_allowed():
  for name, requirement in core().items():
    version = importlib.metadata.version(name)
    assert requirement.specifier.contains(version), f'{name} {version}'


def test_the_list_without_tensorflow_is_the_core_without_it():
  path = ROOT / 'requirements' / 'no_tensorflow.txt'
  assert TENSORFLOW <= set(core())
  expected = {n: str(r) for n, r in core().items() if n not in TENSORFLOW}
  assert {n: str(r) for n, r in parse(path.read_text()).items()} == expected


def test_everything_imported_is_required():
  """Each third-party package that we import has a line in setup.cfg."""
  distributions = importlib.metadata.packages_distributions()
  known = {*core(), *(n for e in extras().values() for n in e), 'jaxlib'}
  missing = {}
  for path in PACKAGE.rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [a.name for a in node.names]
      elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module]
      for name in (n.split('.')[0] for n in names):
        if name in sys.stdlib_module_names or name == 'vidret_jax':
          continue
        owners = distributions.get(name, [name])
        if not {utils.canonicalize_name(o) for o in owners} & known:
          missing.setdefault(name, str(path.relative_to(ROOT)))
  assert not missing


def test_version_is_one():
  version = setup_cfg()['metadata']['version']
  assert version == vidret_jax.__version__
  assert f'## {version}' in (ROOT / 'CHANGELOG.md').read_text()


def test_license_is_apache_2():
  text = (ROOT / 'LICENSE').read_text()
  assert 'Apache License' in text and 'Version 2.0, January 2004' in text
  assert len(text) > 11_000


SCRIPTS = re.findall(
  r'^(\S+) = ([\w.]+):(\w+)$',
  setup_cfg()['options.entry_points']['console_scripts'],
  re.MULTILINE,
)


@pytest.mark.parametrize('name, module, function', SCRIPTS)
def test_console_commands_exist(name, module, function):
  """Also that they take no argument, as pip's wrappers call them."""
  target = getattr(importlib.import_module(module), function)
  assert target.__code__.co_argcount == 0


def test_every_tool_has_a_command():
  """A module of tools/ with `run` is a program and has a short name."""
  programs = {
    f'vidret_jax.tools.{path.stem}'
    for path in (PACKAGE / 'tools').glob('*.py')
    if re.search(r'^def run\(', path.read_text(), re.MULTILINE)
  }
  assert programs == {m for _, m, _ in SCRIPTS if '.tools.' in m}


def test_package_data_is_listed():
  """Files that are not Python and that the package reads are installed."""
  patterns = setup_cfg()['options.package_data']['*']
  suffixes = {p.strip().lstrip('*') for p in patterns.split(',')}
  found = {
    p.suffix
    for p in PACKAGE.rglob('*')
    if p.is_file() and p.suffix not in ('.py', '.pyc')
  }
  assert found <= suffixes


def test_every_folder_is_a_package():
  """A folder without __init__.py would not be installed."""
  folders = {p.parent for p in PACKAGE.rglob('*.py')}
  assert not [f for f in folders if not (f / '__init__.py').is_file()]
