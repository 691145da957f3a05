# SPDX-License-Identifier: Apache-2.0
"""The look of a report of video-to-video retrieval: numbers, then the queries.

Filters are radio buttons that the style sheet reads. The one script sorts
queries and plays the clips of one together; nothing else needs it.
"""

import re

import numpy as np

from vidret_jax.evaluators.report import (
  charts,
  copy_cards,
  filters,
  static_page,
)
from vidret_jax.evaluators.report.clips import Clips
from vidret_jax.evaluators.report.markup import Markup, tag

STYLES = (static_page.STYLE, 'copies.css')
SCRIPT = 'copies.js'
_COLOURS = 4  # Of curves in copies.css; more tasks share them.
_ORDERS = {
  'drawn': 'as drawn',
  'worst': 'worst AP first',
  'best': 'best AP first',
  'most': 'most relatives first',
}
_SCENES = {
  'DS': 'duplicate scene',
  'CS': 'complementary scene',
  'IS': 'incident scene',
  'DA': 'duplicate audio',
}
# Retrieval and detection have names of their own in FIVR-200K.
_FIVR = re.compile(r'(DS|CS|IS|DA)V([RD])(_h)?')
_OTHER = re.compile(r'(?:(.+?)_)?(mAP|uAP)(_h)?')
# The page counts what is found by itself.
_COUNTED = ('_found', '_expected')
_ONE = {'queries': 'query', 'videos': 'video'}
_COLUMNS = {
  ('mAP', ''): ('mAP', 'mean over queries of average precision'),
  ('uAP', ''): ('uAP', 'one average precision over all pairs (micro-AP)'),
  ('mAP', '_h'): ('mAP, hard', 'without easy duplicates'),
  ('uAP', '_h'): ('uAP, hard', 'without easy duplicates'),
}


def render(page, clips: Clips) -> str:
  """The page as text; see `copies_page.Page`."""
  body = [
    _header(page),
    tag(
      'main',
      _controls(page),
      [copy_cards.row(row, page, clips) for row in page.rows],
    ),
  ]
  return static_page.render(page.title, body, styles=STYLES, script=SCRIPT)


def results(values) -> tuple[dict, dict]:
  """({task: {(kind, '_h' or ''): (name, value)}}, {name: other value})."""
  table: dict = {}
  others = {}
  for name, value in values.items():
    fivr, other = _FIVR.fullmatch(name), _OTHER.fullmatch(name)
    if fivr:
      task, kind, hard = fivr[1], 'mAP' if fivr[2] == 'R' else 'uAP', fivr[3]
    elif other:
      task, kind, hard = other[1] or '', other[2], other[3]
    else:
      if not name.endswith(_COUNTED):
        others[name] = value
      continue
    table.setdefault(task, {})[kind, hard or ''] = name, float(value)
  return table, others


def _header(page) -> Markup:
  table, others = results(page.results)
  return tag(
    'header',
    tag('h1', page.title),
    [tag('p', text, cls='note') for text in page.notes],
    [_absent(*entry) for entry in page.absent],
    tag(
      'dl',
      [tag('div', tag('dt', k), tag('dd', v)) for k, v in page.facts],
      [
        tag('div', tag('dt', k), tag('dd', f'{v:g}')) for k, v in others.items()
      ],
      cls='facts',
    ),
    tag(
      'div',
      _table(table) if table else None,
      _chart(page),
      cls='summary',
    ),
    _events(page) if page.events else None,
  )


def _absent(kind, count, names) -> Markup:
  """Missing videos shrink what is ranked: nobody may overlook them."""
  rest = count - len(names)
  words = f'{count:,} {kind} are missing: they were not scored'
  if count == 1:
    words = f'1 {_ONE[kind]} is missing: it was not scored'
  return tag(
    'details',
    tag('summary', words),
    tag(
      'p',
      [tag('code', tag('bdi', name), ' ') for name in names],
      f'and {rest:,} more' if rest else None,
    ),
    cls='absent',
  )


def _table(table) -> Markup:
  columns = [c for c in _COLUMNS if any(c in line for line in table.values())]
  percent = tag('span', ' %', cls='unit')

  def cell(entry):
    if entry is None:
      return tag('td', '–')
    name, value = entry
    return tag('td', f'{value:.2f}', percent, data_metric=name)

  lines = [
    tag(
      'tr',
      tag('th', _task(task), scope='row'),
      [cell(line.get(c)) for c in columns],
    )
    for task, line in table.items()
  ]
  heads = [
    tag('th', _COLUMNS[c][0], scope='col', title=_COLUMNS[c][1])
    for c in columns
  ]
  return tag(
    'table',
    tag('thead', tag('tr', tag('td'), heads)),
    tag('tbody', lines),
    cls='metrics copies',
  )


def _task(name) -> list[str | Markup]:
  """As the data set calls it, and in words."""
  if name not in _SCENES:
    return [name or 'all queries']
  short = tag('span', f' {name}VR, {name}VD', cls='unit')
  return [_SCENES[name], short]


def _chart(page) -> Markup | None:
  """How far down the list one has to look."""
  shown = {t: x for t, x in page.recall.items() if not np.isnan(x).any()}
  if not shown:
    return None
  most = int(page.cutoffs[-1])
  lines = [
    (
      f'curve task{i % _COLOURS}',
      np.log(page.cutoffs) / np.log(max(most, 2)),
      x,
    )
    for i, x in enumerate(shown.values())
  ]
  ticks = [10**d for d in range(8) if 10**d <= most]
  places = [(np.log(k) / np.log(max(most, 2)), f'{k:,}') for k in ticks]
  label = 'share of the relatives among the first k, in percent'
  return tag(
    'figure',
    charts.percents(lines, places, label),
    tag(
      'figcaption',
      tag('span', '% of relatives among the first k'),
      [
        tag('span', task, cls=f'key task{i % _COLOURS}')
        for i, task in enumerate(shown)
      ],
    ),
  )


def _events(page) -> Markup:
  """Mean AP of the queries of each event."""
  lines = [
    tag(
      'tr',
      tag('th', tag('bdi', event), scope='row'),
      tag('td', f'{count:,}'),
      tag('td', f'{value:.1f}', tag('span', ' %', cls='unit')),
    )
    for event, (count, value) in page.events.items()
  ]
  head = tag('tr', tag('td'), tag('th', 'queries'), tag('th', 'mAP'))
  return tag(
    'details',
    tag('summary', f'{len(page.events)} events'),
    tag('table', tag('thead', head), tag('tbody', lines), cls='metrics copies'),
    cls='more',
  )


def _controls(page) -> Markup:
  """Filters, order, and what the colours mean."""
  hows = [copy_cards.outcome(row) for row in page.rows]
  names = {k: v for k, v in copy_cards.OUTCOMES.items() if k in hows}
  known = {label for row in page.rows for label in row.related}
  order = tag(
    'label',
    'order ',
    tag(
      'select',
      [tag('option', text, value=key) for key, text in _ORDERS.items()],
      id='order',
    ),
    cls='scripted',
  )
  return tag(
    'div',
    filters.radios('show', 'how a query went', names, hows),
    order,
    tag(
      'ul',
      [
        tag('li', copy_cards.label(x), text if x not in ('P', 'N') else None)
        for x, text in copy_cards.LABELS.items()
        if x in known
      ],
      cls='legend',
    ),
    cls='controls',
  )
