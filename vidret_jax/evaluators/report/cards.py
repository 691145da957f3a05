# SPDX-License-Identifier: Apache-2.0
"""One query of a ranking report: its words, mixture, right clip and top."""

import math

from vidret_jax.evaluators.report import charts
from vidret_jax.evaluators.report import clips as clips_lib
from vidret_jax.evaluators.report.markup import Markup, tag

PALETTE = 12  # Colours of experts in style.css; more experts share them.


def kind(row) -> str:
  if row.rank <= 1:
    return 'first'
  return 'top' if any(c.correct for c in row.top) else 'miss'


def row(row, page, labels, clips) -> Markup:
  total = page.candidates['t2v']
  badge = tag(
    'span',
    'rank ',
    tag('b', f'{row.rank:g}'),
    f' of {total:,}',
    cls='rank',
    title=f'one-based; {row.tie_rule}',
  )
  heading = tag(
    'div',
    badge,
    tag('h2', tag('q', tag('bdi', row.text))),
    _judged(row),
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
          charts.bar(w, i % PALETTE),
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
    cls=f'row {kind(row)}',
    id=f'q-{row.id}',
  )


def _card(card, row, labels, clips) -> Markup:
  truth = card.place is None
  place = f'rank {card.place}'
  if truth:
    place = 'ground truth' if card.correct else 'no right clip'
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
    _stages(card, row),
    _relevance(card),
    clips_lib.player(clips.place(card.id, card.video), card.id),
    tag('code', card.id, cls='id'),
    _experts(card, labels),
    _captions(card, row) if truth else first_caption(card),
    cls=f'card {kind}',
    data_id=card.id,
  )


def _stages(card, row) -> Markup | None:
  """Where the first of two stages had the clip, and where it stands now."""
  if card.coarse is None:
    return None
  after = row.rank if card.place is None else card.place
  moved = 'same' if after == card.coarse else 'up'
  if after > card.coarse:
    moved = 'down'
  return tag(
    'div',
    'coarse ',
    tag('b', f'{card.coarse:g} → {after:g}', cls=moved),
    '' if card.listed else ', not a candidate',
    cls='stages',
    title='rank by the coarse score, and after the fine one',
  )


def _judged(row) -> Markup | None:
  """nDCG of the query, and how many clips are right where it is not one."""
  parts = [] if row.ndcg is None else [f'nDCG {100 * row.ndcg:.1f} %']
  if row.right != 1:
    parts.append(f'{row.right} right clips')
  return tag('span', ', '.join(parts), cls='judged') if parts else None


def _relevance(card) -> Markup | None:
  """How relevant the clip is, and what each level thinks of it."""
  if card.relevance is None and not card.levels:
    return None
  shown = None
  if card.relevance is not None:
    full, some = card.relevance == 1, card.relevance > 0
    shown = tag(
      'b',
      f'relevance {card.relevance:.2f}',
      cls='full' if full else 'some' if some else 'zero',
    )
  levels = ', '.join(f'{name} {sim:.3f}' for name, sim in card.levels)
  return tag(
    'div', shown, tag('span', levels) if levels else None, cls='relevance'
  )


def _experts(card, labels) -> Markup | None:
  """Which experts the clip has, and their shares in this comparison."""
  if card.available is None:
    return None
  chips = [
    tag(
      'i',
      cls=f'dot c{i % PALETTE}' if have else 'dot gone',
      title=f'{label}: {"available" if have else "missing"}',
    )
    for i, (label, have) in enumerate(zip(labels, card.available))
  ]
  missing = [n for n, have in zip(labels, card.available) if not have]
  bar = None
  if card.shares is not None:
    bar = charts.strip(
      card.shares, [i % PALETTE for i in range(len(card.shares))]
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


def first_caption(card) -> Markup | None:
  """What a retrieved clip is said to show, to judge a miss by."""
  if not card.captions:
    return None
  return tag(
    'p',
    tag('bdi', card.captions[0]),
    cls='says',
    title='first caption of this clip',
  )
