# SPDX-License-Identifier: Apache-2.0
"""What a report of video-to-video retrieval shows: videos and relatives."""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import math
import pathlib

import numpy as np

from vidret_jax.evaluators.report import clips as clips_lib
from vidret_jax.evaluators.report import (
  copies_layout,
  copy_ranks,
  copy_rows,
  static_page,
)

VIDEOS = clips_lib.MODES
ANSWERS = 10  # The first of the list.
ABSENT = 100  # Ids of missing videos that are named.
_CUTOFFS = 60


@dataclasses.dataclass(frozen=True)
class Page:
  """A whole report.

  Attributes:
    title: of the page.
    facts: (label, value) pairs.
    notes: sentences that belong to every number of the page.
    results: of the evaluator, in percent.
    tasks: name -> labels that are relevant.
    cutoffs: k, int [m].
    recall: task -> share of its relatives among the first k, percent [m].
    events: event -> (queries with a number, their mean AP); {} without events.
    absent: ('queries' or 'videos', how many, the first of their ids), for
      those that are missing.
    rows: one per query shown.
  """

  title: str
  facts: tuple[tuple[str, str], ...]
  notes: tuple[str, ...]
  results: Mapping[str, float]
  tasks: Mapping[str, tuple[str, ...]]
  cutoffs: np.ndarray
  recall: Mapping[str, np.ndarray]
  events: Mapping[str, tuple[int, float]]
  absent: tuple[tuple[str, int, tuple[str, ...]], ...]
  rows: tuple[copy_rows.Row, ...]


def build(
  *,
  queries: Sequence[str],
  items: Sequence[str],
  scores: np.ndarray,
  labels: Mapping[str, Mapping[str, Collection[str]]],
  tasks: Mapping[str, Collection[str]],
  ap: Mapping[str, np.ndarray],
  results: Mapping[str, float],
  title: str,
  chosen: Sequence[int] | None = None,
  candidates: np.ndarray | None = None,
  visited: np.ndarray | None = None,
  found_queries: np.ndarray | None = None,
  found_items: np.ndarray | None = None,
  query_videos: Sequence[str | None] | None = None,
  item_videos: Sequence[str | None] | None = None,
  query_frames: np.ndarray | None = None,
  item_frames: np.ndarray | None = None,
  easy: Collection[str] = (),
  events: Mapping[str, Collection[str]] | None = None,
  ties: str = 'later',
  facts: Sequence[tuple[str, str]] = (),
  notes: Sequence[str] = (),
  answers: int = ANSWERS,
) -> Page:
  """Puts a page together.

  Args:
    queries: ids [q].
    items: ids [n], the columns; distinct.
    scores: float [q, n]; NaN: the query or the video is missing. Pairs that a
      pruned search left out have a score (below the others), see `visited`.
    labels: query id -> label -> ids of related videos, as
      `Annotations.labels`; ids that are no items and the query itself are
      passed over.
    tasks: name -> labels that it counts as relevant, the first is the one that
      queries are sorted by: {'DSVR': ('ND', 'DS'), 'CSVR': ...} or
      {'mAP': ('P',)}.
    ap: task -> float [q], AP of each query in percent as the metric has it;
      NaN: the query is left out of the mean.
    results: what the evaluator returns for this set, in percent: 'DSVR',
      'DSVD', 'DSVR_h', 'EVVE_mAP', 'uAP', ... A name that is no such metric
      is listed with the facts; counts of what was found are left out.
    title: of the page.
    chosen: int [m], queries to show, in this order; default: all.
    candidates: bool [q, n], what is ranked for each query; default: all items
      but the query itself. Missing ones are never ranked. SVD needs it.
    visited: bool [q, n], pairs the full score was computed for; None: all.
    found_queries: bool [q]; default: rows with a score.
    found_items: bool [n]; default: columns with a score.
    query_videos: [q] playable files or None.
    item_videos: [n] playable files or None.
    query_frames: int [q], frames of each video; default: not shown.
    item_frames: int [n], likewise.
    easy: ids of easy duplicates (FIVR).
    events: event -> its queries (EVVE).
    ties: 'later' (FIVR) or 'earlier' (EVVE), see `copy_ranks.Ranking`.
    facts: further (label, value) pairs: system, dataset, options.
    notes: caveats. How many videos are missing is added here.
    answers: how many of the list to show.

  Raises:
    ValueError: arrays that do not belong together.
  """
  scores = np.asarray(scores)
  known = ~np.isnan(scores)
  have_q = known.any(1) if found_queries is None else np.asarray(found_queries)
  have_v = known.any(0) if found_items is None else np.asarray(found_items)
  scored = copy_rows.Answers(
    queries=queries,
    items=items,
    scores=scores,
    labels=labels,
    tasks=tasks,
    ap=ap,
    candidates=candidates,
    visited=visited,
    found_queries=have_q,
    query_videos=query_videos,
    item_videos=item_videos,
    query_frames=query_frames,
    item_frames=item_frames,
    easy=frozenset(easy),
    events=events or {},
    ties=ties,
  )
  scored.check()
  shown = range(len(queries)) if chosen is None else map(int, chosen)
  rows = tuple(scored.row(query, answers) for query in shown)
  most = max(len(items), 2)
  cutoffs = np.unique(np.geomspace(1, most, _CUTOFFS).round().astype(int))
  counts = [
    ('queries', _of(have_q)),
    ('videos', _of(have_v)),
    ('shown', f'{len(rows):,}'),
  ]
  return Page(
    title=title,
    facts=(*counts, *facts),
    notes=tuple(notes),
    results=dict(results),
    tasks={task: tuple(names) for task, names in tasks.items()},
    cutoffs=cutoffs,
    recall=_recall(scored, cutoffs),
    events=_by_event(scored),
    absent=tuple(
      (kind, int((~have).sum()), _names(ids, ~have))
      for kind, ids, have in (
        ('queries', queries, have_q),
        ('videos', items, have_v),
      )
      if not have.all()
    ),
    rows=rows,
  )


def write(
  page: Page, folder: str | pathlib.Path, *, videos: str = 'link'
) -> pathlib.Path:
  """Writes `index.html`, `copies.json` and the clips into a folder.

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
  text = copies_layout.render(page, clips_lib.Clips(folder, videos))
  static_page.write(path, text)
  content = {
    'title': page.title,
    'facts': dict(page.facts),
    'notes': page.notes,
    'results': page.results,
    'absent': {kind: count for kind, count, _ in page.absent},
    'rows': page.rows,
  }
  static_page.write_json(folder / 'copies.json', content, without=('file',))
  return path


def _recall(scored, cutoffs) -> dict[str, np.ndarray]:
  """Task -> share of its relatives among the first k, percent [m]."""

  def of_task(labels):
    def rank(query):
      return scored.ranking(query), scored.relatives(query, labels)

    return copy_ranks.recall(rank, len(scored.queries), cutoffs)

  return {task: of_task(labels) for task, labels in scored.tasks.items()}


def _by_event(scored) -> dict[str, tuple[int, float]]:
  """{event: (queries with a number, their mean AP)} of the first task."""
  values = scored.ap.get(next(iter(scored.tasks), ''))
  if values is None:
    return {}
  row = {name: i for i, name in enumerate(scored.queries)}
  out = {}
  for event, names in scored.events.items():
    own = [float(values[row[name]]) for name in names if name in row]
    own = [x for x in own if math.isfinite(x)]
    if own:
      out[event] = len(own), sum(own) / len(own)
  return out


def _names(ids, mask) -> tuple[str, ...]:
  return tuple(ids[i] for i in np.flatnonzero(mask)[:ABSENT].tolist())


def _of(have) -> str:
  count, all_of = int(have.sum()), len(have)
  return f'{all_of:,}' if count == all_of else f'{count:,} of {all_of:,} found'
