# SPDX-License-Identifier: Apache-2.0
"""Annotations of copies by rows and columns, and what is judged with them."""

from collections.abc import Sequence
import dataclasses
import functools

import numpy as np

from vidret_jax.data.copies import annotations as annotations_lib
from vidret_jax.metrics import copies
from vidret_jax.metrics import ranks as ranks_lib

_SHOWN = 3  # Ids that a sentence names.


@dataclasses.dataclass(frozen=True)
class Judge:
  """What is right, and how it is counted.

  Attributes:
    annotations: of the split.
    queries: ids of the rows.
    items: ids of the columns.
    tasks: of `metrics.copies.TASKS`, what FIVR is judged by; others have one.
    hard: also without the easy duplicates (FIVR).
    missing: 'ignore' or 'penalise', see `metrics.copies`.
    ties: see `metrics.copies.fivr`.
    curves: also interpolated precision.
    itself: whether a query of the database is a video like any other in its own
      list, as in the evaluation script of FIVR-200K; else it does not compete.
  """

  annotations: annotations_lib.Annotations
  queries: Sequence[str]
  items: Sequence[str]
  tasks: Sequence[str] = copies.VISUAL
  hard: bool = True
  missing: str = 'ignore'
  ties: str = 'later'
  curves: bool = False
  itself: bool = False

  def __post_init__(self):
    ranks_lib.check_option('missing', self.missing, copies.MISSING)
    ranks_lib.check_option('ties', self.ties, copies.TIES)
    for task in self.tasks:
      ranks_lib.check_option('tasks', task, tuple(copies.TASKS))
    if self.annotations.protocol == 'fivr' and not self.tasks:
      raise ValueError(
        f'tasks is empty, expected some of {", ".join(copies.TASKS)}.'
      )
    for name, ids in (('queries', self.queries), ('items', self.items)):
      if len(set(ids)) < len(ids):
        raise ValueError(f'{name}: an id occurs twice.')
    if unknown := sorted(set(self.queries) - set(self.annotations.labels)):
      raise ValueError(
        f'{len(unknown)} queries have no annotations, such as '
        f'{unknown[:_SHOWN]}. Do features and annotations belong together?'
      )

  @functools.cached_property
  def truth(self) -> copies.Truth:
    """The annotations as arrays."""
    known, protocol = self.annotations, self.annotations.protocol
    column = {name: i for i, name in enumerate(self.items)}
    bits: dict[tuple[int, int], int] = {}
    for i, query in enumerate(self.queries):
      for label, videos in known.labels[query].items():
        for j in (column[v] for v in videos if v in column):
          bits[i, j] = bits.get((i, j), 0) | copies.BITS[label]
    pairs = sorted(bits)
    query, item = np.array(pairs, np.int64).reshape(-1, 2).T
    asked = [
      sum(copies.BITS[label] for label in known.labels[q]) for q in self.queries
    ]
    own = {} if self.itself else column
    return copies.Truth(
      query=query,
      item=item,
      label=np.array([bits[pair] for pair in pairs], np.uint8),
      own=np.array([own.get(q, -1) for q in self.queries], np.int64),
      asked=np.array(asked, np.uint8),
      easy=self._marked(known.easy) if protocol == 'fivr' else None,
      unlabelled=self._marked(known.unlabelled),
      # Upstream has the labelled videos of a query before the unlabelled ones.
      order=np.arange(len(pairs)) if protocol == 'svd' else None,
    )

  @functools.cached_property
  def events(self) -> dict[str, np.ndarray]:
    """Event -> rows of its queries (EVVE)."""
    row = {name: i for i, name in enumerate(self.queries)}
    return {
      event: np.array([row[q] for q in some if q in row], np.int64)
      for event, some in self.annotations.events.items()
    }

  @property
  def labels(self) -> dict[str, tuple[str, ...]]:
    """Task -> labels that are right, by the names that `judge` returns."""
    protocol = self.annotations.protocol
    if protocol == 'fivr':
      return {task: copies.TASKS[task] for task in self.tasks}
    return {protocol.upper(): ('P',)}

  def candidates(self) -> np.ndarray | None:
    """bool [q, n], what competes for each query; None: all but itself."""
    if self.annotations.protocol != 'svd':
      return None
    truth = self.truth
    out = np.zeros((len(self.queries), len(self.items)), bool)
    if truth.unlabelled is not None:  # The split 'labeled' has none.
      out |= truth.unlabelled
    out[truth.query, truth.item] = True
    there = truth.own >= 0
    out[there, truth.own[there]] = False
    return out

  def judge(
    self, scores: np.ndarray, found: copies.There
  ) -> dict[str, copies.Task]:
    """The numbers of every task.

    Args:
      scores: float [q, n], NaN where there is none.
      found: videos that could be scored.
    """
    shared = dict(missing=self.missing, found=found, curve=self.curves)
    protocol = self.annotations.protocol
    if protocol == 'evve':
      return copies.evve(scores, self.truth, **shared)
    if protocol == 'svd':
      return copies.svd(scores, self.truth, **shared)
    return copies.fivr(
      scores,
      self.truth,
      tasks=self.tasks,
      hard=self.hard,
      ties=self.ties,
      **shared,
    )

  def counts(self, found: copies.There) -> dict[str, float]:
    """How many videos there are, and how many there should be."""
    out = {}
    for name, mask in (('queries', found.queries), ('videos', found.items)):
      out[f'{name}_found'] = float(mask.sum())
      out[f'{name}_expected'] = float(len(mask))
    return out

  def notes(self, found: copies.There) -> tuple[str, ...]:
    """Sentences to print with every number."""
    videos = _of(found.items, self.items, 'videos of the database')
    queries = _of(found.queries, self.queries, 'queries')
    out = [f'Found: {queries}, {videos}.']
    if not (found.queries.all() and found.items.all()):
      out.append(self._lost(found))
    known = self.annotations
    if outside := known.outside():
      out.append(
        f'Labels name {len(outside):,} videos that are not in the database '
        f'({", ".join(map(repr, outside[:_SHOWN]))}); they count nowhere.'
      )
    if known.protocol == 'fivr' and self.hard and not known.easy:
      out.append(
        'There is no list of easy duplicates, so there are no hard numbers '
        '(_h).'
      )
    if known.protocol == 'svd' and not known.unlabelled:
      out.append(
        'Only the labelled videos of a query compete with each other; the '
        'published numbers of SVD are among all unlabelled ones.'
      )
    if self.ties != 'later':
      out.append('Of equal scores the earlier video stands first.')
    if self.itself:
      out.append('A query that is in its own list counts like other videos.')
    return tuple(out)

  def _lost(self, found):
    """How many right pairs are left where videos are missing."""
    truth = self.truth
    there = found.queries[truth.query] & found.items[truth.item]
    foreign = truth.item != truth.own[truth.query]
    parts = []
    for task, labels in self.labels.items():
      bits = sum(copies.BITS[label] for label in labels)
      right = ((truth.label & bits) > 0) & foreign
      parts.append(f'{task} {(right & there).sum():,} of {right.sum():,}')
    rule = (
      'Right videos that are missing are no misses, as upstream has it '
      "(missing='ignore')"
      if self.missing == 'ignore'
      else "Right videos that are missing count as misses (missing='penalise')"
    )
    return (
      f'{rule}; queries that are missing are left out. Right pairs of which '
      f'both videos are there: {", ".join(parts)}.'
    )

  def _marked(self, names):
    """bool [n], the columns of some ids; None for no ids."""
    if not names:
      return None
    some = set(names)
    return np.array([name in some for name in self.items], bool)


def tasks(names: Sequence[str], audio: bool) -> tuple[str, ...]:
  """Tasks of FIVR: those named, or all visual ones; and the audio task."""
  out = tuple(names) or copies.VISUAL
  if audio and copies.AUDIO not in out:
    out = (*out, copies.AUDIO)
  return out


def _of(mask, ids, what):
  """'55 of 60 videos (missing: 'a', 'b', ...)'."""
  count = int(mask.sum())
  if count == len(mask):
    return f'all {count:,} {what}'
  lost = [ids[i] for i in np.flatnonzero(~mask)[:_SHOWN].tolist()]
  more = ', ...' if len(mask) - count > _SHOWN else ''
  names = ', '.join(map(repr, lost))
  return f'{count:,} of {len(mask):,} {what} (missing: {names}{more})'
