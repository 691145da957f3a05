# SPDX-License-Identifier: Apache-2.0
"""One query of a moment report: its sentence, the truth, the answers."""

import math
from typing import Any, NamedTuple

from vidret_jax.evaluators.report import cards, overlaps, timeline
from vidret_jax.evaluators.report import clips as clips_lib
from vidret_jax.evaluators.report.markup import Link, Markup, moment, tag

# How a query went, best first, as its class and the filters name it.
OUTCOMES = {
  'hit7': ('hits at 0.7', '✓ first answer hits at 0.7'),
  'hit5': ('at 0.5 only', '✓ first answer hits at 0.5'),
  'later': ('a later one hits', '↓ answer {} is the first to hit'),
  'lost': ('none hits', '✗ no answer hits'),
}
KINDS = {
  'v': ('video', 'about what is seen'),
  't': ('text', 'about what is said'),
  'vt': ('both', 'about what is seen and said'),
}


def outcome(row) -> str:
  """A key of `OUTCOMES`, or 'open' where nothing is known."""
  if row.iou is None:
    return 'open'
  if row.hit == 1:
    return 'hit7' if overlaps.reaches(row.iou, 0.7) else 'hit5'
  return 'later' if row.hit else 'lost'


def row(row, page, clips) -> Markup:
  """See `moments_page.Row`."""
  how, kind = outcome(row), row.kind if row.kind in KINDS else None
  place = None if row.own is None else row.own.place
  return tag(
    'article',
    tag(
      'div',
      tag('h2', tag('q', tag('bdi', row.text))),
      tag('span', KINDS[kind][0], cls=f'kind {kind}', title=KINDS[kind][1])
      if kind
      else tag('span', row.kind, cls='kind')
      if row.kind
      else None,
      _found(how, row, place, page),
      tag('code', tag('bdi', row.id)),
      cls='query',
    ),
    _truth(row, page, clips) if row.own else None,
    tag('div', [_answer(v, row, page, clips) for v in row.answers], cls='cards')
    if row.answers
    else None,
    cls=f'row {how}' + (f' is-{kind}' if kind else ''),
    id=f'q-{row.id}',
    data_iou='' if row.iou is None else f'{row.iou:.4f}',
    data_hit=row.hit,
    data_place=place,
  )


def _found(how, row, place, page) -> Markup | None:
  """How the query went, in words."""
  parts = []
  if how in OUTCOMES:
    parts.append(tag('b', OUTCOMES[how][1].format(row.hit)))
  if row.own and page.listed:
    parts.append(
      f'right video: {place} of {page.videos:,}'
      if place
      else f'right video: beyond {page.listed}'
    )
  return tag('span', *(tag('span', p) for p in parts), cls='outcome')


def _truth(row, page, clips) -> Markup:
  """The right video: true spans, and the best spans found in it."""
  video = row.own
  lines = _true(row) + _predicted(video)
  bars = [line.bar for line in lines]
  seconds = timeline.length(video.duration, bars)
  link = clips.place(video.id, video.file)
  drawn = None
  if row.curves is not None:
    drawn = timeline.curves(seconds, page.clip_seconds, *row.curves)
  return tag(
    'section',
    _player(video, link, lines),
    tag(
      'div',
      tag(
        'div',
        tag('span', 'right video', cls='place'),
        tag('span', 'the truth, and the best spans in it', cls='what'),
        tag('code', tag('bdi', video.id), cls='id'),
        tag('span', _length(video.duration), cls='sim'),
        cls='line',
      ),
      tag(
        'div',
        tag(
          'div',
          drawn,
          timeline.draw(video.duration, bars, most_ticks=11),
          cls='plot',
        ),
        _spans(lines, link, page),
        cls='timeline wide' + (' curved' if drawn else ''),
      ),
      cls='beside',
    ),
    cls='card truth clip',
    data_axis=f'{seconds:.3f}',
    data_id=video.id,
  )


def _answer(video, row, page, clips) -> Markup:
  """One video of the list, with its spans there."""
  lines = _predicted(video) + (_true(row) if video.correct else [])
  bars = [line.bar for line in lines]
  seconds = timeline.length(video.duration, bars)
  link = clips.place(video.id, video.file)
  kind, mark = 'open', None
  if video.correct is not None:
    kind = 'right' if video.correct else 'other'
    text = '✓ right video' if video.correct else '✗ other video'
    mark = tag('span', text, cls='mark')
  listed = None
  if video.place:
    text, title = f'video {video.place}', 'place in the list of videos'
    listed = tag('span', text, cls='sim', title=title)
  return tag(
    'section',
    tag(
      'div',
      tag('span', f'#{video.spans[0].place}', cls='place'),
      mark,
      listed,
      cls='line',
    ),
    _player(video, link, lines),
    tag(
      'div',
      tag(
        'div',
        timeline.draw(video.duration, bars, most_ticks=5),
        cls='plot',
      ),
      _spans(lines, link, page),
      tag('p', f'and {video.more} more further down', cls='what')
      if video.more
      else None,
      cls='timeline',
    ),
    tag(
      'div',
      tag('code', tag('bdi', video.id), cls='id'),
      tag('span', _length(video.duration), cls='sim'),
      cls='line',
    ),
    None if video.correct else cards.first_caption(video),
    cls=f'card clip {kind}',
    data_axis=f'{seconds:.3f}',
    data_id=video.id,
  )


class _Line(NamedTuple):
  """A span as a bar, in words, and what was predicted if it was."""

  bar: timeline.Bar
  name: str
  span: Any = None


def _predicted(video) -> list[_Line]:
  out = []
  for span in video.spans:
    label = f'#{span.place}'
    bar = timeline.Bar(span.start, span.end, 'found', label)
    out.append(_Line(bar, label, span))
  return out


def _true(row) -> list[_Line]:
  """A line for each opinion of the annotators."""
  out = []
  for t in row.truth:
    label = 'true' if row.annotators == 1 else f'true ×{t.votes}'
    out.append(_Line(timeline.Bar(t.start, t.end, 'truth', label), label))
  return out


def _player(video, link: Link | None, lines: list[_Line]) -> Markup:
  """The clip, which starts where the first span does and stops at its end."""
  source = None
  if link and lines and timeline.finite(lines[0].bar.start, lines[0].bar.end):
    source = moment(link, lines[0].bar.start, lines[0].bar.end)
  return clips_lib.player(link, video.id, source=source, loop=False)


def _spans(lines: list[_Line], link: Link | None, page) -> Markup:
  """The spans in words, in the order of the lanes; a press plays one."""
  # Predictions are whole clips: no digit that would round them.
  digits = 1 if (10 * page.clip_seconds) % 1 == 0 else 2
  out = []
  for number, (bar, name, span) in enumerate(lines):
    text = f'{bar.start:.{digits}f}–{bar.end:.{digits}f} s'
    shown = tag('span', text, cls='play')
    if link is not None and timeline.finite(bar.start, bar.end):
      shown = tag(
        'button',
        tag('span', '▶ ', cls='sign', aria_hidden='true'),
        text,
        type='button',
        cls='play',
        data_span=f'{bar.start:.3f},{bar.end:.3f}',
        data_bar=number,
        aria_label=f'play {name}: {text}',
        aria_pressed='false',
      )
    more = []
    if span is not None:
      more.append(None if span.iou is None else _iou(span.iou))
      more.append(tag('span', f'{span.score:.2g}', cls='score', title='score'))
    name = tag('span', name, cls='lane')
    out.append(tag('li', name, shown, more, cls=f'of-{bar.kind}'))
  return tag('ol', out, cls='spans')


def _iou(value: float) -> Markup:
  hit = [t for t in (0.5, 0.7) if overlaps.reaches(value, t)]
  # Not rounded up: 0.499 is no hit and must not look like one.
  text = f'IoU {math.floor(100 * value + 1e-4) / 100:.2f}'
  if not hit:
    return tag('span', text, cls='iou')
  title = f'a hit at {" and ".join(map(str, hit))}'
  return tag('span', f'{text} ✓', cls='iou hit', title=title)


def _length(seconds: float) -> str:
  return f'{seconds:.1f} s' if seconds else 'length unknown'
