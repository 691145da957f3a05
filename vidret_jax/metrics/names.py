# SPDX-License-Identifier: Apache-2.0
"""Where a number stands in a table: its row and its column."""

import re

# Columns of a table, as far as an evaluation has them.
COLUMNS = (
  *('R@1', 'R@5', 'R@10', 'R@50', 'R@100', 'MdR', 'MnR', 'geom'),
  *('rsum', 'nDCG', 'mAP', 'mAP_binary', 'uAP'),
)
BOTH = 'both'  # The row of what belongs to both directions.
_COLUMN = '|'.join(map(re.escape, sorted(COLUMNS, key=len, reverse=True)))
_DIRECTED = re.compile(rf'(?:(.+)_)?(t2v|v2t)_({_COLUMN})(?:_(.+))?')
_MOMENTS = re.compile(
  r'(VCMR|SVMR|VR)_(?:(v|t|vt)-)?(?:(\d?\.\d+)-)?r(1|5|10|50|100)'
)
_FIVR = re.compile(r'(DS|CS|IS|DA)V([RD])(_h)?')
_ONE_TASK = re.compile(r'(EVVE|SVD)_(mAP|uAP)')
_OVERALL = re.compile(rf'(?:(.+?)_)?({_COLUMN})(?:_avg)?')


def place(name: str) -> tuple[str, str] | None:
  """(row, column) of a metric, None if it belongs to no table.

  't2v_R@1' -> ('t2v', 'R@1'); a stage or level before it ('coarse_t2v_R@1')
  and a mark behind it ('t2v_R@1_leaky2019') are part of the row: 'coarse t2v'
  and 't2v leaky2019'. 'rsum' and 'nDCG_avg' -> ('both', ...). Of moments, kind
  of query and overlap are: 'VCMR_vt-0.5-r10' -> ('VCMR vt 0.5', 'R@10'). Of
  copies, retrieval and detection share a row: 'DSVD_h' -> ('DSVR/DSVD hard',
  'uAP'), 'SVD_mAP' -> ('SVD', 'mAP').

  Args:
    name: without its evaluator.
  """
  if found := _DIRECTED.fullmatch(name):
    before, direction, column, mark = found.groups()
    return ' '.join(filter(None, (before, direction, mark))), column
  if found := _MOMENTS.fullmatch(name):
    *row, k = found.groups()
    return ' '.join(filter(None, row)), f'R@{k}'
  if found := _FIVR.fullmatch(name):
    task, kind, hard = found.groups()
    row = f'{task}VR/{task}VD' + (' hard' if hard else '')
    return row, 'mAP' if kind == 'R' else 'uAP'
  if found := _ONE_TASK.fullmatch(name):
    return found[1], found[2]
  if found := _OVERALL.fullmatch(name):
    before, column = found.groups()
    return ' '.join(filter(None, (before, BOTH))), column
  return None
