# SPDX-License-Identifier: Apache-2.0
"""The stand-alone evaluator of copies, from files to a table and a file."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from vidret_jax.data.copies import annotations as annotations_lib
from vidret_jax.evaluators import copy_files
from vidret_jax.metrics import copies
from vidret_jax.tools import evaluate_copies

QUERIES = ('q0', 'q1', 'v3')
DATABASE = tuple(f'v{i}' for i in range(9))
LABELS = {
  'q0': {'ND': ['v0', 'v1'], 'IS': ['v8']},
  'q1': {'DS': ['v2'], 'CS': ['v2', 'v4'], 'DA': ['v5']},
  'v3': {'DS': ['v3', 'v6', 'v7']},
}
EASY = ('v1', 'v6')


@pytest.fixture
def pred(tmp_path):
  """Scores of all but 'v8', which is missing."""
  scores = np.random.default_rng(0).normal(size=(3, 9)).astype(np.float32)
  scores[:, 8] = np.nan
  path = tmp_path / 'pred.json'
  copy_files.write(path, scores, QUERIES, DATABASE)
  return path


def lines(path, names):
  path.write_text(''.join(f'{name}\n' for name in names))
  return path


@pytest.fixture
def own(tmp_path):
  """Annotations in our own form."""
  found = annotations_lib.build(
    'here',
    protocol='fivr',
    queries=QUERIES,
    database=DATABASE,
    labels=LABELS,
    easy=EASY,
  )
  path = tmp_path / 'annotations.json'
  path.write_text(found.to_json())
  return path


def call(pred, gt, *more):
  given = ['--pred', pred, '--gt', gt, *more]
  return evaluate_copies.main(list(map(str, given)))


def numbers(pred, gt, tmp_path, *more):
  out = tmp_path / 'new' / 'out.json'
  assert call(pred, gt, '--out', out, *more) == 0
  return json.loads(out.read_text())


def test_table_and_file(pred, own, tmp_path, capsys):
  found = numbers(pred, own, tmp_path, '--audio', '--curves')
  said = capsys.readouterr().out
  assert set(found['right']) == {
    f'{task}{hard}' for task in copies.TASKS for hard in ('', '_h')
  }
  assert found['right']['DSVR'] == [5, 5] and found['right']['ISVR'] == [6, 7]
  assert found['counts'] == dict(
    queries_found=3, queries_expected=3, videos_found=8, videos_expected=9
  )
  for name, aps in found['queries'].items():
    assert found['metrics'][name] == pytest.approx(np.mean([*aps.values()]))
  assert list(found['queries']['DAVR']) == ['q1']
  assert all(len(curve) == 21 for curve in found['curves'].values())
  values = found['metrics']
  rows = [
    [cell.strip() for cell in line.strip('│').split('│')]
    for line in said.splitlines()
    if '│' in line
  ]
  assert [
    *('DSVR_h', f'{values["DSVR_h"]:.2f}', f'{values["DSVD_h"]:.2f}'),
    *('3', '3 of 3'),
  ] in rows
  assert 'note: Found: all 3 queries, 8 of 9 videos of the database' in said
  assert found['missing'] == 'ignore' and found['notes']


def test_published_files_of_fivr(pred, own, tmp_path):
  """The pickle of S2VS, and what the script of FIVR-200K takes."""
  want = numbers(pred, own, tmp_path)
  easy = lines(tmp_path / 'easy.txt', EASY)
  gt = tmp_path / 'fivr_audio.pickle'
  lists = dict(queries=list(QUERIES), database=set(DATABASE))
  content = {'5k': lists, '200k': lists, 'annotation': LABELS}
  gt.write_bytes(pickle.dumps(content))
  more = ('--data', 'fivr-5k', '--easy', easy)
  assert numbers(pred, gt, tmp_path, *more)['metrics'] == want['metrics']
  gt = tmp_path / 'annotation.json'
  gt.write_text(json.dumps(LABELS))
  more = ('--data', 'fivr-200k', '--ids', lines(tmp_path / 'ids', DATABASE))
  found = numbers(pred, gt, tmp_path, *more, '--official')
  assert set(found['metrics']) == {
    name for name in want['metrics'] if not name.endswith('_h')
  }
  assert found['metrics']['ISVR'] < want['metrics']['ISVR']
  assert found['right']['ISVR'] == [8, 8]
  # By hand, as that script: unfound videos of the list are misses, and a query
  # is a video like any other of its list.
  rows = json.loads(pred.read_text())
  assert 'v3' not in rows['v3']
  for itself in (None, 9.0, 0.0):
    if itself is not None:
      row = {**rows['v3'], 'v3': itself}
      rows['v3'] = dict(sorted(row.items(), key=lambda x: -x[1]))
      pred.write_text(json.dumps(rows))
    for task in ('CSVR', 'ISVR'):
      aps = []
      for query, labels in LABELS.items():
        right = {v for k in copies.TASKS[task] for v in labels.get(k, ())}
        order = list(rows[query])
        hits = np.cumsum([v in right for v in order])
        ap = sum(h / (i + 1) for i, h in enumerate(hits) if order[i] in right)
        aps.append(100 * ap / len(right))
      found = numbers(pred, gt, tmp_path, *more, '--official')
      assert found['metrics'][task] == pytest.approx(np.mean(aps)), itself
  assert numbers(pred, own, tmp_path)['metrics'] == want['metrics']


def test_searched_videos_are_there(pred, own, tmp_path):
  searched = lines(tmp_path / 'searched', DATABASE)
  found = numbers(pred, own, tmp_path, '--searched', searched)
  assert found['right']['ISVR'] == [7, 7] and found['missing'] == 'ignore'
  assert found['counts']['videos_found'] == 9


def test_evve_and_svd(pred, tmp_path):
  gt = tmp_path / 'evve.pickle'
  events = {
    'a': ({'q0', 'v3'}, {'v0', 'v8'}, set()),
    'b': ({'q1'}, {'v2'}, set()),
  }
  content = dict(
    queries=list(QUERIES), database=list(DATABASE), annotation=events
  )
  gt.write_bytes(pickle.dumps(content))
  found = numbers(pred, gt, tmp_path, '--data', 'evve')
  assert set(found['metrics']) == {'EVVE_mAP', 'EVVE_uAP'}
  means = found['events']
  assert found['metrics']['EVVE_mAP'] == pytest.approx(
    (2 * means['a'] + means['b']) / 3
  )
  gt = lines(
    tmp_path / 'test_groundtruth',
    [f'{q} v{i} {i % 2}' for q in QUERIES for i in range(5)],
  )
  found = numbers(pred, gt, tmp_path, '--data', 'svd-labeled')
  free = lines(tmp_path / 'unlabeled-data-id', DATABASE[5:])
  more = ('--data', 'svd', '--unlabelled', free)
  whole = numbers(pred, gt, tmp_path, *more)
  # v3 is a query, too, and does not compete with itself.
  assert found['right']['SVD'] == whole['right']['SVD'] == [5, 5]
  assert whole['metrics']['SVD_mAP'] < found['metrics']['SVD_mAP']


def test_errors(pred, own, tmp_path, capsys):
  for more, message in (
    (('--data', 'evve'), 'annotations.json'),
    (('--data', 'fivr-200k'), 'needs --ids: youtube_ids.txt'),
    (('--easy', own), '--easy says nothing about --data own'),
    (('--data', 'svd-labeled', '--unlabelled', own), '--unlabelled says'),
    (('--out', own), 'would replace what is evaluated'),
    (('--searched', tmp_path / 'none'), 'no such file'),
  ):
    assert call(pred, own, *more) == 1
    assert message in capsys.readouterr().err
  gt = tmp_path / 'fivr_audio.pickle'
  gt.write_bytes(pickle.dumps({}))
  for more, message in (
    ((), 'say with --data which published ones'),
    (('--data', 'fivr-5k'), 'needs --easy: fivr_easy_duplicates.txt'),
  ):
    assert call(pred, gt, *more) == 1
    assert message in capsys.readouterr().err
  assert call(pred, tmp_path / 'none') == 1
  assert 'no such file' in capsys.readouterr().err
  pred.write_text('{"q0": {"v0": "high"}}')
  assert call(pred, own) == 1
  assert "'v0' has 'high'" in capsys.readouterr().err


def test_as_a_program(pred, own):
  done = subprocess.run(
    [sys.executable, '-m', 'vidret_jax.tools.evaluate_copies']
    + ['--pred', str(pred), '--gt', str(own)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert 'ISVR_h' in done.stdout and 'note:' in done.stdout
