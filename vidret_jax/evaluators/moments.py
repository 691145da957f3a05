# SPDX-License-Identifier: Apache-2.0
"""Moments in a corpus: recall of videos (VR), moments (SVMR) and both (VCMR).

The protocol of TVR (Lei et al., arXiv 2001.09099) and ReLoCLNet (Zhang et al.,
arXiv 2105.06247). See `search.moments` for the search and `metrics.moments` for
the numbers.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax.evaluators import (
  base,
  moment_files,
  moment_lists,
  moment_options,
  moment_truth,
  non_finite,
  reporting,
)
from vidret_jax.evaluators.report import moments_page
from vidret_jax.metrics import moments as metrics
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.models.base import Retriever
from vidret_jax.search import moment_blocks
from vidret_jax.search import moments as search

_HIDDEN = (
  'the answers of this split are hidden: there are no numbers and no moments '
  'in known videos (SVMR); the predictions can be sent to the challenge.'
)


class Evaluator:
  """Finds moments for all queries and compares them with the annotations.

  Attributes:
    queries: what is asked.
    items: the videos.
    caveats: sentences to print with every number.
    truth: `metrics.moments.Truth` by rows of `items`, or None where hidden.
    found: `search.moments.Found` of the last `run`, or None.
  """

  def __init__(self, model: Retriever, mesh: Mesh, **options: Any):
    """Opens the data; see `moment_options.Options`.

    Raises:
      ValueError: an unknown option or value, annotations or lists that do not
        fit the data.
      TypeError: the system finds no moments.
      FileNotFoundError: the dataset is not there; says how to prepare it.
    """
    o = self._options = base.parse_options(
      moment_options.Options, options, 'moments'
    )
    self._search = base.parse_options(
      search.Options, o.search, 'moments (search)'
    )
    search.check_model(model)
    for name, values, known in (
      ('tasks', o.tasks, search.TASKS),
      ('videos', [o.videos], moments_page.VIDEOS),
      ('predictions', [o.predictions], moment_options.PREDICTIONS),
      ('list_scores', [o.list_scores], moment_lists.LIST_SCORES),
    ):
      for value in values:
        ranks_lib.check_option(name, value, known)
    self.queries, self.items = reporting.open_views(
      o.data, o.queries, o.items, 'moments'
    )
    if not len(self.queries):
      raise ValueError('there are no queries to answer; is the split empty?')
    self._model, self._mesh = model, mesh
    self.truth, self._kinds, self.caveats = self._known()
    self._tasks = tuple(
      task
      for task in search.TASKS
      if task in o.tasks and (task != 'SVMR' or self.truth is not None)
    )
    if not self._tasks:
      why = '; '.join(('nothing is left to do', *self.caveats))
      raise ValueError(f'tasks {tuple(o.tasks)}: {why}')
    self._lists = None
    if o.video_lists:
      self._lists = moment_lists.read(
        o.video_lists,
        self.queries.ids,
        self.items,
        count=self._search.videos,
        alpha=self._search.alpha if o.list_scores == 'similarity' else None,
      )
    self.found: search.Found | None = None
    self._results: dict[str, float] = {}
    self._ranked = reporting.Seen()  # The variables that gave `found`.

  def run(self, variables: Any) -> dict[str, float]:
    """Evaluates all tasks.

    Args:
      variables: of the model, as `model.apply` takes them.

    Returns:
      `metrics.moments.summary`, percent; nothing where answers are hidden.

    Raises:
      non_finite.NonFiniteScore: a score without a rank.
    """
    o = self._options
    self.found = None  # The memory of the last run.
    try:
      self.found = search.find(
        self._model,
        self._mesh,
        variables,
        self.queries,
        self.items,
        self._search,
        own=None if self.truth is None else self.truth.items,
        lists=self._lists,
        tasks=self._tasks,
        query_block=o.query_block,
        item_block=o.item_block,
        bank_bytes=o.bank_bytes,
        watch=base.progress,
      )
    except moment_blocks.NonFinite as e:
      raise non_finite.NonFiniteScore(self._explain(e)) from e
    self._results = {}
    if self.truth is not None:
      table = metrics.evaluate(
        self.predictions(),
        self.truth,
        kinds=self._kinds if o.by_kind else None,
        thresholds=tuple(o.thresholds),
        cutoffs=tuple(o.ks),
      )
      self._results = metrics.summary(table)
    self._ranked.set(variables)
    return dict(self._results)

  def predictions(self) -> dict[str, metrics.Lists]:
    """What the last `run` found, by task; videos by their place in `items`."""
    own = None if self.truth is None else self.truth.items
    return moment_lists.of_found(self.found, own)

  def report(
    self,
    variables: Any,
    folder: str | pathlib.Path,
    *,
    queries: Sequence[str] | None = None,
  ) -> pathlib.Path:
    """Writes `index.html` with moments, and predictions if asked for.

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
    curves = None
    if self.truth is not None and len(chosen):
      curves = search.curves(
        self._model,
        self._mesh,
        variables,
        self.queries,
        self.items,
        chosen,
        self.truth.items[chosen],
        block=o.item_block,
      )
    path = folder / 'index.html'
    if jax.process_index() == 0:
      page = moments_page.build(
        self.found,
        self.queries,
        self.items,
        self.truth,
        chosen=chosen,
        results=self._results,
        title=o.title or reporting.data_name(o.data),
        facts=self._facts(drawn=queries is None),
        notes=self.caveats,
        curves=curves,
      )
      path = moments_page.write(page, folder, videos=o.videos)
      if o.predictions:
        name = f'{reporting.data_name(o.data)}-predictions.json'
        self.write_predictions(folder / name)
    return path

  def write_predictions(self, path: str | pathlib.Path) -> None:
    """Writes what the last `run` found in the form of the challenge."""
    numbers = np.asarray(self.items.numbers)
    moment_files.write(
      path,
      self.predictions(),
      self.queries.rows,
      dict(zip(self.items.ids, numbers.tolist())),
      numbers,
    )

  def _known(self) -> tuple:
    """(truth, kinds, caveats); the truth of a hidden split is None."""
    if not self.queries.answered:
      return None, None, (_HIDDEN,)
    known = moment_truth.annotations(
      self.queries.rows,
      {name: i for i, name in enumerate(self.items.ids)},
      reporting.data_name(self._options.data),
    )
    return known.truth, known.kinds, tuple(known.notes)

  def _explain(self, error: moment_blocks.NonFinite) -> str:
    bad = (error.real & ~np.isfinite(error.sim_qv)).any(1)
    q = np.flatnonzero(bad) if error.items.ndim == 1 else bad.argmax()[None]
    items = error.items[q[0]] if error.items.ndim > 1 else error.items
    return non_finite.explain(
      error.sim_qv[q],
      error.real[q],
      [self.queries.ids[i] for i in error.queries[q]],
      [self.items.ids[i] for i in items],
      None,
    )

  def _facts(self, drawn: bool) -> list[tuple[str, str]]:
    """What a reader of the report must know about the numbers."""
    o, s = self._options, self._search
    facts = [
      ('system', type(self._model).__name__),
      ('tasks', ', '.join(self._tasks)),
      ('moments', f'{s.min_length} to {s.max_length - 1} clips'),
    ]
    if s.nms is not None:
      facts.append(('suppression above', f'{s.nms:g}'))
    if o.video_lists:
      facts.append(('videos listed by', pathlib.Path(o.video_lists).name))
    if drawn:
      facts.append(('sample seed', str(o.report_seed)))
    return facts
