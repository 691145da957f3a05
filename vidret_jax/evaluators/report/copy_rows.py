# SPDX-License-Identifier: Apache-2.0
"""What is shown of one query of video-to-video retrieval: places and cards."""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import functools
import math

import numpy as np

from vidret_jax.evaluators.report import copy_ranks

BEYOND = 4  # Relatives further down.
INTRUDERS = 2  # Others further down, before the last relative.


@dataclasses.dataclass(frozen=True)
class Card:
  """One video of the collection.

  Attributes:
    id: of the item.
    place: one-based place among the candidates of the query.
    score: of the pair.
    labels: how it is related to the query by the annotations: 'ND', 'DS', ...;
      none if they say nothing.
    right: whether a task that is evaluated counts it as relevant.
    easy: whether it is an easy duplicate, which the hard figures leave out.
    visited: False: only the coarse score put it where it is.
    frames: how many the score was made from; 0: unknown.
    file: a playable file, or None.
  """

  id: str
  place: int
  score: float
  labels: tuple[str, ...]
  right: bool
  easy: bool
  visited: bool
  frames: int
  file: str | None


@dataclasses.dataclass(frozen=True)
class Row:
  """One query.

  Attributes:
    id: of the query.
    event: it belongs to, or ''.
    file: a playable file, or None.
    frames: how many it has; 0: unknown.
    found: False: the query itself is missing, nothing was scored.
    ap: task -> average precision in percent; None: nothing is relevant.
    candidates: how many videos are ranked.
    relevant: relatives by the annotations, of all tasks together.
    related: label -> how many videos have it by the annotations.
    places: label -> places of the videos with it, ascending; those that are
      missing have none.
    answers: the first of the list.
    beyond: relatives right behind them in their order.
    intruders: others further down that are before some relative.
  """

  id: str
  event: str
  file: str | None
  frames: int
  found: bool
  ap: Mapping[str, float | None]
  candidates: int
  relevant: int
  related: Mapping[str, int]
  places: Mapping[str, tuple[int, ...]]
  answers: tuple[Card, ...]
  beyond: tuple[Card, ...]
  intruders: tuple[Card, ...]


@dataclasses.dataclass(frozen=True)
class Answers:
  """All that was scored; the attributes are as `copies_page.build` has them."""

  queries: Sequence[str]
  items: Sequence[str]
  scores: np.ndarray
  labels: Mapping[str, Mapping[str, Collection[str]]]
  tasks: Mapping[str, Collection[str]]
  ap: Mapping[str, np.ndarray]
  candidates: np.ndarray | None
  visited: np.ndarray | None
  found_queries: np.ndarray
  query_videos: Sequence[str | None] | None
  item_videos: Sequence[str | None] | None
  query_frames: np.ndarray | None
  item_frames: np.ndarray | None
  easy: frozenset[str]
  events: Mapping[str, Collection[str]]
  ties: str

  def check(self) -> None:
    """Raises ValueError: arrays that do not belong together."""
    q, n = shape = len(self.queries), len(self.items)
    lengths = dict(found_queries=q, query_videos=q, query_frames=q)
    lengths |= dict(item_videos=n, item_frames=n)
    lengths |= {f'ap of {task}': q for task in self.ap}
    own = {f'ap of {task}': x for task, x in self.ap.items()}
    for name in ('scores', 'candidates', 'visited'):
      x = getattr(self, name)
      if x is not None and np.shape(x) != shape:
        raise ValueError(f'{name} has shape {np.shape(x)}, expected {shape}.')
    for name, want in lengths.items():
      x = own[name] if name in own else getattr(self, name)
      if x is not None and len(x) != want:
        raise ValueError(f'{name} has {len(x)} entries, expected {want}.')
    if self.ties not in copy_ranks.TIES:
      raise ValueError(
        f'ties={self.ties!r}: expected one of {copy_ranks.TIES}.'
      )
    if len(self.column) < n:
      raise ValueError('items are not distinct.')

  @functools.cached_property
  def column(self) -> dict[str, int]:
    """Item id -> column."""
    return {name: i for i, name in enumerate(self.items)}

  @functools.cached_property
  def event_of(self) -> dict[str, str]:
    """Query id -> its event."""
    return {q: event for event, some in self.events.items() for q in some}

  @functools.cached_property
  def counted(self) -> set[str]:
    """Labels that some task counts as relevant."""
    return {label for names in self.tasks.values() for label in names}

  def ranking(self, query: int) -> copy_ranks.Ranking:
    """The candidates of a query."""
    name, scores = self.queries[query], self.scores[query]
    mask = ~np.isnan(scores)
    if self.candidates is not None:
      mask &= self.candidates[query]
    elif name in self.column:
      mask[self.column[name]] = False
    return copy_ranks.Ranking(scores, mask, self.ties)

  def related(self, query: int) -> dict[str, np.ndarray]:
    """Label -> columns of the items that have it, ascending."""
    name, column = self.queries[query], self.column
    return {
      label: np.array(
        sorted({column[x] for x in ids if x in column and x != name}), np.int64
      )
      for label, ids in self.labels.get(name, {}).items()
    }

  def relatives(self, query: int, labels: Collection[str]) -> np.ndarray:
    """Columns of items with one of these labels, ascending."""
    own = self.related(query)
    none = np.zeros(0, np.int64)
    return np.unique(
      np.concatenate([none, *(own.get(x, none) for x in labels)])
    )

  def row(self, query: int, answers: int) -> Row:
    """What is shown of a query; `answers`: how many of the list."""
    name, ranking, own = (
      self.queries[query],
      self.ranking(query),
      self.related(query),
    )
    right = np.zeros(len(self.items), bool)
    right[self.relatives(query, self.counted)] = True
    rest = np.ones(len(self.items), bool)
    first = ranking.best(answers)
    rest[first] = False
    beyond = ranking.best(BEYOND, rest & right)
    room = INTRUDERS - int((~right[first]).sum())
    others = ranking.best(room, rest & ~right)
    places = {
      label: tuple(sorted(p for p in ranking.places(i).tolist() if p))
      for label, i in own.items()
    }
    last = [p[-1] for label, p in places.items() if p and label in self.counted]

    def cards(columns):
      found = ranking.places(columns).tolist()
      return tuple(
        self._card(query, i, place, bool(right[i]), own)
        for i, place in zip(columns.tolist(), found)
      )

    said = {
      label: set(ids) - {name}
      for label, ids in self.labels.get(name, {}).items()
    }
    none = set()
    return Row(
      id=name,
      event=self.event_of.get(name, ''),
      file=_at(self.query_videos, query),
      frames=int(_at(self.query_frames, query) or 0),
      found=bool(self.found_queries[query]),
      ap={
        task: _number(self.ap[task][query])
        for task in self.tasks
        if task in self.ap
      },
      candidates=ranking.count,
      relevant=len(none.union(*(said.get(x, none) for x in self.counted))),
      related={label: len(ids) for label, ids in said.items()},
      places=places,
      answers=cards(first),
      beyond=cards(beyond),
      intruders=tuple(
        c for c in cards(others) if c.place < max(last, default=0)
      ),
    )

  def _card(self, query, item, place, right, own) -> Card:
    return Card(
      id=self.items[item],
      place=place,
      score=float(self.scores[query, item]),
      labels=tuple(label for label, columns in own.items() if item in columns),
      right=right,
      easy=self.items[item] in self.easy,
      visited=self.visited is None or bool(self.visited[query, item]),
      frames=int(_at(self.item_frames, item) or 0),
      file=_at(self.item_videos, item),
    )


def _at(values, place):
  return None if values is None else values[place]


def _number(value) -> float | None:
  value = float(value)
  return value if math.isfinite(value) else None
