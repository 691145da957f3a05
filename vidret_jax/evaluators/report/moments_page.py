# SPDX-License-Identifier: Apache-2.0
"""What a report of moment retrieval shows: sentences, and spans of videos."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from vidret_jax.evaluators.report import clips as clips_lib
from vidret_jax.evaluators.report import moments_layout, overlaps, static_page
from vidret_jax.metrics import moments as moments_lib

VIDEOS = clips_lib.MODES
SPANS = 5  # Of the right video.
ROWS = 20  # Of the list over all videos; spans of one video share a card.
CARDS = 5  # Videos of these rows.
PER_CARD = 4  # Spans of a video.


@dataclasses.dataclass(frozen=True)
class Span:
  """A predicted span.

  Attributes:
    start: seconds.
    end: seconds.
    score: as the list has it.
    place: one-based place in its list.
    iou: what decides whether it is a hit, see `overlaps`; None in another
      video or where the truth is hidden.
  """

  start: float
  end: float
  score: float
  place: int
  iou: float | None


@dataclasses.dataclass(frozen=True)
class Truth:
  """A true span in seconds, and how many annotators gave it."""

  start: float
  end: float
  votes: int = 1


@dataclasses.dataclass(frozen=True)
class Video:
  """A video with spans to show.

  Attributes:
    id: of the item.
    duration: seconds; 0 if unknown.
    file: a playable file, or None.
    captions: sentences about the video.
    place: one-based place among all videos, or None if it is not listed.
    correct: whether it is the right one; None where the truth is hidden.
    spans: best first.
    more: further spans of this video that are among the first rows.
  """

  id: str
  duration: float
  file: str | None
  captions: tuple[str, ...]
  place: int | None
  correct: bool | None
  spans: tuple[Span, ...]
  more: int = 0


@dataclasses.dataclass(frozen=True)
class Row:
  """One query.

  Attributes:
    id: of the query.
    text: the sentence.
    kind: 'v', 't', 'vt' or ''.
    truth: true spans, one per opinion; none where the truth is hidden.
    annotators: how many gave them.
    own: the right video with the spans found in it, or None.
    answers: the best spans of all videos, by video.
    iou: of the first answer, 0 in another video; None where nothing is known.
    hit: one-based place of the first answer with IoU >= 0.5, or None.
    curves: start and end probabilities of the right video, or None.
  """

  id: str
  text: str
  kind: str
  truth: tuple[Truth, ...]
  annotators: int
  own: Video | None
  answers: tuple[Video, ...]
  iou: float | None
  hit: int | None
  curves: tuple[np.ndarray, np.ndarray] | None


@dataclasses.dataclass(frozen=True)
class Page:
  """A whole report.

  Attributes:
    title: of the page.
    facts: (label, value) pairs.
    notes: sentences that belong to every number of the page.
    results: of the evaluator, in percent; see `metrics.moments`.
    overlap: (name, best IoU [q] of the first rows of a list), to draw recall
      against the IoU asked for.
    video_ranks: zero-based [q], places of the right videos among all; infinite
      if not listed. None where the truth is hidden.
    videos: how many there are.
    listed: how many of them are listed per query.
    clip_seconds: of one step of `Row.curves`.
    rows: one per query.
  """

  title: str
  facts: tuple[tuple[str, str], ...]
  notes: tuple[str, ...]
  results: Mapping[str, float]
  overlap: tuple[tuple[str, np.ndarray], ...]
  video_ranks: np.ndarray | None
  videos: int
  listed: int
  clip_seconds: float
  rows: tuple[Row, ...]


def build(
  found: Any,
  queries: Any,
  items: Any,
  truth: moments_lib.Truth | None,
  *,
  chosen: np.ndarray,
  results: Mapping[str, float],
  title: str,
  facts: Sequence[tuple[str, str]] = (),
  notes: Sequence[str] = (),
  curves: tuple[np.ndarray, np.ndarray] | None = None,
) -> Page:
  """Puts a page together.

  Args:
    found: `search.moments.Found` of all queries; lists of tasks that were not
      run are None.
    queries: view 'queries' of moment data: `ids`, `texts`, `kinds`.
    items: view 'items': `ids`, `durations`, `clip_seconds`, `videos`,
      `captions(i)`.
    truth: what is right; `items` are rows of the view 'items', that is
      `GroundTruth.item_of_query`. None for a hidden test set.
    chosen: int [n], queries to show, in this order.
    results: of the evaluator.
    title: of the page.
    facts: further (label, value) pairs: system, dataset, options.
    notes: caveats.
    curves: float [n, L] each, start and end probabilities of the right videos
      of the chosen queries.
  """
  judged = overlaps.judge(found, truth)
  rows = tuple(
    _row(found, queries, items, truth, judged, query, number, curves)
    for number, query in enumerate(np.asarray(chosen).tolist())
  )
  counts = [
    ('queries', f'{len(queries.ids):,}'),
    ('videos', f'{len(items.ids):,}'),
    ('shown', f'{len(rows):,}'),
  ]
  return Page(
    title=title,
    facts=(*counts, *facts),
    notes=tuple(notes),
    results=dict(results),
    overlap=judged.best,
    video_ranks=judged.video_ranks,
    videos=len(items.ids),
    listed=0 if found.videos is None else found.videos.shape[1],
    clip_seconds=float(items.clip_seconds),
    rows=rows,
  )


def _row(found, queries, items, truth, judged, query, number, curves) -> Row:
  """What is shown of one query; `number` is its place on the page."""
  right = None if truth is None else int(truth.items[query])
  order = [] if found.videos is None else found.videos[query].tolist()

  def video(item, spans, most):
    files = items.videos
    return Video(
      id=items.ids[item],
      duration=_seconds(items.durations[item]),
      file=None if files is None else files[item],
      captions=tuple(items.captions(item)),
      place=order.index(item) + 1 if item in order else None,
      correct=None if right is None else item == right,
      spans=tuple(spans[:most]),
      more=max(0, len(spans) - most),
    )

  by_video: dict[int, list[Span]] = {}
  for item, span in _listed(found, judged, query, right):
    if item in by_video or len(by_video) < CARDS:
      by_video.setdefault(item, []).append(span)
  own = None
  if right is not None:
    own = video(right, list(_own(found, judged, query)), SPANS)
  spans = overlaps.true_spans(truth, query)
  opinions, votes = np.unique(spans, axis=0, return_counts=True)
  first, hit = judged.first(query)
  return Row(
    id=queries.ids[query],
    text=queries.texts[query],
    kind=queries.kinds[query],
    truth=tuple(
      Truth(start, end, vote)
      for (start, end), vote in zip(opinions.tolist(), votes.tolist())
    ),
    annotators=len(spans),
    own=own,
    answers=tuple(video(i, some, PER_CARD) for i, some in by_video.items()),
    iou=first,
    hit=hit,
    curves=None
    if curves is None or right is None
    else (np.asarray(curves[0][number]), np.asarray(curves[1][number])),
  )


def _listed(found, judged, query, right):
  """Yields (item, span) of the first rows of the list over all videos."""
  if found.items is None:
    return
  for place, item in enumerate(found.items[query, :ROWS].tolist()):
    if item >= 0:
      start, end = found.spans[query, place].tolist()
      iou = None
      if judged.listed is not None and item == right:
        iou = float(judged.listed[query, place])
      score = float(found.scores[query, place])
      yield item, Span(start, end, score, place + 1, iou)


def _own(found, judged, query):
  """Yields the best spans of the right video."""
  if found.own_spans is None:
    return
  for place, score in enumerate(found.own_scores[query, :SPANS].tolist()):
    if score > 0:
      start, end = found.own_spans[query, place].tolist()
      iou = None if judged.own is None else float(judged.own[query, place])
      yield Span(start, end, score, place + 1, iou)


def write(
  page: Page, folder: str | pathlib.Path, *, videos: str = 'link'
) -> pathlib.Path:
  """Writes `index.html`, `moments.json` and the clips into a folder.

  Args:
    page: see `build`.
    folder: made if needed.
    videos: how the page gets at clips; see `clips.Clips`.

  Returns:
    The page's path.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / 'index.html'
  text = moments_layout.render(page, clips_lib.Clips(folder, videos))
  static_page.write(path, text)
  content = {
    'title': page.title,
    'facts': dict(page.facts),
    'notes': page.notes,
    'results': page.results,
    'rows': page.rows,
  }
  static_page.write_json(
    folder / 'moments.json', content, without=('file', 'captions', 'curves')
  )
  return path


def _seconds(value: float) -> float:
  value = float(value)
  return value if 0 < value < math.inf else 0.0
