# SPDX-License-Identifier: Apache-2.0
"""Text-to-video and video-to-text retrieval over a whole split.

Memory is bounded by blocks, never by the number of pairs: see `counting`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh

from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import base, collecting, counting, hiding, reporting
from vidret_jax.evaluators import predictions as predictions_lib
from vidret_jax.evaluators.report import asking, ranking_page
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.models.base import Retriever
from vidret_jax.search import bank as bank_lib

NO_EXPERT = ('error', 'last')


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of the retrieval evaluator.

  Attributes:
    data: dataset by name, `dict(name='msrvtt', split=..., ...)`; see
      `evaluators.base.make_source`.
    queries: a source to use instead of the one that `data` names.
    items: likewise.
    query_block: queries encoded and scored at a time, all devices together.
    item_block: items encoded and scored at a time.
    bank_bytes: embeddings kept on the devices of a process, items first; what
      is beyond goes to a temporary file.
    ties: 'mean' (CE), 'best' or 'worst' place of equal scores.
    v2t: 'best_caption' (CE) or 'max_pool'; see `metrics.ranks`.
    drop_experts: experts hidden from all videos.
    only_experts: the only experts left to all videos.
    drop_rate: probability that each other expert of a video is hidden; one
      always stays.
    drop_seed: of that draw.
    no_expert: 'error', or 'last': rank videos without any expert behind all
      others.
    num_samples: queries shown in the report, at most as many as there are.
    report_seed: of the draw of these queries.
    videos: how the report gets at clips: 'link' (hard, else symbolic), 'copy'
      or 'none'.
    title: of the report.
    predictions: k of the top-k table written next to the report; 0 for none.
  """

  data: Mapping[str, Any] | None = None
  queries: source_lib.Source | None = None
  items: source_lib.Source | None = None
  query_block: int = 256
  item_block: int = 256
  bank_bytes: int = 3 * 2**25
  ties: str = 'mean'
  v2t: str = 'best_caption'
  drop_experts: Sequence[str] = ()
  only_experts: Sequence[str] = ()
  drop_rate: float = 0.0
  drop_seed: int = 0
  no_expert: str = 'error'
  num_samples: int = 50
  report_seed: int = 0
  videos: str = 'link'
  title: str = ''
  predictions: int = 0


class Evaluator:
  """Ranks all items for all queries and back.

  Attributes:
    caveats: sentences to print with every number; empty for fair rules.
    ranks: zero-based ranks of the last `run`, or None.
  """

  def __init__(self, model: Retriever, mesh: Mesh, **options: Any):
    """Opens the data; see `Options`.

    Raises:
      ValueError: an unknown option or value.
      FileNotFoundError: the dataset is not there; says how to prepare it.
    """
    o = self._options = base.parse_options(Options, options, 'retrieval')
    ranks_lib.check_option('no_expert', o.no_expert, NO_EXPERT)
    ranks_lib.check_option('videos', o.videos, ranking_page.VIDEOS)
    self._queries, self._items = reporting.open_views(
      o.data, o.queries, o.items, 'retrieval'
    )
    self._truth = self._queries.ground_truth(self._items)
    self._hiding = hiding.make(
      self._items.spec,
      drop=o.drop_experts,
      only=o.only_experts,
      rate=o.drop_rate,
      seed=o.drop_seed,
    )
    self._model, self._mesh = model, mesh
    self._counter = counting.Counter(
      model,
      mesh,
      query_block=o.query_block,
      bank_bytes=o.bank_bytes,
      v2t=o.v2t,
      ties=o.ties,
    )
    self.caveats = (base.LEAK_CAVEAT,) if base.is_leaky(model) else ()
    self.ranks: counting.Ranks | None = None
    self._ranked = reporting.Seen()  # The variables that gave `ranks`.

  def run(self, variables: Any) -> dict[str, float]:
    """Evaluates both directions.

    Args:
      variables: of the model, as `model.apply` takes them.

    Returns:
      `t2v_<metric>` and `v2t_<metric>` for the metrics of
      `metrics.ranks.summary`; the names end in `_leaky2019` under that rule.

    Raises:
      non_finite.NonFiniteScore: a score without a rank.
    """
    items = self._collect(variables)
    self.ranks = self._counter.rank(
      variables,
      items,
      self._queries,
      self._truth.item_of_query,
      self._change_query,
    )
    self._ranked.set(variables)
    return self._results()

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
    folder = pathlib.Path(folder)
    if not self._ranked.same(variables):
      self.run(variables)
    o = self._options
    chosen = reporting.choose(
      self._queries, queries, o.num_samples, o.report_seed
    )
    items = self._collect(variables)
    found = asking.search(
      self._model,
      self._mesh,
      variables,
      items,
      self._queries,
      chosen,
      self._truth.item_of_query,
      self._change_query,
      o.query_block,
    )
    page = ranking_page.build(
      found,
      self._queries,
      self._items,
      self._truth,
      available=items.available,
      text_ranks=self.ranks.text,
      video_ranks=self.ranks.video,
      model=self._model,
      leaky=base.is_leaky(self._model),
      title=o.title or reporting.data_name(o.data),
      facts=self._facts(drawn=queries is None),
    )
    path = folder / 'index.html'
    if jax.process_index() == 0:
      path = ranking_page.write(page, folder, videos=o.videos)
    if o.predictions:
      self.predict(
        variables,
        folder / f'{reporting.data_name(o.data)}-predictions.csv',
        o.predictions,
        items=items,
      )
    return path

  def predict(
    self,
    variables: Any,
    path: str | pathlib.Path,
    k: int = 10,
    *,
    items: collecting.Collection | None = None,
  ) -> None:
    """Writes the k best item numbers of every query, as challenges want them.

    Args:
      variables: of the model.
      path: a CSV file: one row per query, in the order of the split, k item
        numbers from the best on.
      k: columns.
      items: encoded already.
    """
    predictions_lib.write(
      self._model,
      self._mesh,
      variables,
      path,
      k,
      items=items or self._collect(variables),
      queries=self._queries,
      block=self._options.query_block,
      change=self._change_query,
    )

  def _results(self) -> dict[str, float]:
    results = {}
    for direction, ranks in (
      ('t2v', self.ranks.text),
      ('v2t', self.ranks.video),
    ):
      for name, value in ranks_lib.summary(ranks).items():
        results[f'{direction}_{name}'] = value
    return base.marked(results, self._model)

  def _collect(self, variables: Any) -> collecting.Collection:
    o = self._options
    items = collecting.collect(
      self._model,
      self._mesh,
      variables,
      self._items,
      block=o.item_block,
      bank_bytes=o.bank_bytes,
      change=self._change_item,
      rank_empty_last=o.no_expert == 'last',
    )
    leak = (base.LEAK_CAVEAT,) if base.is_leaky(self._model) else ()
    self.caveats = leak + collecting.caveats(self._items, items)
    return items

  def _change_item(self, batch, rows):
    if self._hiding:
      left = self._hiding.apply(batch['available'], rows)
      batch = dict(batch, available=left)
    return batch

  def _change_query(self, batch, rows):
    # The leaky rule shows a query what its own video has left.
    if self._hiding and 'available' in batch:
      video = bank_lib.lookup(self._truth.item_of_query, rows)
      left = self._hiding.apply(batch['available'], video)
      batch = dict(batch, available=left)
    return batch

  def _facts(self, drawn: bool) -> list[tuple[str, str]]:
    """What a reader of the report must know about the numbers."""
    o = self._options
    facts = [('system', type(self._model).__name__)]
    if drawn:
      facts.append(('sample seed', str(o.report_seed)))
    facts += [('ties', o.ties), ('v2t', o.v2t)]
    if o.drop_experts:
      facts.append(('hidden experts', ', '.join(o.drop_experts)))
    if o.only_experts:
      facts.append(('only experts', ', '.join(o.only_experts)))
    if o.drop_rate:
      facts.append(('drop rate', f'{o.drop_rate:g} (seed {o.drop_seed})'))
    return facts
