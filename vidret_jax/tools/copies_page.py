# SPDX-License-Identifier: Apache-2.0
"""Pages of copies in a folder: groups of them, or matches of a clip."""

from collections.abc import Callable, Sequence
import pathlib

from vidret_jax.evaluators.report import clips as clips_lib
from vidret_jax.evaluators.report import (
  copies_layout,
  copy_cards,
  static_page,
)
from vidret_jax.evaluators.report.markup import Markup, tag
from vidret_jax.tools import copy_groups

CLIPS = clips_lib.MODES
_APART = 0.2  # Scores of both directions that say something of the pair.
Facts = Sequence[tuple[str, str]]


class Shown:
  """Videos of a folder as cards."""

  def __init__(
    self,
    page: pathlib.Path,
    mode: str,
    file: Callable[[str], str | None],
    seconds: Callable[[str], float],
  ):
    """Clips go into a folder beside the page.

    Args:
      page: the file to write; `x.html` has its clips in `x_clips/`.
      mode: how the page gets at clips; see `report.clips`.
      file: name of a video -> its file, or None.
      seconds: name of a video -> how long it is, about.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    self._clips = clips_lib.Clips(page.parent, mode, f'{page.stem}_clips')
    self._file, self._seconds = file, seconds

  def card(self, place: str, name: str, kind: str, **options) -> Markup:
    """See `copy_cards.card`; the line below says how long and large it is."""
    file = self._file(name)
    about = [length(self._seconds(name))]
    if file is not None:
      about.append(size(pathlib.Path(file).stat().st_size))
    return copy_cards.card(
      place,
      name,
      file,
      self._clips,
      kind=kind,
      about=', '.join(about),
      **options,
    )

  def query(self, file: str) -> Markup:
    """The card of a clip that need not be in the folder."""
    return copy_cards.card(
      'query',
      file,
      file,
      self._clips,
      kind='truth',
      about=size(pathlib.Path(file).stat().st_size),
      key=f'query {file}',
    )


def groups(
  page: pathlib.Path,
  found: Sequence[Sequence[copy_groups.Member]],
  names: Sequence[str],
  shown: Shown,
  *,
  facts: Facts,
  notes: Sequence[str],
) -> None:
  """Writes the page of all groups.

  Args:
    page: the file.
    found: see `copy_groups.groups`.
    names: of all videos.
    shown: makes cards.
    facts: (label, value) pairs.
    notes: what a reader must know about the numbers; empty ones are left out.
  """
  body = [
    _group(number, members, names, shown)
    for number, members in enumerate(found, 1)
  ]
  nothing = tag('p', 'No two videos are that alike.', cls='what')
  _write(page, 'Copies in the folder', facts, notes, body or [nothing])


def answers(
  page: pathlib.Path,
  found: Sequence[tuple[str, Sequence[tuple[str, float]]]],
  shown: Shown,
  *,
  threshold: float,
  facts: Facts,
  notes: Sequence[str],
) -> None:
  """Writes the page of the matches of clips.

  Args:
    page: the file.
    found: (query, its (video, score), best first).
    shown: makes cards.
    threshold: from which score a match counts as a copy.
    facts: (label, value) pairs.
    notes: what a reader must know about the numbers; empty ones are left out.
  """
  body = []
  for number, (query, matches) in enumerate(found, 1):
    copies = sum(score >= threshold for _, score in matches)
    cards = [
      shown.card(
        f'#{place}',
        name,
        'right' if score >= threshold else 'open',
        score=copy_cards.number(score),
      )
      for place, (name, score) in enumerate(matches, 1)
    ]
    body.append(
      copy_cards.article(
        [
          tag('h2', tag('bdi', query)),
          tag('span', tag('b', many(copies, 'copy', 'copies')), cls='ap'),
        ],
        [tag('div', shown.query(query), cards, cls='cards')],
        kind='first' if copies else 'open',
        name=f'q-{number}',
      )
    )
  _write(page, 'Copies of a clip', facts, notes, body)


def _group(number, members, names, shown) -> Markup:
  first, *rest = members
  scores = [m.score for m in rest]
  span = f'score {copy_cards.number(max(scores))}'
  if len(rest) > 1:
    span += f' to {copy_cards.number(min(scores))}'
  cards = [shown.card('representative', names[first.number], 'truth')]
  for place, member in enumerate(rest, 2):
    direct = member.through is None
    link = None
    if not direct:
      link = tag(
        'span',
        'through ',
        tag('code', tag('bdi', names[member.through])),
        cls='without',
        title='too little like the first one, but like this one of the group',
      )
    cards.append(
      shown.card(
        f'{place}',
        names[member.number],
        'right' if direct else 'open',
        score=copy_cards.number(member.score),
        marks=[link, _ways(member)],
      )
    )
  return copy_cards.article(
    [
      tag('h2', f'group {number}: {many(len(members), "video", "videos")}'),
      tag('span', span, cls='ap'),
    ],
    [tag('div', cards, cls='cards')],
    kind='first' if all(m.through is None for m in rest) else 'top',
    name=f'g-{number}',
  )


def _ways(member) -> Markup | None:
  """A word where the two scores of a pair differ: parts and wholes."""
  apart = member.back - member.forth
  if not abs(apart) >= _APART:  # Also where one of them is unknown.
    return None
  forth, back = map(copy_cards.number, (member.forth, member.back))
  return tag(
    'span',
    'perhaps a part of it' if apart > 0 else 'perhaps contains it',
    cls='label',
    title=f'{back} as the query, {forth} as the video that is searched',
  )


def _write(page, title, facts, notes, body):
  header = tag(
    'header',
    tag('h1', title),
    [tag('p', text, cls='note') for text in notes if text],
    tag(
      'dl',
      [tag('div', tag('dt', k), tag('dd', v)) for k, v in facts],
      cls='facts',
    ),
  )
  text = static_page.render(
    title,
    [header, tag('main', body)],
    styles=copies_layout.STYLES,
    script=copies_layout.SCRIPT,
  )
  static_page.write(page, text)


def many(count: int, one: str, more: str) -> str:
  """'1 video', '2 videos'."""
  return f'{count:,} {one if count == 1 else more}'


def length(seconds: float) -> str:
  """'0.5 s', '12 s', '3:07', '1:02:03'."""
  whole = round(seconds)
  if seconds < 1:
    return f'{seconds:.1f} s'
  if whole < 60:
    return f'{whole} s'
  minutes, rest = divmod(whole, 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}:{minutes:02}:{rest:02}'
  return f'{minutes}:{rest:02}'


def size(count: int) -> str:
  """Bytes in a unit that people read."""
  value = float(count)
  for unit in ('B', 'KB', 'MB'):
    if value < 1000:
      return f'{value:.0f} {unit}' if unit == 'B' else f'{value:.3g} {unit}'
    value /= 1000
  return f'{value:.3g} GB'
