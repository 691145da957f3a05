# SPDX-License-Identifier: Apache-2.0
"""The numbers of a moment report: tables of recall, and two charts."""

from collections.abc import Mapping
import re

import numpy as np

from vidret_jax.evaluators.report import charts, moment_cards, overlaps
from vidret_jax.evaluators.report.markup import Markup, tag
from vidret_jax.metrics import ranks as ranks_lib

_TASKS = {
  'VCMR': 'find the video and the moment',
  'SVMR': 'find the moment in the right video',
  'VR': 'find the video',
}
_NAME = re.compile(
  r'(?:(.+)_)?(VCMR|SVMR|VR)_(?:(v|t|vt)-)?(?:([0-9.]+)-)?r([0-9]+)'
)
_LINES = {'VCMR R@1': 'vcmr', 'VCMR R@10': 'vcmr deep', 'SVMR R@1': 'svmr'}


def summary(page) -> list[Markup | None]:
  """Tables and charts of a `moments_page.Page`."""
  table = results(page.results)
  return [
    tag(
      'div',
      _table(table) if table else None,
      _overlap_chart(page),
      _rank_chart(page),
      cls='summary',
    ),
    _by_kind(table),
  ]


def results(values: Mapping[str, float]) -> dict:
  """Names taken apart: {(prefix, task, threshold): {kind: {k: (name, value)}}}.

  The kind of all queries together is ''; names of other forms are left out.
  """
  out: dict = {}
  for name, value in values.items():
    match = _NAME.fullmatch(name)
    if match is None:
      continue
    prefix, task, kind, threshold, k = match.groups()
    line = out.setdefault((prefix or '', task, threshold or ''), {})
    line.setdefault(kind or '', {})[int(k)] = (name, float(value))
  order = list(_TASKS)
  return dict(
    sorted(out.items(), key=lambda x: (x[0][0], order.index(x[0][1]), x[0][2]))
  )


def _heading(prefix, task, threshold) -> Markup:
  name = f'{prefix} {task}' if prefix else task
  return tag(
    'th',
    name,
    tag('span', f' IoU {threshold}', cls='unit') if threshold else None,
    scope='row',
    title=_TASKS[task],
  )


def _cell(found, cls=None) -> Markup:
  if found is None:
    return tag('td', '–', cls=cls)
  name, value = found
  percent = tag('span', ' %', cls='unit')
  return tag('td', f'{value:.1f}', percent, cls=cls, data_metric=name)


def _kinds(table) -> list[str]:
  return [
    k for k in moment_cards.KINDS if any(k in line for line in table.values())
  ]


def _table(table) -> Markup:
  """Recall of all queries, and R@1 by kind."""
  cutoffs = sorted({k for line in table.values() for k in line.get('', {})})
  kinds = _kinds(table)
  heads = [
    tag('th', f'R@{k}', scope='col', rowspan=2 if kinds else None)
    for k in cutoffs
  ]
  above = below = None
  if kinds:
    text = 'R@1 of queries about'
    above = tag(
      'th', text, scope='colgroup', colspan=len(kinds), cls='kinds first'
    )
    names = [moment_cards.KINDS[kind][0] for kind in kinds]
    sides = ['kinds first'] + ['kinds'] * len(kinds)
    below = tag(
      'tr',
      [tag('th', n, scope='col', cls=side) for n, side in zip(names, sides)],
    )
  lines = [
    tag(
      'tr',
      _heading(*key),
      [_cell(line.get('', {}).get(k)) for k in cutoffs],
      [
        _cell(line.get(kind, {}).get(1), 'kinds' if i else 'kinds first')
        for i, kind in enumerate(kinds)
      ],
    )
    for key, line in table.items()
  ]
  return tag(
    'table',
    tag(
      'thead',
      tag('tr', tag('td', rowspan=2 if kinds else None), heads, above),
      below,
    ),
    tag('tbody', lines),
    cls='metrics moments',
  )


def _by_kind(table) -> Markup | None:
  """The other cutoffs by kind."""
  cutoffs = sorted(
    {k for x in table.values() for y, z in x.items() if y for k in z} - {1}
  )
  if not cutoffs:
    return None
  lines = [
    tag(
      'tr',
      _heading(*key),
      tag('td', moment_cards.KINDS[kind][0], cls='what'),
      [_cell(line[kind].get(k)) for k in cutoffs],
    )
    for key, line in table.items()
    for kind in moment_cards.KINDS
    if kind in line
  ]
  heads = [tag('th', f'R@{k}', scope='col') for k in cutoffs]
  head = tag('tr', tag('td'), tag('th', 'queries about', scope='col'), heads)
  return tag(
    'details',
    tag('summary', 'by kind of query, deeper in the list'),
    tag(
      'table', tag('thead', head), tag('tbody', lines), cls='metrics moments'
    ),
    cls='more',
  )


def _overlap_chart(page) -> Markup | None:
  """Recall against the IoU asked for: how exact the spans are."""
  if not page.overlap:
    return None
  asked = np.linspace(0.05, 1, 96)
  lines = [
    (
      f'curve {_LINES[name]}',
      asked,
      [100 * overlaps.reaches(best, t).mean() for t in asked],
    )
    for name, best in page.overlap
  ]
  ticks = [(t, f'{t:g}') for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
  return tag(
    'figure',
    charts.percents(lines, ticks, 'recall in percent against the least IoU'),
    tag(
      'figcaption',
      tag('span', '% of queries at least this IoU'),
      [
        tag('span', name, cls=f'key {_LINES[name]}') for name, _ in page.overlap
      ],
    ),
  )


def _rank_chart(page) -> Markup | None:
  """How far down the right videos are."""
  if page.video_ranks is None or page.listed < 2:
    return None
  cutoffs = np.arange(1, page.listed + 1)
  found = ranks_lib.recall_curve(page.video_ranks, cutoffs)
  scale = np.log(page.listed)
  lines = [
    ('curve vr', np.log(cutoffs) / scale, found),
    ('chance vr', np.log(cutoffs) / scale, 100 * cutoffs / page.videos),
  ]
  ticks = [j * 10**d for d in range(7) for j in (1, 2, 5)]
  ticks = [k for k in ticks if k <= page.listed]
  return tag(
    'figure',
    charts.percents(
      lines,
      [(np.log(k) / scale, f'{k}') for k in ticks],
      'percent of right videos among the first k',
    ),
    tag(
      'figcaption',
      tag('span', '% of right videos in the first k'),
      tag('span', 'VR', cls='key vr'),
      tag('span', 'chance', cls='key chance'),
    ),
  )
