# SPDX-License-Identifier: Apache-2.0
"""Cards of videos that were found by a video, and one query with its cards."""

from collections.abc import Sequence
import math

from vidret_jax.evaluators.report import clips as clips_lib
from vidret_jax.evaluators.report.markup import Markup, tag

# What the annotations call a relation; FIVR-200K (arXiv 1809.04094), EVVE and
# SVD. The page has a colour for each.
LABELS = {
  'ND': 'near duplicate',
  'DS': 'duplicate scene',
  'CS': 'complementary scene',
  'IS': 'incident scene',
  'DA': 'duplicate audio',
  'P': 'relative',
  'N': 'labelled as no relative',
}
# How a query went, as its class and the filters name it.
OUTCOMES = {
  'first': 'AP 80 % or more',
  'top': '50 to 80 %',
  'miss': 'below 50 %',
  'open': 'without a number',
}
_LANE, _TOP, _FOOT = 20, 6, 18  # Pixels.


def outcome(row) -> str:
  """A key of `OUTCOMES`, by the first task that has a number."""
  value = next((x for x in row.ap.values() if x is not None), None)
  if value is None:
    return 'open'
  return 'first' if value >= 80 else 'top' if value >= 50 else 'miss'


def article(
  heading: Sequence[Markup | None],
  body: Sequence[Markup | None],
  *,
  kind: str,
  name: str,
  **data: str | None,
) -> Markup:
  """A block of the page: a line of words, then cards."""
  return tag(
    'article',
    tag('div', list(heading), play_all(), cls='query'),
    list(body),
    cls=f'row {kind}',
    id=name,
    **data,
  )


def play_all() -> Markup:
  """A button that plays all clips of a block together."""
  return tag(
    'button',
    tag('span', '▶', cls='sign', aria_hidden='true'),
    ' play together',
    type='button',
    cls='together scripted',
    aria_pressed='false',
  )


def card(
  place: str,
  name: str,
  file: str | None,
  clips: clips_lib.Clips,
  *,
  kind: str,
  score: str | None = None,
  marks: Sequence[Markup | None] = (),
  about: str | None = None,
  key: str | None = None,
) -> Markup:
  """A video that plays.

  Args:
    place: where it stands: 'query', '#3'.
    name: id of the video.
    file: a playable file, or None.
    clips: brings it below the page.
    kind: 'truth', 'right', 'other' or 'open', the look of the card.
    score: of the pair, as text.
    marks: words about it, see `label`.
    about: a line below the video.
    key: of the clip, where two videos may have one name.
  """
  marks = [mark for mark in marks if mark is not None]
  return tag(
    'section',
    tag(
      'div',
      tag('span', place, cls='place'),
      tag('span', score, cls='sim') if score else None,
      cls='line',
    ),
    tag('div', marks, cls='marks') if marks else None,
    clips_lib.player(clips.place(key or name, file), name, later=True),
    tag('code', tag('bdi', name), cls='id'),
    tag('span', about, cls='without') if about else None,
    cls=f'card {kind}',
    data_id=name,
  )


def label(name: str) -> Markup:
  """The relation to the query, in words and colour."""
  text = LABELS.get(name)
  known = f'label is-{name.lower()}' if text else 'label'
  short = name not in ('P', 'N')
  return tag('span', name if short else text, cls=known, title=text)


def number(score: float) -> str:
  """A score, with a sign that is as wide as a digit."""
  return f'{score:.3f}'.replace('-', '−') if math.isfinite(score) else '–'


def row(row, page, clips) -> Markup:
  """One query; see `copy_rows.Row`."""
  how = outcome(row)
  further = sorted((*row.beyond, *row.intruders), key=lambda c: c.place)
  query = card(
    'query',
    row.id,
    row.file,
    clips,
    kind='truth',
    marks=[tag('span', _relatives(row.relevant), cls='without')],
    about=_frames(row.frames),
  )
  nothing = None
  if not row.found:
    nothing = tag('p', 'This query is missing: nothing was scored.', cls='what')
  return article(
    [
      tag('h2', tag('bdi', row.id)),
      tag('span', tag('bdi', row.event), cls='kind') if row.event else None,
      [_ap(task, row.ap[task]) for task in page.tasks if task in row.ap],
    ],
    [
      tag(
        'div',
        query,
        [_card(c, row, page, clips) for c in row.answers],
        cls='cards',
      ),
      nothing,
      ranks(row),
      _further(row, further, page, clips) if further else None,
    ],
    kind=how,
    name=f'q-{row.id}',
    data_ap=_first(row),
    data_relevant=str(row.relevant),
  )


def _first(row) -> str | None:
  value = next((x for x in row.ap.values() if x is not None), None)
  return None if value is None else f'{value:.4f}'


def _ap(task, value) -> Markup:
  text = 'no relative' if value is None else f'{value:.1f} %'
  return tag(
    'span',
    f'{task} ',
    tag('b', text),
    cls='ap',
    title='average precision of this query'
    if value is not None
    else 'nothing in the collection is relevant; left out of the mean',
  )


def _relatives(count: int) -> str:
  if not count:
    return 'no relatives'
  return '1 relative' if count == 1 else f'{count:,} relatives'


def _frames(count: int) -> str | None:
  if not count:
    return None
  return '1 frame' if count == 1 else f'{count:,} frames'


def _card(card_, row, page, clips) -> Markup:
  """One answer: what it is to the query decides its look."""
  kind, verdict = 'other', tag('span', '✗ no relative', cls='mark')
  if card_.right:
    kind, verdict = 'right', tag('span', '✓', cls='mark', title='a relative')
  elif card_.labels and card_.labels != ('N',):
    kind, verdict = 'open', tag('span', 'not counted', cls='mark')
  easy = coarse = None
  if card_.easy:
    title = 'an easy duplicate, which the hard figures leave out'
    easy = tag('span', 'easy', cls='label', title=title)
  if not card_.visited:
    title = 'not on the short list: only the coarse score ranks it'
    coarse = tag('span', 'coarse only', cls='label', title=title)
  return card(
    f'#{card_.place:,}',
    card_.id,
    card_.file,
    clips,
    kind=kind,
    score=number(card_.score),
    marks=[verdict, *map(label, card_.labels), easy, coarse],
    about=_frames(card_.frames),
  )


def _further(row, cards, page, clips) -> Markup:
  """The best of the relatives that the first answers lack."""
  text = 'further down: '
  text += 'the next relatives' if row.beyond else ''
  if row.intruders:
    text += ', and ' if row.beyond else ''
    text += 'others that are before some relative'
  return tag(
    'div',
    tag('p', text, cls='what'),
    tag('div', [_card(c, row, page, clips) for c in cards], cls='cards'),
    cls='further',
  )


def ranks(row) -> Markup | None:
  """Where the relatives are among all candidates, one lane for each label."""
  order = [x for x in LABELS if row.related.get(x)]
  order += [x for x in row.related if x not in LABELS and row.related[x]]
  if not order or row.candidates < 1:
    return None
  span = math.log(max(row.candidates, 2))
  height = _TOP + _LANE * len(order) + _FOOT
  base = height - _FOOT

  def x(place):
    # A little air on both sides, for dots and numbers.
    return f'{2 + 96 * math.log(place) / span:.2f}%'

  ticks = [10**d for d in range(8) if 10**d <= row.candidates]
  drawn = []
  for place in ticks:
    at = x(place)
    drawn.append(tag('line', x1=at, x2=at, y1=_TOP, y2=base, cls='grid'))
    drawn.append(
      tag(
        'text',
        f'{place:,}',
        x=at,
        y=height - 4,
        cls='tick',
        text_anchor='middle',
      )
    )
  names = []
  for lane, name in enumerate(order):
    y = _TOP + _LANE * lane + _LANE / 2
    drawn.append(tag('line', x1='0', x2='100%', y1=y, y2=y, cls='grid'))
    known = f'spot is-{name.lower()}' if name in LABELS else 'spot'
    places = row.places.get(name, ())
    drawn += [
      tag('circle', tag('title', f'#{p:,}'), cx=x(p), cy=y, r=4.5, cls=known)
      for p in places
    ]
    names.append(_lane(name, row.related[name], places))
  return tag(
    'div',
    tag('ul', names, cls='lanes'),
    tag(
      'svg',
      drawn,
      width='100%',
      height=height,
      cls='places',
      role='img',
      aria_label=f'places among {row.candidates:,} videos',
    ),
    cls='where',
  )


def _lane(name, known, places) -> Markup:
  """How many there are, how many are missing, and where the last one is."""
  words = [f'{len(places):,}']
  if len(places) < known:
    words[0] += f' of {known:,} found'
  if places:
    words.append(f'last #{places[-1]:,}')
  return tag('li', label(name), tag('span', ', '.join(words)))
