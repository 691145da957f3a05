# SPDX-License-Identifier: Apache-2.0
"""Where the golden files are, and how errors are measured and shown."""

import pathlib

import pytest

from tests.parity import goldens

_REPO = pathlib.Path(__file__).resolve().parents[2]
_PLACES = (_REPO.parent / 'shared' / 'golden', _REPO / 'tests' / 'golden')
_PROPERTY = 'largest error'
# Word of a test file's name -> folder, where they differ.
_FOLDERS = {'hapvr': 'hap_vr'}


def pytest_addoption(parser):
  parser.addoption(
    '--golden-root',
    default=None,
    metavar='DIR',
    help='folder with golden files, one subfolder per system (default: '
    '../shared/golden beside the repository if there, else tests/golden)',
  )


def root_of(config) -> pathlib.Path:
  """The golden folder of this run."""
  # The option is unknown where pytest starts above this folder.
  given = config.getoption('--golden-root', default=None)
  if given:
    path = pathlib.Path(given).resolve()
    if not path.is_dir():
      raise pytest.UsageError(f'--golden-root {given}: no such folder')
    return path
  return next((p for p in _PLACES if p.is_dir()), _PLACES[-1])


def system_of(node) -> str:
  """The system that a test file is about: 'ce' of test_ce_models.py."""
  word = node.path.stem.split('_')[1]
  return _FOLDERS.get(word, word)


def pytest_generate_tests(metafunc):
  """Parametrises by what the folder holds; known but absent names skip."""
  system = system_of(metafunc.definition)
  root = root_of(metafunc.config) / system
  for fixture, lister in goldens.LISTS.get(system, {}).items():
    if fixture in metafunc.fixturenames:
      metafunc.parametrize(fixture, lister(root))


@pytest.fixture(scope='session')
def golden_root(request) -> pathlib.Path:
  return root_of(request.config)


@pytest.fixture
def golden(golden_root, request):
  """Opens `<root>/<system>/<path>`; every array must be read afterwards."""
  opened = []
  folder = golden_root / system_of(request.node)

  def load(path):
    file = folder / path
    if not file.exists():
      pytest.skip(f'{file} is absent')
    opened.append(goldens.Arrays(file))
    return opened[-1]

  yield load
  failed = getattr(request.node, 'failed', False)
  for arrays in opened:
    if not failed:
      arrays.assert_all_read()


@pytest.fixture
def errors(record_property):
  """Compares arrays and reports the largest error of the test."""
  found = goldens.Errors()
  yield found
  if text := found.summary():
    print(text)
    record_property(_PROPERTY, text)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
  report = (yield).get_result()
  # Skips count, too: what was not compared was not read.
  item.failed = getattr(item, 'failed', False) or (
    report.when == 'call' and not report.passed
  )


def pytest_terminal_summary(terminalreporter):
  reports = [
    r
    for group in terminalreporter.stats.values()
    for r in group
    if getattr(r, 'when', None) == 'teardown'
  ]
  rows = [
    (r.nodeid.split('parity/', 1)[-1], dict(r.user_properties)) for r in reports
  ]
  rows = [(n, p[_PROPERTY]) for n, p in rows if _PROPERTY in p]
  if rows:
    terminalreporter.section('largest errors against the originals')
    for name, text in rows:
      terminalreporter.write_line(f'{name}: {text}')
