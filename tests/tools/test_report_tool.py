# SPDX-License-Identifier: Apache-2.0
"""Similarities from a file become a table and a page, or a clear error."""

import subprocess
import sys

import numpy as np
import pytest

from tests.evaluators import page_reader
from vidret_jax.metrics import ranks
from vidret_jax.tools import report


def write(path, **changes):
  rng = np.random.default_rng(0)
  arrays = dict(
    sims=rng.normal(size=(7, 4)),
    item_of_query=np.arange(7) % 4,
    item_ids=np.array(list('abcd')),
    texts=np.array([f't{i}' for i in range(7)]),
    videos=np.array(['one.mp4', '', 'gone.mp4', '']),
  )
  arrays.update(changes)
  np.savez(path, **{k: x for k, x in arrays.items() if x is not None})
  (path.parent / 'one.mp4').write_bytes(b'clip')
  return arrays


def test_table_and_page(tmp_path, capsys):
  arrays = write(tmp_path / 'm.npz')
  got = report.main(
    ['--matrix', str(tmp_path / 'm.npz'), '--out', str(tmp_path / 'out')]
  )
  sims = arrays['sims'].astype(np.float32)
  want = ranks.summary(ranks.text_to_video(sims, arrays['item_of_query']))
  assert {k: got[f't2v_{k}'] for k in want} == want
  assert f'R@1 {want["R@1"]:.1f}' in capsys.readouterr().out
  page = page_reader.read(tmp_path / 'out' / 'index.html')
  assert page['title'] == 'm' and len(page['rows']) == 7
  cards = {c['id']: c['video'] for r in page['rows'] for c in r['top']}
  assert [name for name, video in cards.items() if video] == ['a']


def test_names_are_optional(tmp_path):
  write(tmp_path / 'm.npz', item_ids=None, texts=None, videos=None)
  assert report.load(tmp_path / 'm.npz')['item_ids'] == list('0123')


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(sims=None), 'needs arrays sims'),
    (dict(sims=np.zeros(3)), r'needs arrays sims .* sims \[3\]'),
    (dict(item_of_query=np.arange(7)), r'lies in \[0, 6\]'),
    (dict(texts=np.array(['x'])), r'texts has shape \(1,\), expected \(7,\)'),
    (dict(item_ids=np.array(list('abca'))), 'not distinct'),
  ],
)
def test_bad_files_are_explained(tmp_path, changes, message):
  write(tmp_path / 'm.npz', **changes)
  with pytest.raises(ValueError, match=message):
    report.load(tmp_path / 'm.npz')


def test_pickled_arrays_are_refused_on_one_screen(tmp_path):
  np.savez(tmp_path / 'm.npz', sims=np.array([{}], object))
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'vidret_jax.tools.report',
      '--matrix',
      str(tmp_path / 'm.npz'),
      '--out',
      str(tmp_path / 'o'),
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert not (tmp_path / 'o').exists()
