# SPDX-License-Identifier: Apache-2.0
"""Copies and relatives of videos in a database: mAP and micro-AP.

The protocols of FIVR-200K (arXiv 1809.04094), EVVE (Revaud et al., CVPR 2013)
and SVD (Jiang et al., ICCV 2019); the annotations say which. See
`search.copies` for the search and `metrics.copies` for the numbers.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax.data import whole_files
from vidret_jax.evaluators import (
  base,
  copy_files,
  copy_options,
  copy_truth,
  reporting,
)
from vidret_jax.evaluators.report import copies_page
from vidret_jax.metrics import copies as metrics
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.models.base import Retriever
from vidret_jax.search import copies as search
from vidret_jax.search import copy_frames


class Evaluator:
  """Compares all queries with the database, and that with the annotations.

  Attributes:
    queries: view of the query videos.
    items: view of the database.
    caveats: sentences to print with every number.
    judge: what is right, and how it is counted.
    found: `search.copies.Found` of the last `run`, or None.
    tasks: task -> `metrics.copies.Task` of the last `run`.
  """

  def __init__(self, model: Retriever, mesh: Mesh, **options: Any):
    """Opens the data; see `copy_options.Options`.

    Raises:
      ValueError: an unknown option or value, or annotations that do not fit.
      FileNotFoundError: the dataset is not there; says how to prepare it.
    """
    o = self._options = base.parse_options(
      copy_options.Options, options, 'copies'
    )
    self._search = base.parse_options(
      search.Options, o.search, 'copies (search)'
    )
    for name, value, known in (
      ('videos', o.videos, copies_page.VIDEOS),
      ('similarities', o.similarities, copy_options.SIMILARITIES),
    ):
      ranks_lib.check_option(name, value, known)
    self.queries, self.items = reporting.open_views(
      o.data, o.queries, o.items, 'copies'
    )
    self.judge = copy_truth.Judge(
      self.items.annotations,
      tuple(self.queries.ids),
      tuple(self.items.ids),
      tasks=copy_truth.tasks(o.tasks, o.audio),
      hard=o.hard,
      missing=o.missing,
      ties=o.ties,
      curves=o.curves,
    )
    self._model, self._mesh = model, mesh
    self._there = metrics.There(
      np.asarray(self.queries.found), np.asarray(self.items.found)
    )
    self.caveats = (*self.judge.notes(self._there), *self._pruned())
    self.found: search.Found | None = None
    self.tasks: dict[str, metrics.Task] = {}
    self._results: dict[str, float] = {}
    self._ranked = reporting.Seen()  # The variables that gave `found`.

  def run(self, variables: Any) -> dict[str, float]:
    """Scores all pairs and judges them.

    Args:
      variables: of the model, as `model.apply` takes them.

    Returns:
      `metrics.copies.summary`, percent; how many queries and videos were found
      and expected; of a pruned search also `visited`, percent of the pairs.

    Raises:
      ValueError: a score that is not finite, or videos that cannot be compared.
    """
    o = self._options
    self.found, self.tasks = None, {}  # The memory of the last run.
    found = search.find(
      self._model,
      self._mesh,
      variables,
      self._features(variables, self.queries),
      self._features(variables, self.items),
      self._search,
      folder=o.shards or None,
      watch=base.progress,
    )
    self.tasks = self.judge.judge(found.scores, self._there)
    self._results = metrics.summary(self.tasks)
    self._results |= self.judge.counts(self._there)
    if self._search.visit < 1:
      self._results['visited'] = 100 * found.share
    self.found = found
    self._ranked.set(variables)
    return dict(self._results)

  def report(
    self,
    variables: Any,
    folder: str | pathlib.Path,
    *,
    queries: Sequence[str] | None = None,
  ) -> pathlib.Path:
    """Writes `index.html`, and what else was asked for.

    The numbers on the page are those of the last `run` if it had the same
    variables; otherwise `run` comes first.

    Args:
      variables: of the model.
      folder: made if needed; in runs of several processes the first one writes.
      queries: ids to show; default: `num_samples` drawn with `report_seed`.

    Returns:
      The page.
    """
    if not self._ranked.same(variables):
      self.run(variables)
    o, folder = self._options, pathlib.Path(folder)
    chosen = reporting.choose(
      self.queries, queries, o.num_samples, o.report_seed
    )
    path = folder / 'index.html'
    if jax.process_index() == 0:
      page = self._page(chosen, drawn=queries is None)
      path = copies_page.write(page, folder, videos=o.videos)
      name = reporting.data_name(o.data)
      if o.similarities:
        self.write_similarities(folder / f'{name}-similarities.json')
      if o.curves:
        curves = {key: t.curve.tolist() for key, t in self.tasks.items()}
        whole_files.write_json(
          folder / f'{name}-curves.json', curves, overwrite=True
        )
    return path

  def write_similarities(self, path: str | pathlib.Path) -> None:
    """Writes the scores of the last `run`, {query: {video: score}}."""
    copy_files.write(
      path,
      self.found.scores,
      self.queries.ids,
      self.items.ids,
      self._options.similarities_top or None,
    )

  def _features(self, variables, view):
    """A view of region features: of videos that come as frames, made now."""
    if not hasattr(view, 'frames'):
      return view
    return copy_frames.see(
      self._model, self._mesh, variables, view, base.progress
    )

  def _page(self, chosen, drawn):
    """The report of some queries."""
    o, known = self._options, self.judge.annotations
    labels, ap = {}, {}
    for task, right in self.judge.labels.items():
      name, _ = metrics.names(task)
      labels[name], ap[name] = right, 100 * self.tasks[task].ap
    return copies_page.build(
      queries=self.queries.ids,
      items=self.items.ids,
      scores=self.found.scores,
      labels=known.labels,
      tasks=labels,
      ap=ap,
      results=self._results,
      title=o.title or reporting.data_name(o.data),
      chosen=chosen.tolist(),
      candidates=self.judge.candidates(),
      visited=self.found.visited,
      found_queries=self._there.queries,
      found_items=self._there.items,
      query_videos=self.queries.videos,
      item_videos=self.items.videos,
      query_frames=self.queries.lengths,
      item_frames=self.items.lengths,
      easy=known.easy,
      events=known.events,
      ties='earlier' if known.protocol == 'evve' else o.ties,
      facts=self._facts(drawn),
      notes=self.caveats,
      answers=o.answers,
    )

  def _pruned(self) -> tuple[str, ...]:
    """A sentence if the network does not see every pair."""
    if self._search.visit == 1:
      return ()
    return (
      f'The network compared only the best {100 * self._search.visit:g} % of '
      'the videos by a coarse score with each query; the others rank behind '
      'them and are counted as right or wrong like all.',
    )

  def _facts(self, drawn: bool) -> list[tuple[str, str]]:
    """What a reader of the report must know about the numbers."""
    o, known = self._options, self.judge.annotations
    facts = [
      ('system', type(self._model).__name__),
      ('protocol', known.protocol.upper()),
      ('missing videos', o.missing),
      ('chunks of', f'{self._search.chunk} frames'),
    ]
    if self._search.visit < 1:
      facts.append(('pairs compared', f'{100 * self.found.share:.3g} %'))
    if drawn:
      facts.append(('sample seed', str(o.report_seed)))
    return facts
