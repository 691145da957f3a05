# SPDX-License-Identifier: Apache-2.0
"""The look of a moment report: numbers, charts, filters, then the queries.

Filters are radio buttons that the style sheet reads. The one script plays
spans and sorts; without it the clips still start at their spans.
"""

from vidret_jax.evaluators.report import (
  filters,
  moment_cards,
  moment_numbers,
  static_page,
)
from vidret_jax.evaluators.report.clips import Clips
from vidret_jax.evaluators.report.markup import Markup, tag

_ORDERS = {
  'drawn': 'as drawn',
  'worst': 'worst IoU first',
  'best': 'best IoU first',
  'place': 'right video furthest down',
}


def render(page, clips: Clips) -> str:
  """The page as text; see `moments_page.Page`."""
  body = [
    _patterns(),
    _header(page),
    tag(
      'main',
      _controls(page),
      [moment_cards.row(row, page, clips) for row in page.rows],
    ),
  ]
  return static_page.render(
    page.title,
    body,
    styles=(static_page.STYLE, 'moments.css'),
    script='moments.js',
  )


def _patterns() -> Markup:
  """What lies beyond the end of a video is hatched."""
  line = tag('path', d='M-1 1 1 -1M0 6 6 0M5 7 7 5', cls='hatching')
  pattern = tag(
    'pattern',
    line,
    id='hatch',
    width=6,
    height=6,
    patternUnits='userSpaceOnUse',
  )
  return tag(
    'svg',
    tag('defs', pattern),
    width=0,
    height=0,
    cls='defs',
    aria_hidden='true',
  )


def _header(page) -> Markup:
  return tag(
    'header',
    tag('h1', page.title),
    [tag('p', text, cls='note') for text in page.notes],
    tag(
      'dl',
      [tag('div', tag('dt', k), tag('dd', v)) for k, v in page.facts],
      cls='facts',
    ),
    moment_numbers.summary(page),
  )


def _controls(page) -> Markup:
  """Filters, order, and what the colours mean."""
  hows = [moment_cards.outcome(row) for row in page.rows]
  about = [row.kind for row in page.rows]
  groups = []
  judged = any(how in moment_cards.OUTCOMES for how in hows)
  if judged:
    names = {k: v[0] for k, v in moment_cards.OUTCOMES.items()}
    groups.append(filters.radios('show', 'first answer', names, hows))
  kinds = {k: v[0] for k, v in moment_cards.KINDS.items() if k in about}
  if len(kinds) > 1:
    groups.append(filters.radios('kind', 'kind of query', kinds, about))
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
  loop = tag(
    'label',
    tag('input', type='checkbox', id='loop', checked=True),
    tag('span', '↻ repeat the span'),
    title='otherwise a clip stops at the end of its span',
  )
  return tag(
    'div',
    groups,
    tag('div', loop, cls='filters scripted'),
    order if judged else None,
    tag(
      'ul',
      tag('li', tag('i', cls='swatch truth'), 'true span')
      if any(row.truth for row in page.rows)
      else None,
      tag('li', tag('i', cls='swatch found'), 'predicted'),
      [
        tag('li', tag('i', cls='swatch p-start'), 'start probability'),
        tag('li', tag('i', cls='swatch p-end'), 'end probability'),
      ]
      if any(row.curves is not None for row in page.rows)
      else None,
      cls='legend',
    ),
    tag('output', id='count', aria_live='polite'),
    cls='controls',
  )
