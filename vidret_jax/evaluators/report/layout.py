# SPDX-License-Identifier: Apache-2.0
"""The look of a ranking report: one static page, no scripts, no other files.

Filters and the blind mode are radio buttons and a check box that the style
sheet reads (`:has`).
"""

import base64
import hashlib
import importlib.resources
import math

from vidret_jax.evaluators.report import charts
from vidret_jax.evaluators.report.clips import TYPES, Clips
from vidret_jax.evaluators.report.markup import (
  Link,
  Markup,
  document,
  stylesheet,
  tag,
)

_PALETTE = 12  # Colours of experts in style.css; more experts share them.
_NAMES = {'t2v': 'text → video', 'v2t': 'video → text'}
_LEAK = (
  'Leaky 2019 rule: every number on this page was made by telling the model '
  'which experts the right video has. They are overestimates and compare '
  'with no others.'
)


def render(page, clips: Clips) -> str:
  """The page as text; see `ranking_page.Page`."""
  css = (
    importlib.resources.files(__package__)
    .joinpath('style.css')
    .read_text('utf-8')
  )
  digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
  policy = (
    f"default-src 'none'; style-src 'sha256-{digest}'; "
    "media-src 'self' file:; base-uri 'none'; form-action 'none'"
  )
  labels = short_names(page.experts)
  head = [
    tag('meta', charset='utf-8'),
    tag('meta', http_equiv='Content-Security-Policy', content=policy),
    tag('meta', name='viewport', content='width=device-width'),
    tag('meta', name='referrer', content='no-referrer'),
    tag('title', page.title),
    stylesheet(css),
  ]
  body = [
    _header(page),
    tag(
      'main',
      _controls(page, labels),
      [_row(row, page, labels, clips) for row in page.rows],
    ),
  ]
  return document(head, body)


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
          percent if '@' in m else None,
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
    counts[_kind(row)] = counts.get(_kind(row), 0) + 1
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
        tag('li', tag('i', cls=f'dot c{i % _PALETTE}'), label, title=name)
        for i, (label, name) in enumerate(zip(labels, page.experts))
      ],
      cls='legend',
      aria_label='experts',
    )
  return tag(
    'div', tag('div', radios, blind, cls='filters'), legend, cls='controls'
  )


def _kind(row) -> str:
  if row.rank <= 1:
    return 'first'
  return 'top' if any(c.correct for c in row.top) else 'miss'


def _row(row, page, labels, clips) -> Markup:
  total = page.candidates['t2v']
  badge = tag(
    'span',
    'rank ',
    tag('b', f'{row.rank:g}'),
    f' of {total:,}',
    cls='rank',
    title='one-based; clips of equal score share their mean rank',
  )
  heading = tag(
    'div',
    badge,
    tag('h2', tag('q', tag('bdi', row.text))),
    tag('code', row.id),
    cls='query',
  )
  mixture = None
  if row.weights is not None:
    mixture = tag(
      'ul',
      [
        tag(
          'li',
          tag('span', label),
          charts.bar(w, i % _PALETTE),
          tag('b', f'{100 * w:.0f} %'),
          title=name,
        )
        for i, (label, name, w) in enumerate(
          zip(labels, page.experts, row.weights)
        )
      ],
      cls='mixture',
      aria_label='mixture weights of this query',
    )
  return tag(
    'article',
    heading,
    mixture,
    tag(
      'div',
      _card(row.truth, row, labels, clips),
      [_card(c, row, labels, clips) for c in row.top],
      cls='cards',
    ),
    cls=f'row {_kind(row)}',
    id=f'q-{row.id}',
  )


def _card(card, row, labels, clips) -> Markup:
  truth = card.place is None
  place = 'ground truth' if truth else f'rank {card.place}'
  kind = 'truth' if truth else 'right' if card.correct else 'other'
  sim = f'sim {card.sim:.3f}' if math.isfinite(card.sim) else 'no score'
  return tag(
    'section',
    tag(
      'div',
      tag('span', place, cls='place'),
      tag('span', '✓ correct', cls='mark') if kind == 'right' else None,
      tag('span', sim, cls='sim'),
      cls='line',
    ),
    _video(card, clips.place(card.id, card.video)),
    tag('code', card.id, cls='id'),
    _experts(card, labels),
    _captions(card, row) if truth else _first_caption(card),
    cls=f'card {kind}',
    data_id=card.id,
  )


def _video(card, link: Link | None) -> Markup:
  if link is None:
    return tag('div', 'no video file', cls='video none')
  kind = next((t for s, t in TYPES.items() if link.endswith(s)), None)
  return tag(
    'video',
    tag('source', src=link, type=kind),
    controls=True,
    muted=True,
    loop=True,
    playsinline=True,
    preload='metadata',
    cls='video',
    aria_label=f'clip {card.id}',
  )


def _experts(card, labels) -> Markup | None:
  """Which experts the clip has, and their shares in this comparison."""
  if card.available is None:
    return None
  chips = [
    tag(
      'i',
      cls=f'dot c{i % _PALETTE}' if have else 'dot gone',
      title=f'{label}: {"available" if have else "missing"}',
    )
    for i, (label, have) in enumerate(zip(labels, card.available))
  ]
  missing = [n for n, have in zip(labels, card.available) if not have]
  bar = None
  if card.shares is not None:
    bar = charts.strip(
      card.shares, [i % _PALETTE for i in range(len(card.shares))]
    )
    text = ', '.join(
      f'{n} {100 * s:.0f} %'
      for n, s, have in zip(labels, card.shares, card.available)
      if have
    )
    bar = tag('div', bar, title=f'weights here: {text}')
  return tag(
    'div',
    bar,
    tag('span', chips, cls='dots'),
    tag('span', 'without ' + ', '.join(missing), cls='without')
    if missing
    else None,
    cls='experts',
  )


def _captions(card, row) -> Markup | None:
  """All captions of the right clip; the query's own one stands out."""
  if not card.captions:
    return None
  lines = [
    tag('li', tag('bdi', text), cls='asked' if text == row.text else None)
    for text in card.captions
  ]
  return tag('ul', lines, cls='captions')


def _first_caption(card) -> Markup | None:
  """What a retrieved clip is said to show, to judge a miss by."""
  if not card.captions:
    return None
  return tag(
    'p',
    tag('bdi', card.captions[0]),
    cls='says',
    title='first caption of this clip',
  )
