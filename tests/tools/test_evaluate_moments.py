# SPDX-License-Identifier: Apache-2.0
"""The stand-alone evaluator, from two files to a table and a file."""

import json
import subprocess
import sys

import pytest

from tests.evaluators import moment_problem as problem
from vidret_jax.evaluators import moment_files
from vidret_jax.metrics import moments
from vidret_jax.tools import evaluate_moments


@pytest.fixture
def files(tmp_path):
  """(annotations, predictions)."""
  pred = tmp_path / 'pred.json'
  moment_files.write(
    pred, problem.lists(), problem.rows(), problem.VIDEO2IDX, problem.NUMBERS
  )
  return problem.write_rows(tmp_path / 'gt.jsonl'), pred


def call(files, *more):
  gt, pred = files
  return evaluate_moments.main(['--gt', str(gt), '--pred', str(pred), *more])


def rewrite(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def test_table_and_file(files, tmp_path, capsys):
  out = tmp_path / 'new' / 'm.json'
  given = ['--out', str(out), '--topk', '1', '5', '--iou', '0.3', '0.9']
  assert call(files, *given) == 0
  said = capsys.readouterr().out
  assert 'types in percent: v 33.33 t 33.33 vt 33.33' in said
  assert f'written: {out}' in said and 'note' not in said
  table = json.loads(out.read_text())
  assert list(table) == [
    *moments.TASKS,
    *(f'{task}_by_type' for task in moments.TASKS),
  ]
  assert list(table['VCMR']) == ['0.3-r1', '0.3-r5', '0.9-r1', '0.9-r5']
  assert out.read_text() == json.dumps(table, indent=4)
  cells = [
    [cell.strip() for cell in line.strip('│').split('│')]
    for line in said.splitlines()
    if '│' in line
  ]
  assert len(cells) == (2 + 2 + 1) * 4
  row = table['SVMR_by_type']
  values = [f'{row[f"vt-0.3-r{k}"]:.2f}' for k in (1, 5)]
  assert ['SVMR', 'vt', '0.3', *values] in cells
  values = [f'{table["VR"][f"r{k}"]:.2f}' for k in (1, 5)]
  assert ['VR', 'all', '', *values] in cells


def test_choices(files, tmp_path, capsys):
  out = tmp_path / 'm.json'
  given = ['--out', str(out), '--no-types', '--tasks', 'VR', 'VCMR']
  assert call(files, *given) == 0
  assert list(json.loads(out.read_text())) == ['VCMR', 'VR']
  rewrite(files[1], lambda x: x.pop('SVMR'))
  assert call(files, '--tasks', 'SVMR') == 1
  assert 'has no SVMR; there is VCMR, VR' in capsys.readouterr().err


def test_types_that_no_query_has(files, tmp_path, capsys):
  gt = files[0]
  rows = [row for row in problem.rows() if row['type'] != 'vt']
  problem.write_rows(gt, rows)
  out = tmp_path / 'm.json'
  assert call(files, '--no-match', '--out', str(out)) == 0
  said = capsys.readouterr().out
  assert 'vt 0.0' in said and '│ vt' not in said and '│ v ' in said
  assert '"vt-0.5-r1": NaN' in out.read_text()  # As upstream writes it.
  problem.write_rows(gt, [{k: r[k] for k in r if k != 'type'} for r in rows])
  assert call(files, '--no-match') == 0
  said = capsys.readouterr().out
  assert "no row has 'type': no numbers for each type" in said
  assert '│ v ' not in said


def test_queries_of_one_side_only(files, capsys):
  gt, pred = files
  rewrite(pred, lambda x: x['VR'].pop(2))
  assert call(files) == 1
  err = capsys.readouterr().err
  assert 'pred.json, VR: the 5 queries are not the 6' in err
  assert "1 are missing: '102'; 0 are unknown: none" in err
  assert '--no-match' in err
  assert call(files, '--no-match') == 0

  def fewer(content):
    """Queries 101 and 104 belong to video b."""
    for task in moments.TASKS:
      content[task] = [
        x for x in content[task] if x['desc_id'] not in (101, 104)
      ]
    del content['video2idx']['b']

  rewrite(pred, fewer)
  assert call(files, '--no-match') == 0
  assert call(files) == 1
  assert "no number in video2idx: 'b'" in capsys.readouterr().err
  problem.write_rows(gt, [dict(problem.rows()[0], desc_id=9)])
  assert call(files, '--no-match') == 1
  assert "no query is one of the annotations, whose ids are '9'" in (
    capsys.readouterr().err
  )


def test_rows_that_hide_their_answers(files, capsys):
  gt, _ = files
  hidden = ('desc_id', 'desc')
  problem.write_rows(gt, [{k: r[k] for k in hidden} for r in problem.rows()])
  assert call(files) == 1
  err = capsys.readouterr().err
  assert 'hidden cannot be evaluated here. Send the predictions' in err
  known = (*hidden, 'vid_name', 'type')
  problem.write_rows(gt, [{k: r[k] for k in known} for r in problem.rows()])
  assert call(files) == 0
  said = capsys.readouterr().out
  assert 'VCMR, SVMR left out' in said and '│ VR ' in said
  assert '│ SVMR' not in said
  assert call(files, '--tasks', 'SVMR') == 1
  assert "no row has 'ts', which SVMR needs" in capsys.readouterr().err


def test_bad_input_writes_nothing(files, tmp_path, capsys):
  gt, pred = files
  out = tmp_path / 'm.json'
  before = gt.read_text(), pred.read_text()
  for more, message in (
    (['--out', str(pred)], 'would replace what is evaluated'),
    (['--out', str(tmp_path / 'x' / '..' / 'gt.jsonl')], 'would replace'),
    (['--iou', '1.5', '--out', str(out)], 'expected some in (0, 1]'),
    (['--topk', '0', '--out', str(out)], 'whole numbers from 1'),
    (['--pred', str(tmp_path / 'none.json')], 'none.json'),
    (['--gt', str(pred)], "pred.json:1: no 'desc_id'; expected"),
    (['--pred', str(gt)], 'is no JSON'),
  ):
    assert call(files, *more) == 1
    assert message in capsys.readouterr().err
  assert (gt.read_text(), pred.read_text()) == before
  assert not out.exists()


def test_command_line_needs_neither_jax_nor_tensorflow(files):
  code = (
    'import sys; from vidret_jax.tools import evaluate_moments as tool; '
    'status = tool.main(sys.argv[1:]); '
    "print(sorted({'jax', 'tensorflow', 'torch'} & set(sys.modules)))"
  )
  gt, pred = files
  done = subprocess.run(
    [sys.executable, '-c', code, '--gt', str(gt), '--pred', str(pred)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.splitlines()[-1] == '[]'
