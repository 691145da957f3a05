# SPDX-License-Identifier: Apache-2.0
"""A page with the videos that answer sentences: static, without scripts."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

from vidret_jax.evaluators.report import clips as clips_lib
from vidret_jax.evaluators.report import static_page
from vidret_jax.evaluators.report.markup import Markup, tag

CLIPS = clips_lib.MODES


@dataclasses.dataclass(frozen=True)
class Hit:
  """One video that was found.

  Attributes:
    id: of the video.
    score: of the last stage.
    coarse: of the first stage.
    coarse_rank: one-based place after the first stage.
    video: a playable file, or None.
  """

  id: str
  score: float
  coarse: float
  coarse_rank: int
  video: str | None


@dataclasses.dataclass(frozen=True)
class Asked:
  """One sentence, the videos found for it, and seconds of each stage."""

  sentence: str
  hits: tuple[Hit, ...]
  seconds: Mapping[str, float]
  two_stages: bool


def write(
  page: pathlib.Path, asked: Sequence[Asked], size: int, *, clips: str = 'link'
) -> None:
  """Writes a page, and its videos into a folder of its own beside it.

  Args:
    page: the file to write; `x.html` has its videos in `x_clips/`.
    asked: what was asked, in order; the last comes first on the page.
    size: videos of the index.
    clips: how the page gets at videos; see `report.clips`.
  """
  page.parent.mkdir(parents=True, exist_ok=True)
  places = clips_lib.Clips(page.parent, clips, f'{page.stem}_clips')
  facts = [('videos', f'{size:,}'), ('sentences', str(len(asked)))]
  body = [
    tag(
      'header',
      tag('h1', 'Videos found'),
      tag('dl', [_fact(*fact) for fact in facts], cls='facts'),
    ),
    tag('main', [_row(one, places) for one in reversed(asked)]),
  ]
  title = asked[-1].sentence if asked else 'no answers'
  static_page.write(page, static_page.render(title, body))


def _fact(name, value) -> Markup:
  return tag('div', tag('dt', name), tag('dd', value))


def _row(asked: Asked, places: clips_lib.Clips) -> Markup:
  times = ', '.join(f'{k} {1000 * s:.1f} ms' for k, s in asked.seconds.items())
  return tag(
    'article',
    tag(
      'div',
      tag('h2', tag('q', tag('bdi', asked.sentence))),
      tag('code', times),
      cls='query',
    ),
    tag(
      'div',
      [_card(i, hit, asked, places) for i, hit in enumerate(asked.hits, 1)],
      cls='cards',
    ),
    cls='row first',
  )


def _card(rank: int, hit: Hit, asked: Asked, places) -> Markup:
  moved = None
  if asked.two_stages:
    text = f'coarse rank {hit.coarse_rank}'
    moved = tag('span', text, cls='without', title='after the first stage')
  return tag(
    'section',
    tag(
      'div',
      tag('span', f'rank {rank}', cls='place'),
      moved,
      tag('span', f'score {hit.score:.3f}', cls='sim'),
      cls='line',
    ),
    clips_lib.player(places.place(hit.id, hit.video), hit.id),
    tag('code', tag('bdi', hit.id), cls='id'),
    cls='card other',
    data_id=hit.id,
  )
