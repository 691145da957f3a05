# SPDX-License-Identifier: Apache-2.0
"""`python -m vidret_jax.tools.moment_annotations`, as a person runs it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from vidret_jax.data.moments import annotations, durations, layout
from vidret_jax.tools import moment_annotations as tool

REPO = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for i, name in enumerate(('train', 'val_1', 'val_2')):
    # The two of validation are of the same videos.
    video = {
      'duration': 20.5,
      'timestamps': [[1, 9.5], [15, 12], [18, 30]],
      'sentences': [f'{name} a', 'b', 'c'],
    }
    text = json.dumps({f'v_{min(i, 1)}': video})
    pathlib.Path(f'{name}.json').write_text(text)
    pathlib.Path(f'{name.split("_")[0]}_data.json').write_text(
      json.dumps([{'description': 'x', 'video': name, 'times': [[0, 1]] * 4}])
    )
  pathlib.Path('charades_sta_train.txt').write_text('AB 0.0 6.9##one.\n')
  pathlib.Path('charades_sta_test.txt').write_text('CD 3.2 40##two.\n')
  pathlib.Path('Charades_v1_train.csv').write_text('id,length\nAB,30.96\n')
  pathlib.Path('Charades_v1_test.csv').write_text('id,length\nCD,33.5\n')
  return tmp_path


def read(kind, out, splits):
  """All files of a dataset, found where its layout looks for them."""
  files = kind.files('resnet', 'sub_query', kind.clip_seconds)
  out = pathlib.Path(out)
  (table,) = files['durations']
  videos = durations.read(out / table)
  rows = {}
  for split in splits:
    paths = [out / name for name in files[f'annotations_{split}']]
    (path,) = (p for p in paths if p.is_file())
    rows[split] = annotations.read(path)
    annotations.check_videos(
      rows[split], videos[split], slack=0, source=table, others={}
    )
  return {split: [row for _, row in some] for split, some in rows.items()}


def test_activitynet_as_a_command(root):
  command = [sys.executable, '-m', 'vidret_jax.tools.moment_annotations']
  files = ['train.json', 'val_1.json', 'val_2.json']
  done = subprocess.run(
    [*command, '--dataset', 'activitynet', '--out', 'new/out', *files],
    env={**os.environ, 'PYTHONPATH': str(REPO)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert 'turned round' in done.stdout and 'cut (v_1)' in done.stdout
  found = read(layout.ACTIVITYNET, 'new/out', ('train', 'val', 'test_public'))
  assert [r['desc'] for r in found['test_public']] == ['val_2 a', 'b', 'c']
  assert [r['desc_id'] for r in found['val']] == [3, 4, 5]
  assert [r['ts'] for r in found['val']] == [[1, 9.5], [12, 15], [18, 20.5]]


CHARADES = [
  *('--dataset', 'charades', '--durations', 'Charades_v1_train.csv'),
  'Charades_v1_test.csv',
]
DIDEMO = ['--dataset', 'didemo', '--out', 'out']


def test_charades(root, capsys):
  files = ['charades_sta_train.txt', 'charades_sta_test.txt']
  assert tool.main([*files, *CHARADES, '--out', 'out']) == 0
  assert 'charades_test_release.jsonl: 1 moments' in capsys.readouterr().out
  found = read(layout.CHARADES, 'out', ('train', 'test_public'))
  assert found['test_public'][0]['ts'] == [3.2, 33.5]


def test_didemo_and_names_of_your_own(root, capsys):
  assert tool.main([*DIDEMO, 'train_data.json', 'test=val_data.json']) == 0
  found = read(layout.DIDEMO, 'out', ('train', 'test_public'))
  assert found['train'][0]['ts'] == [[0, 10]] * 4
  assert found['train'][0]['duration'] == 30
  capsys.readouterr()
  assert tool.main([*DIDEMO, 'train_data.json']) == 1
  assert '--overwrite' in capsys.readouterr().err
  pathlib.Path('dur.json').write_text('{"train": 8.5}')
  more = ['--overwrite', '--durations', 'dur.json', '--name', 'mine']
  assert tool.main([*DIDEMO, 'train_data.json', *more]) == 0
  (row,) = annotations.read(pathlib.Path('out/mine_train_release.jsonl'))
  assert row[1]['ts'] == [[0, 8.5]] * 4


def test_tables_of_your_own(root):
  text = 'video,start,end,sentence,duration\na,1,2,he runs,9\n'
  for name in ('train.csv', 'val.csv'):
    pathlib.Path(name).write_text(text)
  own = ['--dataset', 'own', '--name', 'tvr', '--out', 'out']
  assert tool.main([*own, 'train.csv', 'val.csv']) == 0
  found = read(layout.TVR, 'out', ('train', 'val'))
  assert found['val'][0]['ts'] == [1, 2] and found['val'][0]['desc_id'] == 1


@pytest.mark.parametrize(
  'arguments, part',
  [
    ([*DIDEMO, 'train.json'], 'of which split'),
    ([*DIDEMO, 'mine=train_data.json'], "unknown split='mine'"),
    ([*DIDEMO, 'train_data.json', 'train=val_data.json'], 'are both train'),
    ([*DIDEMO, 'train_data.json', 'val=absent.json'], 'absent.json'),
    ([*DIDEMO, 'train=train.json'], 'JSON list'),
    (
      [*DIDEMO, 'train_data.json', '--durations', 'Charades_v1_test.csv'],
      "no duration of video 'train'",
    ),
  ],
)
def test_errors(root, arguments, part, capsys):
  assert tool.main(arguments) == 1
  shown = capsys.readouterr().err
  assert part in shown and 'Traceback' not in shown
  assert not pathlib.Path('out').exists()


@pytest.mark.parametrize(
  'arguments',
  [
    ['--dataset', 'charades', '--out', 'o', 'charades_sta_test.txt'],
    [*('--dataset', 'activitynet', '--out', 'o'), 'a', '--durations', 'b'],
    ['--dataset', 'other', '--out', 'o', 'a'],
  ],
)
def test_what_belongs_together(arguments):
  with pytest.raises(SystemExit):
    tool.parse_arguments(arguments)
