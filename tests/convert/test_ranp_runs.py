# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/ranp_runs.py without golden files."""

import json

import pytest

from vidret_jax.convert import ranp_runs as runs
from vidret_jax.convert.ranp_runs import RunFolderError


@pytest.fixture
def folder(tmp_path):
  """A run of twelve epochs, of which 9 and 11 have the best rsum."""
  for name in ('log', 'model', 'pred/tst'):
    (tmp_path / name).mkdir(parents=True)
  (tmp_path / 'model.json').write_text('{}')
  for epoch in range(12):
    log = tmp_path / 'log' / f'val.epoch.{epoch}.step.{epoch * 10 + 10}.json'
    rsum = 50.0 if epoch in (9, 11) else float(epoch)
    log.write_text(json.dumps(dict(rsum=rsum, imedr=float(epoch))))
    (tmp_path / 'model' / f'epoch.{epoch}.th').write_bytes(b'')
  return tmp_path


def test_names():
  assert runs.checkpoint('val.epoch.3.step.10.json') == 'epoch.3.th'
  assert runs.checkpoint('val.step.10.json') == 'step.10.th'
  for name in ('val.json', 'epoch.1.step.2.json', 'val.epoch.x.step.1.json'):
    with pytest.raises(RunFolderError, match='expected val'):
      runs.checkpoint(name)


def test_direction_and_order():
  logs = {
    f'val.epoch.{e}.step.{s}.json': dict(ir1=a, imedr=b, cmeanr=c, val_loss=d)
    for e, s, a, b, c, d in (
      (9, 90, 5.0, 2.0, 9.0, 1.0),
      (10, 100, 5.0, 1.0, 9.0, 2.0),
      (2, 20, 4.0, 1.0, 8.0, 0.5),
    )
  }
  assert runs.best(logs) == dict(
    ir1=['epoch.9.th', 'epoch.10.th'],
    imedr=['epoch.2.th', 'epoch.10.th'],
    cmeanr=['epoch.2.th'],
    val_loss=['epoch.2.th'],
  )
  assert runs.groups(logs) == {
    'ir1': 'epoch.9.th',
    'imedr-cmeanr-val_loss': 'epoch.2.th',
  }


def test_incomplete_values():
  """Diverged epochs and metrics that only some logs have."""
  logs = {
    'val.step.1.json': dict(rsum=float('nan'), nDCG_avg=0.2),
    'val.step.2.json': dict(rsum=3.0),
    'val.step.3.json': dict(rsum=float('inf')),
  }
  assert runs.best(logs) == dict(rsum=['step.2.th'], nDCG_avg=['step.1.th'])
  assert runs.best({'val.step.1.json': dict(rsum=float('nan'))}) == {}


def test_logs_of_steps_beside_those_of_epochs():
  logs = {
    'val.epoch.0.step.5.json': dict(rsum=3.0),
    'val.step.5.json': dict(rsum=3.0),
    'val.step.3.json': dict(rsum=1.0),
  }
  assert runs.best(logs) == dict(rsum=['epoch.0.th', 'step.5.th'])


def test_the_selected_checkpoint(folder):
  assert runs.is_one(folder)
  assert runs.selected(folder) == folder / 'model' / 'epoch.9.th'
  assert runs.selected(folder, 'imedr').name == 'epoch.0.th'


@pytest.mark.parametrize(
  'names,file,expected',
  [
    ('ir1-rsum-mAP_avg', 'epoch.11.th', 'epoch.11.th'),
    ('rsum', 'epoch.9.th', 'epoch.9.th'),
    # Of other metrics, of no use, or named on the command line.
    ('ir1', 'epoch.11.th', 'epoch.9.th'),
    ('rsum', 'epoch.3.th', 'epoch.9.th'),
    ('rsum', '../../x.th', 'epoch.9.th'),
    ('predefined', 'epoch.11.th', 'epoch.9.th'),
  ],
)
def test_equals_as_the_run_recorded(folder, names, file, expected):
  table = folder / 'pred' / 'tst' / 'scores.csv'
  table.write_text(f'ir1,rsum\n{names},{file},4.00,50.00\n')
  assert runs.selected(folder).name == expected


def test_what_is_absent(folder):
  with pytest.raises(RunFolderError, match="'nDCG'; there are: rsum, imedr"):
    runs.selected(folder, 'nDCG')
  (folder / 'model' / 'epoch.9.th').unlink()
  with pytest.raises(FileNotFoundError, match='epoch.9.th.*best by rsum'):
    runs.selected(folder)
  for log in (folder / 'log').glob('*.json'):
    log.unlink()
  with pytest.raises(FileNotFoundError, match='no val'):
    runs.selected(folder)
  assert not runs.is_one(folder / 'log')


@pytest.mark.parametrize(
  'text,message',
  [
    ('{', 'not JSON'),
    ('[' * 100_000, 'not JSON'),
    ('[1]', 'expected an object, found list'),
    ('{"rsum": "9"}', "'rsum' is no number"),
    ('{"rsum": true}', "'rsum' is no number"),
    ('{"rsum": null}', "'rsum' is no number"),
    ('{"rsum": {"a": 1}}', "'rsum' is no number"),
  ],
)
def test_strange_logs(folder, text, message):
  path = folder / 'log' / 'val.epoch.4.step.50.json'
  path.write_text(text)
  with pytest.raises(RunFolderError, match=message) as error:
    runs.selected(folder)
  assert str(path) in str(error.value)


def test_a_huge_number(folder):
  path = folder / 'log' / 'val.epoch.4.step.50.json'
  path.write_text('{"rsum": 1' + '0' * 400 + '}')
  assert runs.selected(folder).name == 'epoch.9.th'


def test_bytes_that_are_no_text(folder):
  log = folder / 'log' / 'val.epoch.4.step.50.json'
  text = log.read_bytes()
  log.write_bytes(b'\xff\xfe{')
  with pytest.raises(RunFolderError, match='not JSON'):
    runs.selected(folder)
  log.write_bytes(text)
  (folder / 'pred' / 'tst' / 'scores.csv').write_bytes(b'\xff\n\xfe,x,y\n')
  with pytest.raises(RunFolderError, match='scores.csv: not readable'):
    runs.selected(folder)
