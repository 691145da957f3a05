# SPDX-License-Identifier: Apache-2.0
"""`python -m vidret_jax.tools.clip_features`, as a person runs it."""

import json
import os
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest

from vidret_jax.data import words
from vidret_jax.data.moments import layout, published, sets
from vidret_jax.tools import clip_features as tool

REPO = pathlib.Path(__file__).resolve().parents[2]
SRT = '1\n00:00:00,500 --> 00:00:02,000\nA: red (ball)\n'


def write(path, **arrays):
  with h5py.File(path, 'w') as file:
    for key, value in arrays.items():
      file[key] = value


def read(path):
  with h5py.File(path) as file:
    return {key: file[key][()] for key in file}


def rows(count, width, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(count, width)).astype(np.float32)


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write('frames.h5', a=rows(9, 4), b=rows(20, 4, 1))
  write('a.h5', a=rows(3, 3))
  write('b.h5', b=rows(4, 3, 1), c=rows(1, 3, 2))
  write('wide.h5', a=rows(3, 4))
  write('clips.h5', a=rows(2, 4), b=rows(5, 4, 1))
  bad = rows(9, 4)
  bad[7] = np.inf
  write('bad.h5', a=rows(9, 4), b=bad)
  pathlib.Path('subs').mkdir()
  pathlib.Path('subs/b.srt').write_text(SRT)
  lines = [
    {'desc_id': 7, 'desc': 'A red ball. '},
    {'desc_id': 8, 'desc': 'It spins'},
  ]
  pathlib.Path('val.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  return tmp_path


def test_pool_as_a_command(root):
  command = [sys.executable, '-m', 'vidret_jax.tools.clip_features']
  done = subprocess.run(
    [*command, 'pool', 'frames.h5', '--out', 'new/out.h5'],
    env={**os.environ, 'PYTHONPATH': str(REPO)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert '2/2' in done.stderr and 'new/out.h5' in done.stdout
  found, frames = read('new/out.h5'), read('frames.h5')
  assert {k: v.shape for k, v in found.items()} == {'a': (2, 4), 'b': (5, 4)}
  np.testing.assert_array_equal(found['a'][1], frames['a'][5:].max(0))
  assert os.listdir('new') == ['out.h5']


def test_pool_again_and_shorter(root, capsys):
  arguments = ['pool', 'frames.h5', '--out', 'out.h5', '--pool', 'avg']
  assert tool.main(arguments) == 0
  assert tool.main(arguments) == 1
  assert '--overwrite' in capsys.readouterr().err
  more = ['--overwrite', '--max-seconds', '3', '--clip-seconds', '1']
  assert tool.main([*arguments, *more]) == 0
  assert 'videos cut at 3 s: 1 (b)' in capsys.readouterr().out
  found, frames = read('out.h5'), read('frames.h5')
  assert [len(x) for x in found.values()] == [3, 3]
  np.testing.assert_allclose(found['b'][2], frames['b'][6:9].mean(0), 1e-6)


def test_align_and_join(root, capsys):
  align = ['align', 'a.h5', 'b.h5', '--like', 'clips.h5', '--out', 'al.h5']
  assert tool.main(align) == 0
  shown = capsys.readouterr().out
  assert 'cut: 1 (a)' in shown and 'zero rows: 1 (b)' in shown
  assert 'left out, as clips.h5 lacks them: 1 (c)' in shown
  assert tool.main(['join', 'clips.h5', 'al.h5', '--out', 'out.h5']) == 0
  found = read('out.h5')
  assert {k: v.shape for k, v in found.items()} == {'a': (2, 7), 'b': (5, 7)}
  left = read('clips.h5')['b']
  left = left / (np.linalg.norm(left, axis=1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(found['b'][:, :4], left, rtol=1e-6)
  assert not found['b'][4, 4:].any()
  more = ['--no-normalise', '--overwrite']
  assert tool.main(['join', 'clips.h5', 'al.h5', '--out', 'out.h5', *more]) == 0
  np.testing.assert_array_equal(
    read('out.h5')['b'][:, :4], read('clips.h5')['b']
  )


def test_from_subtitle_files_to_clips(root, capsys):
  def run(*arguments):
    assert tool.main(list(arguments)) == 0

  run('srt', 'subs', '--out', 'subs.jsonl')
  run('words', '--subtitles', 'subs.jsonl', '--out', 'tokens.h5', '--dim', '6')
  tokens = read('tokens.h5')
  assert tokens['b-lengths'].tolist() == [3]
  np.testing.assert_array_equal(tokens['b'], words.embed('a red ball', 6))
  capsys.readouterr()
  run(
    *('subtitles', 'tokens.h5', '--lines', 'subs.jsonl', '--info'),
    *('--videos', 'clips.h5', '--out', 'out.h5', '--pool', 'avg'),
  )
  assert 'without subtitles have zero rows: 1 (a)' in capsys.readouterr().out
  found = read('out.h5')
  assert found['a'].shape == (2, 6) and not found['a'].any()
  assert found['b-mask'].tolist() == [1, 1, 0, 0, 0]
  np.testing.assert_allclose(found['b'][1], tokens['b'].mean(0), rtol=1e-6)
  run(*SUBTITLES, 'clips.h5', '--out', 'spoken.h5', '--omit-silent')
  assert set(read('spoken.h5')) == {'b', 'b-mask'}
  info = json.loads(pathlib.Path('out_sub_info.json').read_text())
  assert info['b']['clip2sen'] == {'0': [0], '1': [0]}


def test_queries(root):
  assert tool.main(['words', '--queries', 'val.jsonl', '--out', 'q.h5']) == 0
  found = read('q.h5')
  assert set(found) == {'7', '8'}
  np.testing.assert_array_equal(found['8'], words.embed('it spins'))


def test_the_reader_takes_what_the_tool_makes(root):
  """Frames, subtitle files and sentences of your own, up to the reader."""

  def run(*arguments):
    assert tool.main(list(arguments)) == 0

  row = {'desc_id': 3, 'desc': 'It is red.', 'vid_name': 'b', 'ts': [1, 4]}
  pathlib.Path('val.jsonl').write_text(json.dumps({**row, 'duration': 6.6}))
  run('pool', 'frames.h5', '--out', 'video.h5')
  run('srt', 'subs', '--out', 'subs.jsonl')
  run('words', '--subtitles', 'subs.jsonl', '--out', 'tokens.h5')
  run(*SUBTITLES, 'video.h5', '--out', 'subtitle.h5')
  run('words', '--queries', 'val.jsonl', '--out', 'query.h5')
  paths = {k: f'{k}.h5' for k in ('video', 'subtitle', 'query')}
  paths['annotations_val'] = 'val.jsonl'
  ask = sets.request(layout.FOLDER, 'val', paths=paths)
  found = published.Published(
    layout.FOLDER, ask, root, paths, published.Checks()
  )
  assert found.widths == {'video': 4, 'subtitle': 64, 'query': 64}
  assert found.table.clips == [5] and found.query('3').shape == (3, 64)
  # Rows are made unit vectors; silence stays zero.
  said = np.linalg.norm(found.video('b')['subtitle'], axis=1)
  np.testing.assert_allclose(said, [1, 1, 0, 0, 0], atol=1e-4)
  found.close()


SUBTITLES = ['subtitles', 'tokens.h5', '--lines', 'subs.jsonl', '--videos']


@pytest.mark.parametrize(
  'arguments, parts',
  [
    (['pool', 'bad.h5'], ('bad.h5', "'b'", 'row 7')),
    (['pool', 'frames.h5', '--fps', '0.5'], ('--fps 0.5', 'Extract more')),
    (['pool', 'frames.h5', '--first', '2'], ('--first 2',)),
    (['pool', 'frames.h5', '--clip-seconds', '-1'], ('--clip-seconds',)),
    (['pool', 'frames.h5', 'clips.h5'], ("'a'", 'frames.h5, too')),
    (['pool', 'absent.h5'], ('absent.h5',)),
    (['align', 'a.h5', '--like', 'clips.h5'], ("no 'b'", 'clips.h5')),
    (['align', 'wide.h5', 'b.h5', '--like', 'a.h5'], ('width 3',)),
    (['join', 'clips.h5', 'a.h5'], ("a.h5: no 'b'",)),
    (['join', 'clips.h5'], ('two or more',)),
    (['srt', '.'], ('no subtitle file',)),
    (['words', '--queries', 'val.jsonl', 'val.jsonl'], ('desc_id 7', ':1')),
    (['words', '--queries', 'dots.jsonl'], ('dots.jsonl:1', 'desc_id 3')),
    (['words', '--queries', 'ids.jsonl'], ('ids.jsonl:1', '1.5')),
    ([*SUBTITLES, 'clips.h5'], ("no subtitles of 'a'", 'tokens.h5')),
    ([*SUBTITLES, 'bad.h5', '--clip-seconds', '0'], ('--clip-seconds 0',)),
    (['text', '--queries', 'val.jsonl', '--model', '.'], ('config.json',)),
  ],
)
def test_errors(root, arguments, parts, capsys):
  write('tokens.h5', **{'a': rows(2, 3), 'a-lengths': [2]})
  pathlib.Path('subs.jsonl').write_text('{"vid_name": "b", "sub": []}')
  pathlib.Path('dots.jsonl').write_text('{"desc_id": 3, "desc": "..."}')
  pathlib.Path('ids.jsonl').write_text('{"desc_id": 1.5, "desc": "a"}')
  assert tool.main([*arguments, '--out', 'out.h5']) == 1
  shown = capsys.readouterr().err
  assert 'Traceback' not in shown
  assert all(part in shown for part in parts), shown
  assert not list(pathlib.Path().glob('out*'))


@pytest.mark.parametrize(
  'arguments',
  [
    [],
    ['words', '--out', 'o'],
    ['words', '--out', 'o', '--queries', 'a', '--subtitles', 'b'],
    ['pool', 'a.h5'],
  ],
)
def test_what_belongs_together(arguments):
  with pytest.raises(SystemExit):
    tool.parse_arguments(arguments)
