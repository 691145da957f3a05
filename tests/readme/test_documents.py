# SPDX-License-Identifier: Apache-2.0
"""What the documents name exists: files, programs, configs and their keys."""

import importlib.util
import os
import re
import shlex

import pytest

from tests.readme import markdown
from vidret_jax import config_lib
from vidret_jax.train import defaults

FILES = markdown.files()
BLOCKS = [b for path in FILES for b in markdown.blocks(path)]
COMMANDS = [(b, c) for b in BLOCKS for c in b.commands]


def _name(value):
  if isinstance(value, markdown.Block):
    return f'{value.file}:{value.line}'
  return None


def test_the_readme_has_its_commands():
  readme = [b for b in BLOCKS if b.file == 'README.md']
  assert sum(len(b.commands) for b in readme) >= 10
  main = (
    'python -m vidret_jax.main --config configs/ce_shapes.py '
    '--workdir runs/ce_shapes'
  )
  assert any(main in b.commands for b in readme)


@pytest.mark.parametrize(
  'path', FILES, ids=[str(p.relative_to(markdown.ROOT)) for p in FILES]
)
def test_links_lead_somewhere(path):
  broken = [t for t in markdown.links(path) if not (path.parent / t).exists()]
  assert not broken


@pytest.mark.parametrize('block, command', COMMANDS, ids=_name)
def test_programs_exist(block, command):
  words = shlex.split(command, comments=True)
  while words and re.match(r'[A-Z_]+=', words[0]):
    words.pop(0)
  if words[:2] == ['python', '-m']:
    assert importlib.util.find_spec(words[2]), command
  elif words[0] in ('python', 'bash', 'sbatch'):
    scripts = [w for w in words if re.match(r'(launch|benchmarks|\.ci)/', w)]
    assert scripts, command
    for script in scripts:
      assert (markdown.ROOT / script).is_file(), script
  elif words[0].startswith('launch/'):
    script = markdown.ROOT / words[0]
    assert os.access(script, os.X_OK), script


@pytest.mark.parametrize(
  'block, command',
  [(b, c) for b, c in COMMANDS if '--config' in c],
  ids=_name,
)
def test_configs_load_with_the_keys_of_the_command(block, command, monkeypatch):
  monkeypatch.chdir(markdown.ROOT)
  spec = markdown.option(command, 'config')
  changes = re.findall(r'--config\.(\S+)', command)
  assert spec and not spec.startswith('<')
  config_lib.load(spec, changes, defaults.DEFAULTS)


def test_documents_that_the_code_names_exist():
  """Messages and docstrings send people to docs/*.md."""
  named = {}
  folders = ('vidret_jax', 'configs', 'launch', 'benchmarks', 'tests')
  for folder in folders:
    for path in (markdown.ROOT / folder).rglob('*'):
      if path.suffix in ('.py', '.sh', '.yaml', '.sbatch', '.md'):
        for name in re.findall(r'\bdocs/\w+\.md', path.read_text()):
          named.setdefault(name, path)
  missing = {
    n: str(p) for n, p in named.items() if not (markdown.ROOT / n).is_file()
  }
  assert not missing


def test_programs_that_the_code_names_exist():
  named = {}
  for path in (markdown.ROOT / 'vidret_jax').rglob('*.py'):
    text = path.read_text()
    for name in re.findall(r'-m (vidret_jax(?:\.[a-z_]+)+)\b', text):
      named.setdefault(name, path)
  missing = {
    n: str(p) for n, p in named.items() if importlib.util.find_spec(n) is None
  }
  assert not missing


ARCHITECTURE = (markdown.ROOT / 'docs' / 'architecture.md').read_text()


def test_the_tree_of_the_page_is_the_tree():
  """Every file and folder that docs/architecture.md draws exists."""
  tree = ARCHITECTURE.partition('```text\n')[2].partition('```')[0]
  base, drawn = markdown.ROOT, []
  for line in tree.splitlines():
    name = line.split()[0]
    if not line.startswith(' ' * 4) and re.fullmatch(r'[\w.]+(\.py|/)', name):
      if not line.startswith(' '):
        base = markdown.ROOT
      drawn.append(base / name)
      if name == 'vidret_jax/':
        base = markdown.ROOT / name
  assert len(drawn) > 15
  assert not [str(p) for p in drawn if not p.exists()]
  packages = (markdown.ROOT / 'vidret_jax').glob('*/__init__.py')
  assert {p.parent for p in packages} <= set(drawn)


def test_the_layers_of_the_page_are_those_of_the_test():
  from tests.test_architecture import LAYERS

  rows = re.findall(r'^\| (`.*?) \| (.*?) \|$', ARCHITECTURE, re.MULTILINE)
  seen = {}
  for left, right in rows:
    named = tuple(sorted(re.findall(r'`([\w.]+)`', right.split(';')[0])))
    if 'nothing of ours' in right:
      named = ()
    for layer in re.findall(r'`(\w+)`', left):
      if layer in LAYERS and 'everything' not in right:
        seen[layer] = named
  expected = {k: tuple(sorted(v)) for k, v in LAYERS.items() if v is not None}
  del expected['train']  # The page says: everything above.
  assert seen == expected
