# SPDX-License-Identifier: Apache-2.0
"""Retrieval where many items answer a query: recall, nDCG and mAP.

The evaluation of HGR (Chen et al., CVPR 2020) and RANP (Falcon et al., 2022)
and of multi-instance retrieval on EPIC-Kitchens-100; see `metrics.graded` for
the definitions. Unlike `retrieval`, all scores are kept: 4 bytes per pair.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import (
  base,
  collecting,
  counting,
  graded_files,
  reporting,
  whole_scores,
)
from vidret_jax.evaluators.report import ranking_page, relevance
from vidret_jax.metrics import graded as graded_lib
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.models.base import Retriever

PREDICTIONS = ('', 'npz', 'legacy')
_UNGRADED = (
  'no graded relevance for this split, so nDCG and mAP are left out; '
  'python -m vidret_jax.tools.relevance makes the matrix.'
)


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of the graded evaluator.

  Attributes:
    data: dataset by name; see `evaluators.base.make_source`.
    queries: a source to use instead of the one that `data` names.
    items: likewise.
    query_block: queries encoded and scored at a time, all devices together.
    item_block: items encoded and scored at a time.
    bank_bytes: embeddings of items kept on the devices of a process; what is
      beyond goes to a temporary file.
    score_bytes: scores kept in memory; what is beyond likewise.
    levels: the same numbers for each level of a model that has `levels`. They
      cost as much as the scores.
    mAP_binary: also average precision where half-right items count nothing.
    num_samples: queries shown in the report, at most as many as there are.
    report_seed: of the draw of these queries.
    videos: how the report gets at clips: 'link' (hard, else symbolic), 'copy'
      or 'none'.
    title: of the report.
    predictions: 'npz' writes all scores next to the report; 'legacy' also the
      files of the original, see `graded_files`.
  """

  data: Mapping[str, Any] | None = None
  queries: source_lib.Source | None = None
  items: source_lib.Source | None = None
  query_block: int = 256
  item_block: int = 256
  bank_bytes: int = 2**30
  score_bytes: int = 2**30
  levels: bool = False
  mAP_binary: bool = False
  num_samples: int = 50
  report_seed: int = 0
  videos: str = 'link'
  title: str = ''
  predictions: str = ''


class Evaluator:
  """Ranks all items for all queries and back, with graded relevance.

  Attributes:
    queries: what is asked, rows of all matrices.
    items: what is found, columns.
    caveats: sentences to print with every number.
    ranks: zero-based ranks of the last `run`, or None.
    judged: nDCG and average precision of each query and each item, or None.
    scores: 'score' and levels -> float32 [q, v] of the last `run`.
  """

  def __init__(self, model: Retriever, mesh: Mesh, **options: Any):
    """Opens the data; see `Options`.

    Raises:
      ValueError: an unknown option or value.
      FileNotFoundError: the dataset is not there; says how to prepare it.
    """
    o = self._options = base.parse_options(Options, options, 'graded')
    ranks_lib.check_option('videos', o.videos, ranking_page.VIDEOS)
    ranks_lib.check_option('predictions', o.predictions, PREDICTIONS)
    self.queries, self.items = reporting.open_views(
      o.data, o.queries, o.items, 'graded'
    )
    if not len(self.queries):
      raise ValueError('there are no queries to rank; is the split empty?')
    self._truth = self.queries.ground_truth(self.items)
    self._answers = answers(self.queries, self.items, self._truth)
    self._model, self._mesh = model, mesh
    self.caveats: tuple[str, ...] = ()
    self.ranks: counting.Ranks | None = None
    self.judged: tuple[graded_lib.Judged, graded_lib.Judged] | None = None
    self.scores: dict[str, np.ndarray] = {}
    self._results: dict[str, float] = {}
    self._ranked = reporting.Seen()  # The variables that gave `scores`.
    self._caveat(())

  def run(self, variables: Any) -> dict[str, float]:
    """Evaluates both directions.

    Args:
      variables: of the model, as `model.apply` takes them.

    Returns:
      `metrics.graded.summary`, percent; the same under `<level>_` for levels.

    Raises:
      non_finite.NonFiniteScore: a score without a rank.
    """
    o = self._options
    self.scores = {}  # The memory of the last run.
    items = collecting.collect(
      self._model,
      self._mesh,
      variables,
      self.items,
      block=o.item_block,
      bank_bytes=o.bank_bytes,
    )
    self._caveat(collecting.caveats(self.items, items))
    self.scores = whole_scores.collect(
      self._model,
      self._mesh,
      variables,
      items,
      self.queries,
      query_block=o.query_block,
      bank_bytes=o.bank_bytes,
      score_bytes=o.score_bytes,
      levels=o.levels and hasattr(self._model, 'levels'),
    )
    results = {}
    for name, sim_qv in self.scores.items():
      ranks, judged = self._judge(sim_qv)
      prefix = '' if name == whole_scores.SCORE else f'{name}_'
      if not prefix:
        self.ranks, self.judged = counting.Ranks(*ranks), judged
      found = graded_lib.summary(ranks, judged, binary=o.mAP_binary)
      results |= {f'{prefix}{key}': value for key, value in found.items()}
    self._results = results
    self._ranked.set(variables)
    return results

  def report(
    self,
    variables: Any,
    folder: str | pathlib.Path,
    *,
    queries: Sequence[str] | None = None,
  ) -> pathlib.Path:
    """Writes `index.html` with ranked clips, and predictions if asked for.

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
    shown = relevance.Relevance(
      answers=self._answers,
      graded=self._truth.graded,
      ndcg=None if self.judged is None else self.judged[0].ndcg,
      levels={k: x for k, x in self.scores.items() if k != whole_scores.SCORE},
    )
    found, truth = relevance.search(
      self.scores[whole_scores.SCORE], chosen, shown, self._truth
    )
    page = ranking_page.build(
      found,
      self.queries,
      self.items,
      truth,
      available=None,
      text_ranks=self.ranks.text,
      video_ranks=self.ranks.video,
      model=self._model,
      leaky=False,
      title=o.title or reporting.data_name(o.data),
      facts=self._facts(drawn=queries is None),
      table=relevance.table(self._results),
      notes=self.caveats,
      relevance=shown,
    )
    path = folder / 'index.html'
    if jax.process_index() == 0:
      path = ranking_page.write(page, folder, videos=o.videos)
      if o.predictions:
        self._write_predictions(folder)
    return path

  def _write_predictions(self, folder):
    o = self._options
    stem = f'{reporting.data_name(o.data)}-predictions'
    graded_files.write(
      folder / f'{stem}.npz', self.scores, self.queries, self.items.ids
    )
    if o.predictions == 'legacy':
      graded_files.write_legacy(
        folder,
        stem,
        self.scores,
        self.queries.texts,
        self.items.ids,
        self._results,
      )

  def _judge(self, sim_qv):
    """(ranks of queries and of items, what `metrics.graded` says of both)."""
    ranks = graded_lib.recall_ranks(sim_qv, self._answers)
    relevance_qv = self._truth.graded
    if relevance_qv is None:
      return ranks, None
    judged = (
      graded_lib.judge(sim_qv, relevance_qv),
      graded_lib.judge_columns(sim_qv, relevance_qv),
    )
    return ranks, judged

  def _caveat(self, found):
    caveats = list(found)
    if self._truth.graded is None:
      caveats.append(_UNGRADED)
    lost = sum(not len(x) for x in self._answers)
    if lost:
      caveats.append(
        f'{lost:,} of {len(self.queries):,} queries are the caption of no '
        'clip; in recall and ranks they count as last.'
      )
    self.caveats = tuple(caveats)

  def _facts(self, drawn: bool) -> list[tuple[str, str]]:
    """What a reader of the report must know about the numbers."""
    o = self._options
    facts = [('system', type(self._model).__name__)]
    if drawn:
      facts.append(('sample seed', str(o.report_seed)))
    return facts + [
      (name.replace('_avg', ', mean of both'), f'{self._results[name]:.1f}')
      for name in ('rsum', 'nDCG_avg', 'mAP_avg')
      if name in self._results
    ]


def answers(
  queries: source_lib.Source,
  items: source_lib.Source,
  truth: source_lib.GroundTruth,
) -> tuple[np.ndarray, ...]:
  """Per query, numbers of all items that are right.

  Sources without `answers(items)` know one for each query.
  """
  if hasattr(queries, 'answers'):
    return tuple(queries.answers(items))
  return tuple(np.asarray(truth.item_of_query, np.int64)[:, None])
