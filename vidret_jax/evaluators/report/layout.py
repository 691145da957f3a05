# SPDX-License-Identifier: Apache-2.0
"""The look of a ranking report: one static page, no scripts, no other files.

Filters and the blind mode are radio buttons and a check box that the style
sheet reads (`:has`).
"""

import math

from vidret_jax.evaluators.report import cards, charts, static_page
from vidret_jax.evaluators.report.clips import Clips
from vidret_jax.evaluators.report.markup import Markup, tag

_NAMES = {'t2v': 'text → video', 'v2t': 'video → text'}
_PERCENT = ('nDCG', 'mAP')
_LEAK = (
  'Leaky 2019 rule: every number on this page was made by telling the model '
  'which experts the right video has. They are overestimates and compare '
  'with no others.'
)


def render(page, clips: Clips) -> str:
  """The page as text; see `ranking_page.Page`."""
  labels = short_names(page.experts)
  body = [
    _header(page),
    tag(
      'main',
      _controls(page, labels),
      [cards.row(row, page, labels, clips) for row in page.rows],
    ),
  ]
  return static_page.render(page.title, body)


def short_names(names: tuple[str, ...]) -> list[str]:
  """The shortest run of dotted parts from the left that tells names apart."""
  out = []
  for name in names:
    parts = name.split('.')
    for n in range(1, len(parts) + 1):
      start = '.'.join(parts[:n])
      if sum(o == start or o.startswith(start + '.') for o in names) == 1:
        break
    out.append(start)
  return out


def _header(page) -> Markup:
  return tag(
    'header',
    tag('h1', page.title),
    tag('p', _LEAK, cls='leak', role='alert') if page.leaky else None,
    [tag('p', text, cls='note') for text in page.notes],
    tag(
      'dl',
      [tag('div', tag('dt', k), tag('dd', v)) for k, v in page.facts],
      cls='facts',
    ),
    tag(
      'div',
      _table(page),
      tag(
        'figure',
        charts.recall_curves(page.ranks, page.candidates),
        tag(
          'figcaption',
          tag('span', _NAMES['t2v'], cls='key t2v'),
          tag('span', _NAMES['v2t'], cls='key v2t'),
          tag('span', 'chance', cls='key chance'),
        ),
      ),
      cls='summary',
    ),
    _stages(page) if page.stages else None,
  )


def _stages(page) -> Markup:
  """Text to video after each stage, and what a query costs there."""
  metrics = next(list(s.metrics) for s in page.stages if s.metrics)
  costs = ('mflop', 'MFLOP', 'million operations'), ('mb', 'MB', 'data moved')

  def cell(value, kind=None):
    text = '–' if value is None else number(value)
    return tag('td', text, tag('span', ' %', cls='unit') if kind else None)

  lines = [
    tag(
      'tr',
      tag('th', stage.name, scope='row'),
      [
        cell(
          stage.metrics and stage.metrics[m],
          '@' in m and stage.metrics is not None,
        )
        for m in metrics
      ],
      [
        tag('td', amount(getattr(stage.cost, c)) if stage.cost else '–')
        for c, _, _ in costs
      ],
    )
    for stage in page.stages
  ]
  heads = [tag('th', m, scope='col') for m in metrics]
  heads += [
    tag('th', f'{name} per query', scope='col', title=title)
    for _, name, title in costs
  ]
  return tag(
    'table',
    tag('caption', f'{_NAMES["t2v"]}, after each stage', _saved(page.stages)),
    tag('thead', tag('tr', tag('td'), heads)),
    tag('tbody', lines),
    cls='metrics stages',
  )


def _table(page) -> Markup:
  metrics = list(next(iter(page.table.values())))
  mark = tag('small', 'leaky 2019') if page.leaky else None
  percent = tag('span', ' %', cls='unit')
  rows = [
    tag(
      'tr',
      tag('th', _NAMES[d], scope='row'),
      [
        tag(
          'td',
          number(row[m]),
          percent if '@' in m or m.startswith(_PERCENT) else None,
          mark,
          data_metric=f'{d}_{m}',
        )
        for m in metrics
      ],
    )
    for d, row in page.table.items()
  ]
  return tag(
    'table',
    tag(
      'thead',
      tag('tr', tag('td'), [tag('th', m, scope='col') for m in metrics]),
    ),
    tag('tbody', rows),
    cls='metrics',
  )


def number(value: float) -> str:
  """One decimal, as the papers print."""
  return '∞' if math.isinf(value) else f'{value:.1f}'


def _saved(stages) -> str:
  """What the stages that were run cost, next to the one that was not."""
  if any(s.cost is None for s in stages):
    return ''
  run = [s.cost for s in stages if s.metrics]
  instead = next((s.cost for s in stages if not s.metrics), None)
  if instead is None or not (instead.mflop and instead.mb):
    return ''
  flops = 100 * sum(c.mflop for c in run) / instead.mflop
  moved = 100 * sum(c.mb for c in run) / instead.mb
  return (
    f': both take {flops:.0f} % of the operations and {moved:.0f} % of the '
    'bytes of the last line'
  )


def amount(value: float) -> str:
  """Two digits or more, thousands apart."""
  return f'{value:,.0f}' if value >= 100 else f'{value:.2g}'


def _controls(page, labels) -> Markup:
  """Filters, the blind mode and the legend of experts."""
  kinds = {
    'all': 'all',
    'first': 'right clip first',
    'top': 'in the top 5',
    'miss': 'missed',
  }
  counts = {'all': len(page.rows)}
  for row in page.rows:
    counts[cards.kind(row)] = counts.get(cards.kind(row), 0) + 1
  radios = [
    tag(
      'label',
      tag(
        'input', type='radio', name='show', id=f'show-{k}', checked=k == 'all'
      ),
      tag('span', f'{text} ', tag('b', str(counts.get(k, 0)))),
    )
    for k, text in kinds.items()
  ]
  blind = tag(
    'label',
    tag('input', type='checkbox', id='blind'),
    tag('span', 'hide the answers'),
    title='for judging results by eye',
  )
  legend = None
  if labels:
    legend = tag(
      'ul',
      [
        tag('li', tag('i', cls=f'dot c{i % cards.PALETTE}'), label, title=name)
        for i, (label, name) in enumerate(zip(labels, page.experts))
      ],
      cls='legend',
      aria_label='experts',
    )
  return tag(
    'div', tag('div', radios, blind, cls='filters'), legend, cls='controls'
  )
