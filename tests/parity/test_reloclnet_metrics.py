# SPDX-License-Identifier: Apache-2.0
"""Moment metrics: every prediction file gives its metrics file, to the digit.

Cutoffs, overlaps and tasks are read off the metrics files.
"""

import json
import re

import numpy as np
import pytest

from vidret_jax.metrics import moments
from vidret_jax.tools import evaluate_moments

_NAME = re.compile(r'(?:(?P<iou>[\d.]+)-)?r(?P<k>\d+)')


@pytest.fixture
def folder(golden_root):
  return golden_root / 'reloclnet'


def present(path):
  if not path.exists():
    pytest.skip(f'{path} is absent')
  return path


def options(want):
  """The command line that asks for the content of a metrics file."""
  tasks = [block for block in want if block in moments.TASKS]
  names = [_NAME.fullmatch(name) for task in tasks for name in want[task]]
  ious = dict.fromkeys(m['iou'] for m in names if m['iou'])
  out = ['--tasks', *tasks, '--topk', *dict.fromkeys(m['k'] for m in names)]
  if ious:
    out += ['--iou', *ious]
  if not any(block.endswith('_by_type') for block in want):
    out.append('--no-types')
  return out


def written(tmp_path, gt, pred, more):
  """Text of the file that the stand-alone evaluator writes."""
  out = tmp_path / 'metrics.json'
  given = ['--gt', str(gt), '--pred', str(pred), '--out', str(out), *more]
  assert evaluate_moments.main(given) == 0
  return out.read_text()


def texts(table):
  """Block -> its JSON: names in their order, numbers to the digit."""
  return {block: json.dumps(row) for block, row in table.items()}


def test_iou(golden):
  data = golden('evaluator/iou.npz')
  got = moments.hull_iou(data['pred'], data['gt'][:, None])
  assert got.dtype == data['iou'].dtype
  np.testing.assert_array_equal(got, data['iou'])


def test_evaluator(folder, tmp_path):
  gt = present(folder / 'evaluator' / 'gt_subset.jsonl')
  pred = present(folder / 'evaluator' / 'predictions.json')
  files = sorted(pred.parent.glob('metrics_*.json'))
  if not files:
    pytest.skip(f'{pred.parent} has no metrics')
  for file in files:
    want = json.loads(file.read_text())
    submission, more = pred, options(want)
    if 'first_half' in file.stem:
      content = json.loads(pred.read_text())
      for task in moments.TASKS:
        content[task] = content[task][: len(content[task]) // 2]
      submission = tmp_path / 'half.json'
      submission.write_text(json.dumps(content))
    if 'no_match' in file.stem:
      more.append('--no-match')
    got = json.loads(written(tmp_path, gt, submission, more))
    assert texts(got) == texts(want), file


def test_several_annotators(folder, tmp_path):
  path = present(folder / 'evaluator' / 'didemo_style.json')
  content = json.loads(path.read_text())
  want = content['metrics']
  index = json.loads(present(path.with_name('predictions.json')).read_text())
  gt, pred = tmp_path / 'gt.jsonl', tmp_path / 'pred.json'
  gt.write_text('\n'.join(map(json.dumps, content['ground_truth'])))
  lists = dict.fromkeys(want, content['predictions'])
  pred.write_text(json.dumps({'video2idx': index['video2idx'], **lists}))
  got = written(tmp_path, gt, pred, options(want))
  assert texts(json.loads(got)) == texts(want)


def test_whole_evaluations(folder, tmp_path, capsys):
  """Byte by byte; a split whose answers are hidden is refused."""
  results = present(folder / 'tiny_tvr' / 'results')
  judged = hidden = 0
  for pred in sorted(results.glob('*_predictions_*.json')):
    metrics = pred.with_name(f'{pred.stem}_metrics.json')
    if pred.stem.endswith('_metrics'):
      continue
    (gt,) = [
      path
      for path in (folder / 'tiny_tvr' / 'data').glob('*_release.jsonl')
      if f'_{path.stem.removesuffix("_release")}_' in pred.stem
    ]
    if metrics.exists():
      want = metrics.read_text()
      more = options(json.loads(want))
      assert written(tmp_path, gt, pred, more) == want, pred
      judged += 1
    elif 'vid_name' not in gt.read_text().split('\n')[0]:
      given = ['--gt', str(gt), '--pred', str(pred)]
      assert evaluate_moments.main(given) == 1
      assert 'hidden' in capsys.readouterr().err
      hidden += 1
  if not judged:
    pytest.skip(f'{results} has no predictions with their metrics')
  print(f'{judged} prediction files judged, {hidden} of hidden splits refused')
